"""``pyquant.operators``: ConvBnRelu2d and LinearRelu against float32 layers, and their errors."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pyquant
from pyquant.errors import InvalidInputError, InvalidProgramError, PyquantError, UnsupportedError
from pyquant.ir import ops
from pyquant.operators import ConvBnRelu2d, Kernel, LinearRelu, QParams

warnings.filterwarnings("ignore", message=".*quantized tensor creation.*")

X = QParams(0.04, 120)
engines = pytest.mark.parametrize("engine", ["auto", "reference", "native", "fbgemm", "qnnpack"])


def quantize(x: Tensor, qparams: QParams) -> Tensor:
    """NCHW float to NHWC uint8."""
    q = (x / qparams.scale + qparams.zero_point).round().clamp(0, 255).to(torch.uint8)
    return q.permute(0, 2, 3, 1).contiguous() if q.ndim == 4 else q


def dequantize(q: Tensor, qparams: QParams) -> Tensor:
    """NHWC uint8 to NCHW float64."""
    x = (q.double() - qparams.zero_point) * qparams.scale
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def ideal_steps(y: Tensor, qparams: QParams) -> Tensor:
    return (y / qparams.scale + qparams.zero_point).clamp(0, 255)


def on_grid(weight: Tensor) -> Tensor:
    """The nearest weights that int8 per output channel can hold."""
    scale = weight.flatten(1).abs().amax(1).reshape(-1, *[1] * (weight.ndim - 1)) / 127
    return (weight / scale).round() * scale


def statistics(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels).eval()
    with torch.no_grad():
        for parameter in (norm.weight, norm.bias, norm.running_mean):
            assert parameter is not None
            parameter.normal_()
        assert norm.running_var is not None
        norm.running_var.uniform_(0.3, 3)
    return norm


ACTIVATIONS: dict[str, tuple[Any, float, float]] = {
    "none": (None, -1e9, 1e9),
    "relu": ("relu", 0.0, 1e9),
    "relu6": ("relu6", 0.0, 6.0),
    "interval": ((-0.4, 1.2), -0.4, 1.2),
}

#: input channels, output channels, kernel, options of F.conv2d
CONVOLUTIONS: dict[str, tuple[int, int, tuple[int, int], dict[str, Any]]] = {
    "3x3": (5, 8, (3, 3), {"padding": 1}),
    "1x1": (16, 9, (1, 1), {}),
    "strided": (3, 16, (3, 3), {"stride": 2, "padding": 1}),
    "oblong": (4, 6, (1, 5), {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)}),
    "grouped": (8, 4, (3, 3), {"padding": 1, "groups": 2}),
    "depthwise": (12, 12, (3, 3), {"padding": 1, "groups": 12}),
}


@engines
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_conv_bn_relu_is_within_a_step(kind: str, activation: str, engine: str) -> None:
    inputs, outputs, kernel, options = CONVOLUTIONS[kind]
    weight = torch.randn(outputs, inputs // options.get("groups", 1), *kernel)
    bias, norm = torch.randn(outputs), statistics(outputs)
    x = quantize(torch.randn(2, inputs, 9, 10) * 2, X)
    name, low, high = ACTIVATIONS[activation]
    # The fold scales each channel, so that weights on the int8 grid stay there.
    weight = on_grid(weight)
    with torch.no_grad():
        ideal = F.conv2d(dequantize(x, X), weight.double(), bias.double(), **options)
        ideal = norm.double()(ideal).clamp(low, high)
        norm.float()
    y = QParams(float(ideal.max() - ideal.min()) / 200, 80 if low < 0 else 0)
    operator = ConvBnRelu2d(
        weight, bias, X, y, batch_norm=norm, activation=name, engine=engine, **options
    )
    assert engine in ("auto", operator.engine)
    steps = ideal_steps(ideal, y).permute(0, 2, 3, 1)
    assert float((operator(x).double() - steps).abs().max()) < 1


def test_weights_between_the_steps_of_int8_cost_little() -> None:
    weight, bias = torch.randn(8, 5, 3, 3), torch.randn(8)
    x = quantize(torch.randn(1, 5, 9, 9) * 2, X)
    ideal = F.conv2d(dequantize(x, X), weight.double(), bias.double())
    y = QParams(float(ideal.abs().max()) / 127, 128)
    steps = ideal_steps(ideal, y).permute(0, 2, 3, 1)
    difference = (ConvBnRelu2d(weight, bias, X, y)(x).double() - steps).abs()
    assert float(difference.max()) < 2.5
    assert float(difference.mean()) < 0.5


def test_asymmetric_padding() -> None:
    weight, x = on_grid(torch.randn(4, 3, 3, 3)), quantize(torch.randn(1, 3, 6, 7), X)
    ideal = F.conv2d(F.pad(dequantize(x, X), (2, 0, 1, 3)), weight.double(), stride=2)
    y = QParams(float(ideal.abs().max()) / 127, 128)
    result = ConvBnRelu2d(weight, None, X, y, stride=2, padding=(1, 2, 3, 0))(x)
    steps = ideal_steps(ideal, y).permute(0, 2, 3, 1)
    assert float((result.double() - steps).abs().max()) < 1


def test_no_bias_is_a_bias_of_zero() -> None:
    weight, x = torch.randn(4, 3, 3, 3), quantize(torch.randn(1, 3, 6, 7), X)
    y = QParams(0.1, 128)
    without = ConvBnRelu2d(weight, None, X, y)(x)
    assert torch.equal(without, ConvBnRelu2d(weight, torch.zeros(4), X, y)(x))


@engines
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(1, 33), (5, 33), (2, 3, 33)])
def test_linear_relu_is_within_a_step(shape: tuple[int, ...], activation: str, engine: str) -> None:
    weight, bias = on_grid(torch.randn(17, 33)), torch.randn(17)
    x = quantize(torch.randn(shape) * 2, X)
    name, low, high = ACTIVATIONS[activation]
    ideal = F.linear(dequantize(x, X), weight.double(), bias.double()).clamp(low, high)
    y = QParams(float(ideal.max() - ideal.min()) / 200, 80 if low < 0 else 0)
    operator = LinearRelu(weight, bias, X, y, activation=name, engine=engine)
    assert float((operator(x).double() - ideal_steps(ideal, y)).abs().max()) < 1


def test_parameters_are_not_changed() -> None:
    weight, bias, norm = torch.randn(4, 3, 3, 3), torch.randn(4), statistics(4)
    before = [weight.clone(), bias.clone(), norm.weight.clone()]
    ConvBnRelu2d(nn.Parameter(weight), bias, X, X, batch_norm=norm)
    assert all(torch.equal(a, b) for a, b in zip(before, [weight, bias, norm.weight], strict=True))


# --- quint8.


@engines
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_quint8_in_and_out(memory_format: torch.memory_format, engine: str) -> None:
    weight, bias, y = torch.randn(6, 5, 3, 3), torch.randn(6), QParams(0.2, 30)
    values = torch.randn(2, 5, 7, 8).contiguous(memory_format=memory_format)
    x = torch.quantize_per_tensor(values, X.scale, X.zero_point, torch.quint8)
    try:
        operator = ConvBnRelu2d(weight, bias, X, y, padding=1, engine=engine)
    except UnsupportedError:
        pytest.skip("no such operator on this engine")
    result = operator(x)
    assert result.dtype is torch.quint8
    assert result.shape == (2, 6, 7, 8)
    assert (result.q_scale(), result.q_zero_point()) == (y.scale, y.zero_point)
    plain = operator(x.int_repr().permute(0, 2, 3, 1).contiguous())
    assert torch.equal(result.int_repr().permute(0, 2, 3, 1), plain)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_quint8_of_rank_2() -> None:
    operator = LinearRelu(torch.randn(4, 6), None, X, X)
    x = torch.quantize_per_tensor(torch.randn(3, 6), X.scale, X.zero_point, torch.quint8)
    assert torch.equal(operator(x).int_repr(), operator(x.int_repr()))


@pytest.mark.parametrize(("scale", "zero_point"), [(0.05, 120), (0.04, 121)])
def test_quint8_with_other_qparams_is_refused(scale: float, zero_point: int) -> None:
    x = torch.quantize_per_tensor(torch.randn(3, 6), scale, zero_point, torch.quint8)
    with pytest.raises(InvalidInputError, match=r"prepared for.*0\.04"):
        LinearRelu(torch.randn(4, 6), None, X, X)(x)


# --- What is refused.

WEIGHT, BIAS = torch.randn(4, 3, 3, 3), torch.randn(4)


@pytest.mark.parametrize(
    "options",
    [
        {"weight": WEIGHT[0]},
        {"weight": WEIGHT.double()},
        {"weight": WEIGHT * float("nan")},
        {"weight": WEIGHT * float("inf")},
        {"weight": torch.zeros(0, 3, 3, 3), "bias": None},
        {"weight": torch.zeros(4, 0, 3, 3)},
        {"bias": torch.randn(3)},
        {"bias": torch.randn(12)},
        {"bias": torch.randn(4, 1)},
        {"bias": BIAS.double()},
        {"bias": BIAS * float("nan")},
        {"bias": BIAS * float("inf")},
        {"batch_norm": nn.BatchNorm2d(5)},
        {"batch_norm": nn.BatchNorm2d(4, track_running_stats=False)},
        {"activation": "gelu"},
        {"activation": (3.0, 1.0)},
        {"activation": (float("nan"), 1.0)},
        {"groups": 3},
        {"groups": 0},
        {"stride": 0},
        {"stride": (1, 2, 3)},
        {"padding": -1},
        {"padding": (1, 2, 3)},
        {"padding": (1, 2, 3, 4, 5)},
        {"dilation": 0},
        {"input_qparams": QParams(0.0, 3)},
        {"input_qparams": QParams(0.1, 300)},
        {"output_qparams": QParams(0.0, 3)},
        {"output_qparams": QParams(-1.0, 3)},
        {"output_qparams": QParams(float("nan"), 3)},
        {"output_qparams": QParams(0.1, -1)},
    ],
    ids=lambda options: "-".join(f"{key}" for key in options),
)
def test_bad_parameters_of_a_convolution(options: dict[str, Any]) -> None:
    arguments = {"weight": WEIGHT, "bias": BIAS, "input_qparams": X, "output_qparams": X, **options}
    with pytest.raises((InvalidInputError, InvalidProgramError)):
        ConvBnRelu2d(**arguments)


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        (torch.randn(2, 3, 4), torch.randn(2)),
        (torch.randn(3), torch.randn(3)),
        (torch.randn(2, 3), torch.randn(3)),
        (torch.full((2, 3), float("nan")), None),
    ],
)
def test_bad_parameters_of_a_linear_layer(weight: Tensor, bias: Tensor | None) -> None:
    with pytest.raises((InvalidInputError, InvalidProgramError)):
        LinearRelu(weight, bias, X, X)


U = torch.zeros(1, 5, 5, 3, dtype=torch.uint8)


@engines
@pytest.mark.parametrize(
    "x",
    [
        U.float(),
        U.to(torch.int8),
        U.to(torch.int32),
        U[..., :2],
        U[0],
        U[:, :2],
        U[:0],
        U.to("meta"),
        U.numpy(),
        None,
        torch.quantize_per_tensor(torch.randn(1, 3, 5, 5), X.scale, 5, torch.qint8),
        torch.quantize_per_channel(
            torch.randn(1, 3, 5, 5), torch.full((3,), 0.04), torch.full((3,), 120), 1, torch.quint8
        ),
    ],
    ids=lambda x: f"{type(x).__name__}-{getattr(x, 'dtype', '')}-{list(getattr(x, 'shape', []))}",
)
def test_bad_inputs(x: Any, engine: str) -> None:
    try:
        operator = ConvBnRelu2d(WEIGHT, BIAS, X, X, engine=engine)
    except UnsupportedError:
        pytest.skip("no such operator on this engine")
    with pytest.raises(InvalidInputError):
        operator(x)
    assert operator(U).shape == (1, 3, 3, 4)


def test_a_wrong_number_of_inputs() -> None:
    operator = ConvBnRelu2d(WEIGHT, BIAS, X, X)
    for inputs in ((), (U, U)):
        with pytest.raises(InvalidInputError, match="1 input"):
            operator(*inputs)


def test_operands_of_different_shapes() -> None:
    with pytest.raises(InvalidInputError, match="shapes"):
        Kernel(ops.Add(), [X, X], X)(U, U[:, :4].contiguous())


@pytest.mark.parametrize(
    ("op", "options"),
    [
        (ops.Linear(), {}),
        (ops.Linear(), {"bias": torch.zeros(3, dtype=torch.int32)}),
        (ops.Linear(), {"weight": torch.zeros(3, 4, dtype=torch.int8)}),
        (ops.Add(0, 300), {}),
        (ops.Add(-1, 30), {}),
        (ops.Add(), {}),
        (ops.LookupTable(bytes(3)), {}),
        (ops.MaxPool2d(ops.Window(2**40)), {}),
        (ops.MaxPool2d(ops.Window(2, 2, pad_top=2)), {}),
    ],
)
def test_inconsistent_kernels(op: ops.Op, options: dict[str, Any]) -> None:
    with pytest.raises(PyquantError):
        Kernel(op, [X], X, **options)


def test_the_engine_is_told() -> None:
    operator = ConvBnRelu2d(WEIGHT, BIAS, X, X)
    assert operator.engine in pyquant.engines()
    with pytest.raises(UnsupportedError, match="warp"):
        ConvBnRelu2d(WEIGHT, BIAS, X, X, engine="warp")


def test_more_threads_than_the_system_has_do_not_end_the_process() -> None:
    program = (
        "from pyquant.errors import PyquantError\n"
        "from pyquant.ir import ops\n"
        "from pyquant.operators import Kernel, QParams\n"
        "q = QParams(1.0, 0)\n"
        "try:\n"
        "    Kernel(ops.Add(), [q, q], q, threads=100_000)\n"
        "except PyquantError as error:\n"
        "    print('refused', error)\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-500:]}"
    assert "refused" in done.stdout
