"""The TorchScript target against a plain interpreter of the Program, operator by operator."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from test_mobile_programs import REPEATED, Builder, interpret, repeating_sum
from torch.jit.mobile import _get_model_ops_and_info, _load_for_lite_interpreter
from torch.nn import functional

from pyquant.errors import ExportError
from pyquant.ir import ops
from pyquant.ir.program import DType, Program
from pyquant.mobile.torchscript import qnnpack_engine, to_torchscript

W3 = ops.Window(3, 3, 1, 1, 1, 1, 1, 1)
SAME_EVEN = ops.Window(3, 3, 2, 2, 0, 0, 1, 1)  # TensorFlow's "same" with an even size


def run(content: bytes, *inputs: torch.Tensor) -> list[torch.Tensor]:
    with qnnpack_engine():
        result = _load_for_lite_interpreter(io.BytesIO(content))(*inputs)
    return [result] if isinstance(result, torch.Tensor) else list(result)


def operators(content: bytes, folder: Path) -> set[str]:
    path = folder / "model.ptl"
    path.write_bytes(content)
    return set(_get_model_ops_and_info(str(path)))


def example(program: Program, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(program.tensors[program.inputs[0]].shape, generator=generator) * 2


def steps_apart(program: Program, content: bytes, x: torch.Tensor) -> float:
    """The largest difference of the first output in steps of its scale."""
    (expected, *_), (actual, *_) = interpret(program, x), run(content, x)
    assert expected.shape == actual.shape
    source = program.producer(program.outputs[0])
    assert source is not None
    scale = program.tensors[source.inputs[0]].scale[0]
    assert len(np.unique(expected.numpy())) > 8, "the test's own data is degenerate"
    return round((expected - actual).abs().max().item() / float(scale), 3)


@pytest.mark.parametrize(
    ("window", "groups", "channels"),
    [
        (ops.Window(), 1, 16),
        (W3, 1, 8),
        (W3, 6, 6),
        (W3, 6, 12),
        (ops.Window(3, 3, 2, 2, 1, 1, 1, 1, 2, 2), 2, 8),
        (ops.Window(5, 3, 1, 2, 2, 1, 2, 1), 6, 6),
        (ops.Window(7, 7, 1, 1, 3, 3, 3, 3), 6, 6),
        (SAME_EVEN, 1, 8),
        (SAME_EVEN, 6, 6),
        (ops.Window(2, 4, 1, 1, 1, 2, 0, 1), 3, 9),
    ],
)
@pytest.mark.parametrize("bounds", [(0, 255), (77, 255), (77, 201), (3, 255), (0, 140)])
def test_convolutions_are_bit_exact(
    window: ops.Window, groups: int, channels: int, bounds: tuple[int, int]
) -> None:
    builder = Builder(shape=(2, 6, 12, 12))
    y = builder.conv(
        builder.quantize(), channels, window, groups, zero_point=77, scale=0.02,
        output_min=bounds[0], output_max=bounds[1],
    )  # fmt: skip
    program = builder.finish(y)
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) == 0


@pytest.mark.parametrize("bounds", [(0, 255), (77, 255), (10, 180)])
def test_linear_layers_are_bit_exact(bounds: tuple[int, int]) -> None:
    builder = Builder(shape=(4, 40))
    y = builder.linear(
        builder.quantize(), 33, zero_point=77, output_min=bounds[0], output_max=bounds[1]
    )
    program = builder.finish(y)
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) == 0


def test_a_linear_layer_over_an_image_works_on_its_channels() -> None:
    builder = Builder(shape=(2, 6, 5, 4))
    program = builder.finish(builder.linear(builder.quantize(), 10))
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) == 0


@pytest.mark.parametrize("layer", ["conv", "linear"])
def test_float_outputs_keep_int8_weights(layer: str, tmp_path: Path) -> None:
    if layer == "conv":
        builder = Builder(shape=(2, 16, 9, 9))
        y = builder.conv(builder.quantize(), 64, SAME_EVEN, dtype=DType.float32)
        weights = 64 * 9 * 16
    else:
        builder = Builder(shape=(2, 64))
        y = builder.linear(builder.quantize(), 300, dtype=DType.float32)
        weights = 64 * 300
    program = builder.finish(y)
    content, notes = to_torchscript(program)
    x = example(program)
    torch.testing.assert_close(run(content, x), interpret(program, x), rtol=1e-5, atol=1e-4)
    assert len(content) < 2.5 * weights + 12_000
    assert len(notes) == 1 and "float32" in notes[0]


@pytest.mark.parametrize("relu", [False, True])
def test_residual_additions_are_within_one_step(relu: bool) -> None:
    builder = Builder()
    q = builder.quantize()
    y = builder.conv(q, 3, W3, scale=0.021, zero_point=99)
    shape = builder.program.tensors[q].shape
    op = ops.Add(output_min=110 if relu else 0)
    program = builder.finish(builder.emit(op, [q, y], shape, 0.037, 110))
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) <= 1


@pytest.mark.parametrize(("low", "high"), [(0, 255), (110, 255), (110, 150), (0, 150)])
def test_additions_of_float_and_far_scales(low: int, high: int) -> None:
    builder = Builder()
    q = builder.quantize()
    shape = builder.program.tensors[q].shape
    y = builder.conv(q, 3, W3, dtype=DType.float32)
    total = builder.emit(ops.Add(low, high), [y, q], shape, 0.037, 110)
    far = builder.conv(q, 3, W3, scale=1e-7)
    total = builder.emit(ops.Add(low, high), [total, far], shape, 0.037, 110)
    program = builder.finish(total)
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) <= 1


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("window", "shape"),
    [
        (ops.Window(12, 12), (2, 1, 1, 6)),
        (ops.Window(12, 1), (2, 1, 12, 6)),
        (W3, (2, 12, 12, 6)),
    ],
)
@pytest.mark.parametrize("bounds", [(0, 255), (77, 255), (10, 180)])
def test_products_are_within_one_step(
    window: ops.Window, shape: tuple[int, ...], swapped: bool, bounds: tuple[int, int]
) -> None:
    builder = Builder(shape=(2, 6, 12, 12))
    q = builder.quantize()
    pooled = builder.emit(ops.MaxPool2d(window), [q], shape, 0.03, 120)
    factors = [pooled, q] if swapped else [q, pooled]
    program = builder.finish(builder.emit(ops.Mul(*bounds), factors, (2, 12, 12, 6), 0.037, 77))
    content, _ = to_torchscript(program)
    # At most one step: the stock multiplier may differ in its last bit.
    assert steps_apart(program, content, example(program)) <= 1


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("repeated", REPEATED)
def test_sums_that_repeat_values(repeated: str, swapped: bool) -> None:
    program = repeating_sum(repeated, swapped)
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) <= 1


def test_reshapes_are_exact() -> None:
    builder = Builder(shape=(2, 6, 8, 4))
    x = builder.quantize()
    for sizes, shape in (
        ((6, 4, 8), (2, 4, 8, 6)),
        ((48, -1), (2, 48, 4)),
        ((-1, 2, 4), (2, 2, 4, 24)),
        ((192,), (2, 192)),
    ):
        x = builder.emit(ops.Reshape(sizes), [x], shape, 0.03, 120)
    program = builder.finish(x)
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) == 0


def test_a_constant_operand_of_an_addition() -> None:
    builder = Builder()
    q = builder.quantize()
    shape = builder.program.tensors[q].shape
    values = builder.rng.integers(0, 256, shape).astype(np.uint8)
    constant = builder.constant("shift", values, [0.02])
    builder.program.tensors[constant].zero_point = 40
    program = builder.finish(builder.emit(ops.Add(), [q, constant], shape, 0.05, 110))
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) <= 1


@pytest.mark.parametrize(
    "window",
    [
        ops.Window(2, 2, 2, 2),
        ops.Window(3, 3, 2, 2, 1, 1, 1, 1),
        SAME_EVEN,
        ops.Window(2, 2, 1, 1, 1, 1, 1, 1),
        ops.Window(2, 3, 1, 1, 0, 2, 1, 2, 2, 1),
    ],
)
def test_max_pooling_is_bit_exact_and_padding_never_wins(window: ops.Window) -> None:
    builder = Builder(shape=(2, 16, 12, 12))
    q = builder.quantize(zero_point=250, scale=0.01)  # so that zero would beat most values
    extent_h = window.dilation_h * (window.kernel_h - 1) + 1
    extent_w = window.dilation_w * (window.kernel_w - 1) + 1
    h = (12 + window.pad_top + window.pad_bottom - extent_h) // window.stride_h + 1
    w = (12 + window.pad_left + window.pad_right - extent_w) // window.stride_w + 1
    program = builder.finish(builder.like(ops.MaxPool2d(window), q, (2, h, w, 16)))
    content, _ = to_torchscript(program)
    x = -example(program).abs()
    assert steps_apart(program, content, x) == 0


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(
    "op",
    [
        ops.AvgPool2d(ops.Window(2, 2, 2, 2)),
        ops.AvgPool2d(W3),
        ops.AvgPool2d(W3, count_include_pad=False),
        ops.AvgPool2d(ops.Window(2, 2, 2, 2), divisor_override=3),
        ops.AvgPool2d(SAME_EVEN),
        ops.AdaptiveAvgPool2d(1, 1),
        ops.AdaptiveAvgPool2d(5, 7),
    ],
)
def test_average_pooling_is_within_one_step(op: ops.AvgPool2d, same: bool) -> None:
    builder = Builder(shape=(2, 16, 12, 12))
    q = builder.quantize()
    x = example(builder.program)
    scale, zero_point = (0.03, 120) if same else (0.011, 90)
    y = builder.emit(op, [q], (0, 0, 0, 0), scale, zero_point)
    program = builder.finish(y)
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, x) <= 1


def test_ceil_mode_pools_like_the_float_operator() -> None:
    builder = Builder(shape=(1, 4, 12, 12))
    q = builder.quantize()
    window = ops.Window(3, 3, 2, 2)
    program = builder.finish(builder.like(ops.MaxPool2d(window, ceil_mode=True), q, (1, 6, 6, 4)))
    content, _ = to_torchscript(program)
    x = example(program)
    grid = (torch.round(x / 0.03).clamp(-120, 135)) * 0.03
    expected = functional.max_pool2d(grid, 3, 2, ceil_mode=True)
    torch.testing.assert_close(run(content, x), [expected], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["max", "average"])
def test_pooling_that_stock_operators_lack_is_refused_by_name(kind: str) -> None:
    builder = Builder(shape=(1, 4, 12, 12))
    q = builder.quantize()
    op: ops.Op = (
        ops.MaxPool2d(SAME_EVEN, ceil_mode=True)
        if kind == "max"
        else ops.AvgPool2d(SAME_EVEN, count_include_pad=False)
    )
    program = builder.finish(builder.like(op, q, (1, 6, 6, 4)))
    with pytest.raises(ExportError, match=rf"{program.nodes[1].name}.*symmetric"):
        to_torchscript(program)


@pytest.mark.parametrize("op", [ops.Pad(1, 2, 3, 4), ops.Pad(-1, 0, 2, -3)])
def test_pad_fills_with_zero_and_crops(op: ops.Pad) -> None:
    builder = Builder()
    q = builder.quantize()
    program = builder.finish(builder.like(op, q, (2, 11 + op.top + op.bottom, 0, 3)))
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) == 0


def test_flatten_keeps_the_order_of_nchw() -> None:
    builder = Builder()
    q = builder.quantize()
    flat = builder.like(ops.Flatten(), q, (2, 363))
    program = builder.finish(builder.linear(flat, 20))
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) == 0


def hardswish_values(scale: float, zero_point: int) -> bytes:
    """With qparams for which no value lies on a tie."""
    x = (torch.arange(256) - zero_point).float() * torch.tensor(scale)
    y = torch.round(functional.hardswish(x) * (1 / torch.tensor(0.0211))) + 19
    return bytes(y.clamp(0, 255).to(torch.uint8).tolist())


TABLES = {
    "identity": (bytes(range(256)), (0.03, 120), None),
    "relu": (bytes(max(q, 120) for q in range(256)), (0.03, 120), "aten::relu"),
    "hardswish": (hardswish_values(0.03, 120), (0.0211, 19), "quantized::hardswish"),
    "qparams": (bytes(range(256)), (0.05, 100), "aten::take"),
    "arbitrary": (bytes((7 * q + 3) % 256 for q in range(256)), (0.02, 19), "aten::take"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_bit_exact(name: str, tmp_path: Path) -> None:
    values, (scale, zero_point), operator = TABLES[name]
    builder = Builder()
    q = builder.quantize()
    shape = builder.program.tensors[q].shape
    table = builder.emit(ops.LookupTable(values), [q], shape, scale, zero_point)
    program = builder.finish(builder.conv(table, 8, W3))
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) == 0
    activations = {"aten::relu", "aten::take", "quantized::hardswish"}
    found = operators(content, tmp_path) & activations
    assert found == ({operator} if operator else set())


@pytest.mark.parametrize("bias", [0, 1, -1, 2**15 + 1, -(2**20) - 1, 2**22 - 1])
def test_biases_come_back_as_the_same_int32(bias: int) -> None:
    """A stock bias is float32; products that cancel all but the last units make each unit show."""
    builder = Builder(shape=(1, 1024, 1, 1))
    x = builder.quantize(scale=0.0371, zero_point=128)
    per_channel = -bias / 127 / 1024
    weight = np.full((8, 1, 1, 1024), np.rint(per_channel), np.int8)
    remainder = round(-bias / 127) - int(weight[0].sum())
    weight[:, 0, 0, : abs(remainder)] += np.int8(np.sign(remainder))
    constants = [
        builder.constant("w", weight, builder.rng.uniform(0.9e-3, 1.1e-3, 8)),
        builder.constant("b", np.full(8, bias, np.int32)),
    ]
    op = ops.Conv2d(ops.Window())
    y = builder.emit(op, [x, *constants], (1, 1, 1, 8), 0.0371e-3, 128)
    program = builder.finish(y)
    sample = torch.full((1, 1024, 1, 1), 127 * 0.0371)
    expected = interpret(program, sample)[0]
    assert expected.abs().max() <= 80 * 0.0371e-3, "the products were meant to cancel the bias"
    content, _ = to_torchscript(program)
    assert torch.equal(run(content, sample)[0], expected)


def mobile_net_block() -> Program:
    """conv-bn-relu6, depthwise, inner bounds, residual, pooling, linear to float logits."""
    builder = Builder(shape=(2, 3, 17, 17))
    x = builder.quantize()
    x = builder.conv(x, 16, SAME_EVEN, scale=6 / 255, zero_point=0)
    y = builder.conv(x, 48, ops.Window(), scale=0.05, zero_point=0, output_max=120)
    y = builder.conv(y, 48, W3, 48, scale=6 / 255, zero_point=0)
    y = builder.conv(y, 16, ops.Window(), scale=0.0307)
    x = builder.emit(ops.Add(), [x, y], builder.program.tensors[y].shape, 0.0413, 128)
    x = builder.emit(ops.AdaptiveAvgPool2d(), [x], (2, 1, 1, 16), 0.0113, 128)
    x = builder.like(ops.Flatten(), x, (2, 16))
    return builder.finish(builder.linear(x, 10, dtype=DType.float32))


def test_no_clamp_ever_touches_quantized_tensors(tmp_path: Path) -> None:
    program = mobile_net_block()
    content, _ = to_torchscript(program)
    names = operators(content, tmp_path)
    assert "aten::take" in names  # the inner bound went through a table
    assert not [n for n in names if any(bad in n for bad in ("relu6", "hardtanh", "clamp"))]
    x = example(program)
    torch.testing.assert_close(run(content, x), interpret(program, x), rtol=1e-4, atol=1e-3)


def test_batch_and_image_size_may_change() -> None:
    program = mobile_net_block()
    content, _ = to_torchscript(program)
    x = torch.randn(3, 3, 23, 31, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(run(content, x), interpret(program, x), rtol=1e-4, atol=1e-3)


def test_several_outputs_come_as_a_tuple() -> None:
    builder = Builder()
    q = builder.quantize()
    program = builder.finish(builder.conv(q, 4, W3), builder.conv(q, 5, ops.Window()))
    content, _ = to_torchscript(program)
    x = example(program)
    first, second = run(content, x)
    torch.testing.assert_close([first, second], interpret(program, x), rtol=0, atol=1e-6)


def test_quantized_outputs_are_refused() -> None:
    builder = Builder()
    builder.program.outputs = [builder.quantize()]
    with pytest.raises(ExportError, match="float32 inputs and outputs"):
        to_torchscript(builder.program)


@pytest.mark.parametrize("fails", [False, True])
def test_the_engine_is_put_back(fails: bool) -> None:
    before = torch.backends.quantized.engine
    builder = Builder()
    builder.program.outputs = [builder.quantize()]
    if fails:
        with pytest.raises(ExportError):
            to_torchscript(builder.program)
    else:
        to_torchscript(mobile_net_block())
    assert torch.backends.quantized.engine == before != "qnnpack"


def test_export_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_torchscript(mobile_net_block())
    assert capfd.readouterr() == ("", "")


MOVES: dict[str, tuple[list[ops.Op], tuple[int, ...]]] = {
    "global max pool": ([ops.AdaptiveMaxPool2d()], (2, 1, 1, 6)),
    "slice": ([ops.Slice(3, 1, 5)], (2, 7, 8, 4)),
    "slice of rows": ([ops.Slice(1, 2, 6)], (2, 4, 8, 6)),
    "slice from the end": ([ops.Slice(2, -3, -1)], (2, 7, 2, 6)),
    "slice to the end": ([ops.Slice(1, 1, 0)], (2, 6, 8, 6)),
    "shuffle": ([ops.ChannelShuffle(3)], (2, 7, 8, 6)),
    "concat": ([ops.Concat(3)], (2, 7, 8, 12)),
    "concat of columns": ([ops.Concat(2)], (2, 7, 16, 6)),
    "interleaved": ([ops.Concat(3, interleaved=True)], (2, 7, 8, 12)),
    "nearest": ([ops.ResizeNearest(5, 20)], (2, 5, 20, 6)),
    "nearest by scale": ([ops.ResizeNearest(0, 0, 2.0, 3.0)], (2, 14, 24, 6)),
}


def test_maxima_of_a_pixel_and_of_parts() -> None:
    builder = Builder(shape=(2, 6, 7, 8))
    pixel = builder.like(ops.AdaptiveMaxPool2d(), builder.quantize(), (2, 1, 1, 6))
    again = builder.like(ops.AdaptiveMaxPool2d(), pixel, (2, 1, 1, 6))
    program = builder.finish(builder.conv(again, 33, W3))
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) == 0
    program = builder.finish(builder.like(ops.AdaptiveMaxPool2d(2, 2), pixel, (2, 2, 2, 6)))
    with pytest.raises(ExportError, match=r"adaptivemaxpool2d_.*whole images"):
        to_torchscript(program)


@pytest.mark.parametrize("name", MOVES)
def test_moves_are_bit_exact(name: str) -> None:
    (op,), shape = MOVES[name]
    builder = Builder(shape=(2, 6, 7, 8))
    x = builder.quantize()
    inputs = [x]
    if isinstance(op, ops.Concat):
        table = ops.LookupTable(bytes(range(255, -1, -1)))
        inputs.append(builder.emit(table, [x], (2, 7, 8, 6), 0.03, 120))
    moved = builder.emit(op, inputs, shape, 0.03, 120)
    # A convolution behind it reads the layout that the move leaves.
    program = builder.finish(builder.conv(moved, 5, W3))
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) == 0


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("target", [(5, 20, 0.0, 0.0), (0, 0, 2.0, 1.5)])
def test_bilinear_resizing_is_within_one_step(
    target: tuple[int, int, float, float], align: bool
) -> None:
    op = ops.ResizeBilinear(*target, align_corners=align)
    builder = Builder(shape=(2, 6, 7, 8))
    shape = (2, 5, 20, 6) if target[0] else (2, 14, 12, 6)
    program = builder.finish(builder.emit(op, [builder.quantize()], shape, 0.04, 100))
    content, _ = to_torchscript(program)
    assert steps_apart(program, content, example(program)) <= 1


def test_transposed_convolution_is_refused_by_name() -> None:
    builder = Builder(shape=(2, 6, 7, 8))
    x = builder.quantize()
    up = builder.emit(
        ops.ConvTranspose2d(ops.Window(2, 2, 2, 2)),
        [x, *builder.weights((5, 2, 2, 6))],
        (2, 14, 16, 5),
    )
    with pytest.raises(ExportError, match=r"convtranspose2d_1.*ConvTranspose2d"):
        to_torchscript(builder.finish(up))
