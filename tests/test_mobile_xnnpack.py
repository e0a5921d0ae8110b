"""A Program as an XNNPACK graph, written without ExecuTorch's lowering, computes what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from test_mobile_programs import REPEATED, Builder, interpret, repeating_sum
from test_mobile_qdq_module import MOVES, SAME, UNEVEN
from torch import nn
from torch.nn import functional

import pyquant
from pyquant.errors import UnsupportedError
from pyquant.ir import ops
from pyquant.ir.program import DType, Program
from pyquant.mobile.executorch import DELEGATED, to_executorch
from pyquant.mobile.runtimes import load_executorch
from pyquant.mobile.xnnpack import DelegatedModule

pytest.importorskip("executorch")


def inputs_of(program: Program, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [program.tensors[index].shape for index in program.inputs]
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def run(
    program: Program,
    folder: Path,
    inputs: tuple[torch.Tensor, ...],
    largest_batch: int | None = None,
) -> list[torch.Tensor]:
    """What the ``.pte`` file gives."""
    module = DelegatedModule(program, inputs, largest_batch)
    content, details = to_executorch(module, inputs, backend=DELEGATED, largest_batch=largest_batch)
    assert details == {"delegates": 1, "undelegated": {}}
    path = folder / "model.pte"
    path.write_bytes(content)
    return load_executorch(path).run(list(inputs))


def steps_apart(program: Program, folder: Path, largest_batch: int | None = None) -> float:
    """The largest difference from the interpreter, in steps of the output."""
    inputs = inputs_of(program)
    worst = 0.0
    found = run(program, folder, inputs, largest_batch)
    for index, a, b in zip(program.outputs, interpret(program, *inputs), found, strict=True):
        source = program.producer(index)
        assert source is not None and a.shape == b.shape
        scale = float(program.tensors[source.inputs[0]].scale[0])
        worst = max(worst, float((a - b).abs().max()) / scale)
    return worst


@pytest.mark.parametrize("window", [ops.Window(), SAME, UNEVEN, ops.Window(5, 3, 1, 2, 2, 1, 2, 1)])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_convolutions(window: ops.Window, groups: int, tmp_path: Path) -> None:
    """In one graph: without bounds, with a ReLU's, and with two of their own."""
    builder = Builder(shape=(2, 6, 12, 12))
    q = builder.quantize()
    bounds = [(0, 255), (77, 255), (77, 201)]
    results = [
        builder.conv(
            q, 12, window, groups, zero_point=77, scale=0.02, output_min=low, output_max=high
        )
        for low, high in bounds
    ]
    assert steps_apart(builder.finish(*results), tmp_path) < 1.01


def test_linear_layers(tmp_path: Path) -> None:
    builder = Builder(shape=(4, 40))
    program = builder.finish(builder.linear(builder.quantize(), 33, output_min=128))
    assert steps_apart(program, tmp_path) < 1.01


@pytest.mark.parametrize("scale", [0.037, 1e-6])
def test_additions_and_products(scale: float, tmp_path: Path) -> None:
    """Those of far different scales, too, which XNNPACK takes in float32 only."""
    builder = Builder()
    q = builder.quantize()
    y = builder.conv(q, 3, SAME, scale=0.021, zero_point=99)
    shape = builder.program.tensors[q].shape
    total = builder.emit(ops.Add(output_min=110), [q, y], shape, scale, 110)
    product = builder.emit(ops.Mul(output_max=200), [q, y], shape, scale, 90)
    assert steps_apart(builder.finish(total, product), tmp_path) < 1.01


@pytest.mark.parametrize("repeated", REPEATED)
@pytest.mark.parametrize("largest_batch", [None, 3])
def test_sums_that_repeat_values(repeated: str, largest_batch: int | None, tmp_path: Path) -> None:
    assert steps_apart(repeating_sum(repeated), tmp_path, largest_batch) < 1.01


#: What XNNPACK lacks, of the operators that move and pool.
LACKING = {"nearest", "adaptive_pool"}


@pytest.mark.parametrize("name", sorted(MOVES.keys() - LACKING))
@pytest.mark.parametrize("largest_batch", [None, 3])
def test_what_moves_or_pools_activations(
    name: str, largest_batch: int | None, tmp_path: Path
) -> None:
    op, shape = MOVES[name]
    builder = Builder(shape=(2, 8, 12, 12))
    program = builder.finish(builder.like(op, builder.quantize(), shape))
    assert steps_apart(program, tmp_path, largest_batch) < 1.01


@pytest.mark.parametrize("name", sorted(MOVES.keys() - LACKING))
def test_batches_that_grow_and_shrink(name: str, tmp_path: Path) -> None:
    op, shape = MOVES[name]
    builder = Builder(shape=(2, 8, 12, 12))
    program = builder.finish(builder.like(op, builder.quantize(), shape))
    run(program, tmp_path, inputs_of(program), largest_batch=4)
    loaded = load_executorch(tmp_path / "model.pte")
    scale = float(program.tensors[program.nodes[-1].inputs[0]].scale[0])
    for batch in (1, 4, 2, 3):
        x = torch.randn(batch, 8, 12, 12)
        (found,), (expected,) = loaded.run([x]), interpret(program, x)
        assert (found - expected).abs().max() / scale < 1.01


def test_a_pooled_pixel_of_batches_that_grow(tmp_path: Path) -> None:
    builder = Builder(shape=(2, 8, 1, 1))
    program = builder.finish(
        builder.like(ops.AdaptiveAvgPool2d(), builder.quantize(), (2, 1, 1, 8))
    )
    run(program, tmp_path, inputs_of(program), largest_batch=4)
    loaded = load_executorch(tmp_path / "model.pte")
    for batch in (1, 4, 2, 3):
        x = torch.randn(batch, 8, 1, 1)
        assert torch.equal(loaded.run([x])[0], interpret(program, x)[0])


@pytest.mark.parametrize("name", sorted(LACKING))
def test_what_xnnpack_lacks_is_named(name: str, tmp_path: Path) -> None:
    op, shape = MOVES[name]
    builder = Builder(shape=(2, 8, 12, 12))
    program = builder.finish(builder.like(op, builder.quantize(), shape))
    with pytest.raises(UnsupportedError, match=f"layer {type(op).__name__.lower()}_1"):
        run(program, tmp_path, inputs_of(program))


@pytest.mark.parametrize("count", [2, 5, 7])
@pytest.mark.parametrize("interleaved", [False, True])
def test_concatenation(count: int, interleaved: bool, tmp_path: Path) -> None:
    builder = Builder(shape=(2, 6, 5, 5))
    parts = [builder.quantize()]
    while len(parts) < count:
        parts.append(builder.like(ops.ChannelShuffle(2), parts[-1], (2, 5, 5, 6)))
    y = builder.emit(ops.Concat(3, interleaved), parts, (2, 5, 5, 6 * count), 0.03, 120)
    assert steps_apart(builder.finish(y), tmp_path) == 0


FUNCTIONS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    torch.abs,
    torch.neg,
    torch.relu,
    torch.sigmoid,
    torch.tanh,
    functional.elu,
    functional.gelu,
    functional.hardsigmoid,
    functional.hardswish,
    functional.relu6,
    functional.silu,
)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_tables(function: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path) -> None:
    """All 256 inputs; a step apart may be what lies between two steps."""
    builder = Builder(shape=(1, 4, 8, 8))
    q = builder.quantize(0.03, 120)
    inverse = np.float32(1) / np.float32(0.0213)
    real = function((torch.arange(256) - 120) * torch.tensor(0.03))
    table = ((real * inverse).round() + 100).clamp(0, 255).to(torch.uint8).numpy()
    y = builder.emit(ops.LookupTable(table.tobytes()), [q], (1, 8, 8, 4), 0.0213, 100)
    program = builder.finish(y)
    x = ((torch.arange(256) - 120) * 0.03).reshape(1, 4, 8, 8)
    (expected,), (found,) = interpret(program, x), run(program, tmp_path, (x,))
    assert expected.unique().numel() > 20
    different = (expected - found).abs() / 0.0213
    assert different.max() < 1.01 and (different > 0.5).sum() <= 2


def test_a_table_between_equal_or_other_qparams(tmp_path: Path) -> None:
    builder = Builder(shape=(1, 4, 8, 8))
    q = builder.quantize(0.03, 120)
    same = builder.like(ops.LookupTable(bytes(range(256))), q, (1, 8, 8, 4))
    steps = (np.arange(256) - 120).astype(np.float32) * np.float32(0.03)
    table = np.clip(np.rint(steps * (np.float32(1) / np.float32(0.05))) + 90, 0, 255)
    op = ops.LookupTable(table.astype(np.uint8).tobytes())
    program = builder.finish(same, builder.emit(op, [q], (1, 8, 8, 4), 0.05, 90))
    assert steps_apart(program, tmp_path) < 1.01


def test_other_tables_constants_and_quantized_inputs_are_refused(tmp_path: Path) -> None:
    builder = Builder(shape=(1, 4, 8, 8))
    q = builder.quantize()
    table = np.random.default_rng(0).integers(0, 256, 256).astype(np.uint8).tobytes()
    program = builder.finish(builder.emit(ops.LookupTable(table), [q], (1, 8, 8, 4)))
    with pytest.raises(UnsupportedError, match=r"lookuptable_1.*table"):
        run(program, tmp_path, inputs_of(program))
    linear = Builder(shape=(1, 4))
    program = linear.finish(linear.linear(linear.quantize(), 7, dtype=DType.float32))
    with pytest.raises(UnsupportedError, match="float32"):
        run(program, tmp_path, inputs_of(program))


@pytest.mark.parametrize("layer", [
    nn.ConvTranspose2d(8, 6, 3, 2, 1, 1),
    nn.ConvTranspose2d(8, 12, 2, 2, groups=4),
    nn.Conv2d(8, 16, 3, groups=8),
])  # fmt: skip
def test_quantized_layers(layer: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 8, 9, 9)
    model = pyquant.quantize(layer.eval(), x[:1], x, progress=False)
    assert model.program is not None
    source = model.program.producer(model.program.outputs[0])
    assert source is not None
    scale = float(model.program.tensors[source.inputs[0]].scale[0])
    (found,) = run(model.program, tmp_path, (x[:1],))
    assert float((found - model(x[:1])).abs().max()) < 1.01 * scale
