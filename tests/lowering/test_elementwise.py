"""Table activations and products: what pyquant's quantizer makes of them, and their Programs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pyquant
from lowering.nets import IMAGE
from lowering.quantized_operator import FORMS, lowered_operator
from lowering.quantizers import assert_whole, by_pyquant, by_xnnpack, kinds, sqnr, steps_apart
from pyquant.quantization import PyquantQuantizer


class Between(nn.Module):
    """A function of one convolution's output, before another one."""

    def __init__(self, function: Callable[[Between, Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.linear = nn.Linear(8, 8)
        self.second = nn.Conv2d(8, 4, 1)
        self.slope = nn.PReLU()
        self.slopes = nn.PReLU(8)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.second(self.function(self, self.first(x)))
        return result


Function = Callable[[Between, Tensor], Tensor]

#: Functions of one tensor and numbers.
TABLES: dict[str, Function] = {
    "hardswish": lambda net, y: F.hardswish(y, inplace=True),
    "hardsigmoid": lambda net, y: F.hardsigmoid(y),
    "silu": lambda net, y: F.silu(y, inplace=True),
    "sigmoid": lambda net, y: y.sigmoid_(),
    "tanh": lambda net, y: y.tanh(),
    "gelu": lambda net, y: F.gelu(y, approximate="tanh"),
    "elu": lambda net, y: F.elu(y, 0.5, inplace=True),
    "selu": lambda net, y: F.selu(y),
    "celu": lambda net, y: F.celu(y, 2.0),
    "leaky relu": lambda net, y: F.leaky_relu(y, 0.2, inplace=True),
    "prelu of one slope": lambda net, y: net.slope(y),
    "softplus": lambda net, y: F.softplus(y),
    "mish": lambda net, y: F.mish(y),
    "clamp": lambda net, y: y.clamp(max=0.3),
    "neg": lambda net, y: -y,
    "abs": lambda net, y: y.abs(),
    "plus a number": lambda net, y: y + 1.5,
    "minus a number": lambda net, y: y - 0.5,
    "a number minus": lambda net, y: 1.5 - y,
    "times a number": lambda net, y: y * -0.5,
    "times a parameter of one element": lambda net, y: net.slope.weight * y,
    "by a number": lambda net, y: y / 3,
}


@pytest.mark.parametrize("name", TABLES)
def test_function_becomes_a_table(name: str) -> None:
    model = Between(TABLES[name])
    graph = by_pyquant(model, IMAGE)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    assert kinds(lowered) == ["Quantize", "Conv2d", "LookupTable", "Conv2d", "Dequantize"]
    assert steps_apart(graph, lowered, *IMAGE) <= 2.01
    with torch.no_grad():
        assert sqnr(model(*IMAGE), graph(*IMAGE)) > 25


#: Products of two tensors.
PRODUCTS: dict[str, Function] = {
    "squeeze-and-excitation": lambda net, y: (
        F.hardsigmoid(net.gate(F.adaptive_avg_pool2d(y, 1))) * y
    ),
    "squeeze-and-excitation by a linear layer": lambda net, y: (
        y * torch.sigmoid(net.linear(F.adaptive_avg_pool2d(y, 1).view(2, 8))).view(2, 8, 1, 1)
    ),
    "expanded factors": lambda net, y: (
        y * torch.sigmoid(net.gate(F.adaptive_avg_pool2d(y, 1))).expand_as(y)
    ),
    "one factor per pixel": lambda net, y: y * F.max_pool2d(net.gate(y), (17, 1)),
    "outer product": lambda net, y: F.max_pool2d(y, (17, 1)) * F.max_pool2d(y, (1, 14)),
    "equal shapes": lambda net, y: net.gate(y) * y,
    "square": lambda net, y: y * y,
    "with a clamp": lambda net, y: F.relu6(net.gate(y) * y),
}


def assert_one_operator(kind: str, function: Function) -> None:
    """`function` becomes one operator of this kind in one Program, true to model and graph."""
    model = Between(function)
    graph = by_pyquant(model, IMAGE)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    assert kinds(lowered).count(kind) == 1
    assert steps_apart(graph, lowered, *IMAGE) <= 2.01
    with torch.no_grad():
        assert sqnr(model(*IMAGE), graph(*IMAGE)) > 15


@pytest.mark.parametrize("name", PRODUCTS)
def test_product(name: str) -> None:
    assert_one_operator("Mul", PRODUCTS[name])


def test_product_of_another_quantizer() -> None:
    graph = by_xnnpack(Between(PRODUCTS["squeeze-and-excitation"]), IMAGE)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    assert steps_apart(graph, lowered, *IMAGE) <= 2.01


def assert_within_a_step(
    kind: str,
    function: Callable[..., Tensor],
    form: str,
    others: Callable[[Tensor], tuple[Tensor, ...]],
) -> None:
    """`function` of an image and each of what `others` makes of a second one of its shape."""
    a, b = torch.randn(2, 2, 5, 6, 7, generator=torch.Generator().manual_seed(5)).unbind()
    for other in others(b):
        graph, lowered = lowered_operator(function, FORMS[form], a, other, operands=2)
        assert_whole(lowered)
        assert kinds(lowered).count(kind) == 1
        assert form == "7 bits" or "LookupTable" not in kinds(lowered)
        assert steps_apart(graph, lowered, a, other) <= 1.01


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("function", [torch.mul, lambda a, b: F.relu(a * b)])
def test_mul_is_within_a_step(function: Callable[..., Tensor], form: str) -> None:
    assert_within_a_step("Mul", function, form, lambda b: (b, b[:, :, :1, :1], b[:1, :1]))


#: Sums of two tensors of different shapes.
SUMS: dict[str, Function] = {
    "one term per image and channel": lambda net, y: y + net.gate(F.adaptive_avg_pool2d(y, 1)),
    "expanded terms": lambda net, y: net.gate(F.adaptive_avg_pool2d(y, 1)).expand_as(y) + y,
    "one term per pixel": lambda net, y: y + net.gate(y)[:, :1],
    "maxima of the channels": lambda net, y: net.gate(y) + F.adaptive_max_pool2d(y, 1),
    "outer sum": lambda net, y: F.max_pool2d(y, (17, 1)) + F.max_pool2d(y, (1, 14)),
    "with a clamp": lambda net, y: F.relu(F.adaptive_avg_pool2d(y, 1) + net.gate(y)),
}


@pytest.mark.parametrize("name", SUMS)
def test_sum(name: str) -> None:
    assert_one_operator("Add", SUMS[name])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("function", [torch.add, lambda a, b: F.relu(a + b)])
def test_broadcast_add_is_within_a_step(function: Callable[..., Tensor], form: str) -> None:
    assert_within_a_step("Add", function, form, lambda b: (b[:, :, :1, :1], b[:1, :1]))


def test_a_sum_far_from_quantized_operators_repeats_nothing_in_int8() -> None:
    """Like the mask of an attention, whose range is no int8 range."""
    model = Between(lambda net, y: (y.cumsum(2) + y.cumsum(3)[:, :1] * -1e30).cumsum(2)).eval()
    annotated = PyquantQuantizer().annotate(pyquant.capture.capture(model, IMAGE))
    (add,) = annotated.graph.find_nodes(op="call_function", target=torch.ops.aten.add.Tensor)
    assert "quantization_annotation" not in add.meta


#: Factors and terms per channel, which convolutions take in, and what the Program has of them.
PER_CHANNEL: dict[str, tuple[Function, list[str]]] = {
    "factor": (lambda net, y: y * net.slopes.weight.view(8, 1, 1), []),
    "term": (lambda net, y: net.slopes.weight.view(1, 8, 1, 1) + y, []),
    "behind an activation": (
        lambda net, y: F.relu(y) * net.slopes.weight.view(8, 1, 1),
        ["Conv2d"],
    ),
    "one slope per channel": (lambda net, y: net.slopes(y), ["Add"]),
}


@pytest.mark.parametrize("name", PER_CHANNEL)
def test_constants_per_channel(name: str) -> None:
    function, expected = PER_CHANNEL[name]
    model = Between(function)
    with torch.no_grad():
        model.slopes.weight.copy_(torch.linspace(-0.5, 1.5, 8))
    graph = by_pyquant(model, IMAGE)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    found = [kind for kind in kinds(lowered) if kind != "LookupTable"]
    for kind in ["Quantize", "Conv2d", *expected, "Conv2d", "Dequantize"]:
        found.remove(kind)
    assert found == (["Conv2d"] if expected == ["Add"] else [])
    assert steps_apart(graph, lowered, *IMAGE) <= 2.01
    with torch.no_grad():
        assert sqnr(model(*IMAGE), graph(*IMAGE)) > 25


#: What has no int8 form; the name of its operator.
FLOAT: dict[str, tuple[Function, str]] = {
    "constant per pixel": (lambda net, y: y * torch.linspace(0, 1, y.shape[-1]), "mul"),
    "another rank": (lambda net, y: y * net.gate(y).amax((0, 1)), "mul"),
}


@pytest.mark.parametrize("name", FLOAT)
def test_what_stays_float(name: str) -> None:
    function, operator = FLOAT[name]
    graph = by_pyquant(Between(function), IMAGE)
    lowered = pyquant.lower(graph)
    assert operator in " ".join(entry.target for entry in lowered.float_operators)
    assert steps_apart(graph, lowered, *IMAGE) <= 3.01


def test_nothing_is_quantized_far_from_quantized_operators() -> None:
    graph = pyquant.capture.capture(
        Between(lambda net, y: (F.silu(y.cumsum(2)) * y.cumsum(3)).cumsum(2)).eval(), IMAGE
    )
    annotated = PyquantQuantizer().annotate(graph)
    (silu,) = annotated.graph.find_nodes(op="call_function", target=torch.ops.aten.silu.default)
    assert "quantization_annotation" not in silu.meta


@pytest.mark.parametrize("observer", ["histogram", "minmax", "moving_average"])
def test_values_that_the_activation_does_not_tell_apart_get_no_levels(observer: str) -> None:
    model = Between(TABLES["hardswish"]).eval()
    with torch.no_grad():
        assert model.first.bias is not None
        model.first.bias[::2] = -40
    config = pyquant.QuantizationConfig(observer=observer)  # type: ignore[arg-type]
    prepared = pyquant.prepare(model, IMAGE, config)
    pyquant.calibrate(prepared, [IMAGE], progress=False)
    graph = pyquant.convert(prepared)
    (conv, _) = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.conv2d.default)
    (quantize,) = conv.users
    scale, zero_point, lowest = quantize.args[1:4]
    assert (lowest - zero_point) * scale == pytest.approx(-3, abs=0.1)
    with torch.no_grad():
        assert sqnr(model(*IMAGE), graph(*IMAGE)) > 25
    # Where something else reads the values too, all of them count.
    model.function = lambda net, y: F.hardswish(y) + y
    graph = by_pyquant(model, IMAGE)
    (conv, _) = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.conv2d.default)
    scale, zero_point, lowest = next(iter(conv.users)).args[1:4]
    assert (lowest - zero_point) * scale < -30
