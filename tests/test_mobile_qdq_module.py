"""A Program as a q/dq module computes what the Program says, within one step an operator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from test_mobile_programs import REPEATED, Builder, interpret, repeating_sum
from torch import nn
from torch.nn import functional

import pyquant
from pyquant.errors import ExportError
from pyquant.ir import ops
from pyquant.ir.program import DType, Program
from pyquant.mobile.qdq_module import QdqModule
from pyquant.mobile.table_functions import FUNCTIONS, function_of

SAME = ops.Window(3, 3, 1, 1, 1, 1, 1, 1)
UNEVEN = ops.Window(3, 3, 2, 2, 0, 0, 1, 1)


def steps_apart(program: Program, seed: int = 0) -> float:
    """The largest difference from the interpreter, in steps of the output."""
    generator = torch.Generator().manual_seed(seed)
    inputs = [
        torch.randn(program.tensors[index].shape, generator=generator) for index in program.inputs
    ]
    expected = interpret(program, *inputs)
    with torch.no_grad():
        found = QdqModule(program)(*inputs)
    found = (found,) if isinstance(found, torch.Tensor) else found
    worst = 0.0
    for index, a, b in zip(program.outputs, expected, found, strict=True):
        source = program.producer(index)
        assert source is not None
        scale = program.tensors[source.inputs[0]].scale
        assert a.shape == b.shape
        worst = max(worst, float((a - b).abs().max()) / (float(scale[0]) if scale.size else 1e-4))
    return worst


@pytest.mark.parametrize("window", [ops.Window(), SAME, UNEVEN, ops.Window(5, 3, 1, 2, 2, 1, 2, 1)])
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("bounds", [(0, 255), (77, 255), (77, 201), (3, 255)])
def test_convolutions(window: ops.Window, groups: int, bounds: tuple[int, int]) -> None:
    builder = Builder(shape=(2, 6, 12, 12))
    y = builder.conv(
        builder.quantize(), 12, window, groups, zero_point=77, scale=0.02,
        output_min=bounds[0], output_max=bounds[1],
    )  # fmt: skip
    assert steps_apart(builder.finish(y)) < 1.01


def test_linear_layers_of_rank_2_and_4_and_float_results() -> None:
    builder = Builder(shape=(4, 40))
    q = builder.quantize()
    y = builder.linear(q, 33, output_min=128)
    z = builder.linear(q, 7, dtype=DType.float32)
    assert steps_apart(builder.finish(y, z)) < 1.01
    image = Builder(shape=(2, 6, 5, 4))
    assert steps_apart(image.finish(image.linear(image.quantize(), 10))) < 1.01


def test_additions_and_products() -> None:
    builder = Builder()
    q = builder.quantize()
    y = builder.conv(q, 3, SAME, scale=0.021, zero_point=99)
    shape = builder.program.tensors[q].shape
    total = builder.emit(ops.Add(output_min=110), [q, y], shape, 0.037, 110)
    product = builder.emit(ops.Mul(output_max=200), [q, y], shape, 0.05, 90)
    assert steps_apart(builder.finish(total, product)) < 1.01


@pytest.mark.parametrize("repeated", REPEATED)
def test_sums_that_repeat_values(repeated: str) -> None:
    assert steps_apart(repeating_sum(repeated)) < 1.01


MOVES: dict[str, tuple[ops.Op, tuple[int, ...]]] = {
    "max_pool": (ops.MaxPool2d(ops.Window(3, 3, 2, 2, 1, 1, 1, 1)), (2, 6, 6, 8)),
    "uneven_max_pool": (ops.MaxPool2d(ops.Window(3, 3, 2, 2, 0, 0, 1, 1)), (2, 6, 6, 8)),
    "avg_pool": (ops.AvgPool2d(ops.Window(2, 2, 2, 2)), (2, 6, 6, 8)),
    "padded_avg_pool": (
        ops.AvgPool2d(ops.Window(3, 3, 2, 2, 1, 1, 1, 1), count_include_pad=False),
        (2, 6, 6, 8),
    ),
    "global_pool": (ops.AdaptiveAvgPool2d(), (2, 1, 1, 8)),
    "adaptive_pool": (ops.AdaptiveAvgPool2d(5, 3), (2, 5, 3, 8)),
    "global_max_pool": (ops.AdaptiveMaxPool2d(), (2, 1, 1, 8)),
    "pad": (ops.Pad(1, 2, 3, 4), (2, 16, 18, 8)),
    "flatten": (ops.Flatten(), (2, 1152)),
    "reshape": (ops.Reshape((4, 24, -1)), (2, 24, 12, 4)),
    "slice": (ops.Slice(3, 2, 5), (2, 12, 12, 3)),
    "slice_rows": (ops.Slice(1, 4, 12), (2, 8, 12, 8)),
    "slice_from_the_end": (ops.Slice(2, -5, -1), (2, 12, 4, 8)),
    "slice_to_the_end": (ops.Slice(1, 1, 0), (2, 11, 12, 8)),
    "shuffle": (ops.ChannelShuffle(4), (2, 12, 12, 8)),
    "nearest": (ops.ResizeNearest(scale_h=2.0, scale_w=1.5), (2, 24, 18, 8)),
    "bilinear": (ops.ResizeBilinear(7, 20), (2, 7, 20, 8)),
}


@pytest.mark.parametrize("name", MOVES)
def test_what_moves_or_pools_activations(name: str) -> None:
    op, shape = MOVES[name]
    builder = Builder(shape=(2, 8, 12, 12))
    assert steps_apart(builder.finish(builder.like(op, builder.quantize(), shape))) < 1.01


@pytest.mark.parametrize("interleaved", [False, True])
def test_concatenation(interleaved: bool) -> None:
    builder = Builder(shape=(2, 6, 5, 5))
    q = builder.quantize()
    other = builder.like(ops.ChannelShuffle(2), q, (2, 5, 5, 6))
    op = ops.Concat(3, interleaved)
    y = builder.emit(op, [q, other], (2, 5, 5, 12), 0.03, 120)
    assert steps_apart(builder.finish(y)) < 1.01


@pytest.mark.parametrize("values", ["random", "hardswish", "hardsigmoid"])
def test_tables(values: str) -> None:
    builder = Builder(shape=(2, 4, 16, 16))
    q = builder.quantize(0.03, 120)
    if values == "random":
        table = np.random.default_rng(0).integers(0, 256, 256).astype(np.uint8)
    else:
        x = (torch.arange(256) - 120) * 0.03
        steps = getattr(functional, values)(x) / 0.02
        table = (steps.round() + 10).clamp(0, 255).to(torch.uint8).numpy()
    y = builder.emit(ops.LookupTable(table.tobytes()), [q], (2, 16, 16, 4), 0.02, 10)
    assert steps_apart(builder.finish(y)) < 1.01


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_the_function_of_a_table_is_found(function: Callable[..., torch.Tensor]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(self.conv(x))

    x = torch.randn(4, 3, 8, 8)
    program = pyquant.quantize(Net().eval(), x[:1], x, progress=False).program
    assert program is not None
    for node in program.nodes:
        if isinstance(node.op, ops.LookupTable):
            tensors = (program.tensors[node.inputs[0]], program.tensors[node.output])
            assert function_of(node.op, *tensors) is function


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(8, 6, 3, 2, 1, 1),
        nn.ConvTranspose2d(8, 12, 2, 2, groups=4),
        nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.PReLU()),
    ],
    ids=["transposed", "grouped transposed", "prelu"],
)
def test_quantized_layers(layer: nn.Module) -> None:
    x = torch.randn(4, 8, 9, 9)
    model = pyquant.quantize(layer.eval(), x[:1], x, progress=False)
    assert model.program is not None
    source = model.program.producer(model.program.outputs[0])
    assert source is not None
    scale = float(model.program.tensors[source.inputs[0]].scale[0])
    with torch.no_grad():
        difference = (QdqModule(model.program)(x[:1]) - model(x[:1])).abs().max()
    assert float(difference) < 1.01 * scale


def test_quantized_inputs_are_refused() -> None:
    builder = Builder(shape=(1, 4))
    program = builder.finish(builder.quantize())
    program.inputs = [1]
    with pytest.raises(ExportError, match="float32 inputs"):
        QdqModule(program)
