"""Single operators, as q/dq graphs written down by hand, against the Programs made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pyquant
from lowering.nets import IMAGE
from lowering.quantized_operator import FORMS, INT8, UINT8, lowered_operator
from lowering.quantizers import (
    Quantizer,
    assert_whole,
    by_pyquant,
    by_x86,
    by_xnnpack,
    kinds,
    steps_apart,
)

OPERATORS: dict[str, tuple[Callable[..., Tensor], Any, tuple[int, ...], str]] = {
    "conv": (lambda x, w, b: F.conv2d(x, w, b, 2, 1), (8, 5, 3, 3), (2, 5, 9, 8), "Conv2d"),
    "conv same": (
        lambda x, w, b: F.conv2d(x, w, b, padding="same"),
        (8, 5, 4, 3),
        (2, 5, 9, 8),
        "Conv2d",
    ),
    "conv same dilated": (
        lambda x, w, b: F.conv2d(x, w, b, padding="same", dilation=(3, 2)),
        (8, 5, 2, 4),
        (2, 5, 9, 8),
        "Conv2d",
    ),
    "conv valid": (
        lambda x, w, b: F.conv2d(x, w, b, padding="valid"),
        (8, 5, 3, 2),
        (2, 5, 9, 8),
        "Conv2d",
    ),
    "conv groups": (
        lambda x, w, b: F.conv2d(x, w, b, (1, 2), (2, 0), (2, 1), 3),
        (6, 2, 3, 3),
        (1, 6, 9, 8),
        "Conv2d",
    ),
    "depthwise": (
        lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=7),
        (14, 1, 3, 3),
        (1, 7, 9, 8),
        "Conv2d",
    ),
    "conv relu6": (
        lambda x, w, b: F.hardtanh(F.conv2d(x, w, b), 0, 6),
        (8, 5, 1, 1),
        (1, 5, 9, 8),
        "Conv2d",
    ),
    "conv clamp": (
        lambda x, w, b: torch.clamp(F.conv2d(x, w, b), -0.3, 0.4),
        (8, 5, 1, 1),
        (1, 5, 9, 8),
        "Conv2d",
    ),
    "conv clamp min": (
        lambda x, w, b: torch.clamp(F.conv2d(x, w, b), min=-0.3),
        (8, 5, 1, 1),
        (1, 5, 9, 8),
        "Conv2d",
    ),
    "linear": (F.linear, (11, 33), (4, 33), "Linear"),
    "linear of rank 3": (F.linear, (11, 33), (4, 2, 33), "Linear"),
    "linear relu": (lambda x, w, b: F.relu(F.linear(x, w, b)), (11, 33), (4, 33), "Linear"),
    "max pool": (lambda x: F.max_pool2d(x, 3, 2, 1, 1), None, (1, 5, 9, 8), "MaxPool2d"),
    "max pool ceil": (
        lambda x: F.max_pool2d(x, 2, 2, 0, 2, ceil_mode=True),
        None,
        (1, 5, 9, 8),
        "MaxPool2d",
    ),
    "avg pool": (lambda x: F.avg_pool2d(x, 3, 2, 1), None, (1, 5, 9, 8), "AvgPool2d"),
    "avg pool inside": (
        lambda x: F.avg_pool2d(x, (3, 2), 2, (1, 1), True, False),
        None,
        (1, 5, 9, 8),
        "AvgPool2d",
    ),
    "avg pool divisor": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=7),
        None,
        (1, 5, 9, 8),
        "AvgPool2d",
    ),
    "global pool": (lambda x: F.adaptive_avg_pool2d(x, 1), None, (1, 5, 9, 8), "AdaptiveAvgPool2d"),
    "adaptive pool": (
        lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
        None,
        (1, 5, 9, 8),
        "AdaptiveAvgPool2d",
    ),
    "global max pool": (
        lambda x: x.amax((2, 3), keepdim=True),
        None,
        (1, 5, 9, 8),
        "AdaptiveMaxPool2d",
    ),
    "mean": (lambda x: x.mean((2, 3), keepdim=True), None, (1, 5, 9, 8), "AdaptiveAvgPool2d"),
    "flatten": (lambda x: torch.flatten(x, 1), None, (2, 5, 3, 4), "Flatten"),
    "reshape": (lambda x: x.reshape(2, 60), None, (2, 5, 3, 4), "Flatten"),
    "squeeze": (lambda x: x.squeeze(3).squeeze(2), None, (2, 5, 1, 1), "Flatten"),
    "squeeze to rank 3": (lambda x: x.squeeze(2), None, (2, 5, 1, 4), "Reshape"),
    "unsqueeze": (lambda x: x.unsqueeze(2), None, (2, 5, 4), "Reshape"),
    "unflatten": (lambda x: x.view(2, 5, 3, 4), None, (2, 60), "Reshape"),
    "reshape of an image": (lambda x: x.view(2, 3, 5, 4), None, (2, 5, 3, 4), "Reshape"),
    "pad": (lambda x: F.pad(x, (1, 2, 3, 0)), None, (1, 5, 9, 8), "Pad"),
    "crop": (lambda x: F.pad(x, (-1, 2, -3, 1)), None, (1, 5, 9, 8), "Pad"),
    **{
        name: (function, None, (3, 300), "LookupTable")
        for name, function in {
            "hardswish": F.hardswish,
            "silu": F.silu,
            "sigmoid": torch.sigmoid,
            "hardsigmoid": F.hardsigmoid,
            "gelu": F.gelu,
            "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
            "elu": F.elu,
            "tanh": torch.tanh,
            "leaky relu": lambda x: F.leaky_relu(x, 0.1),
            "relu": F.relu,
            "neg": torch.neg,
        }.items()
    },
}


EXACT = ("MaxPool2d", "AdaptiveMaxPool2d", "Flatten", "Reshape", "Pad", "LookupTable")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OPERATORS)
def test_operator_is_within_a_step(name: str, form: str) -> None:
    function, weight, shape, kind = OPERATORS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4)) * 3
    # Weighted operators and tables may change qparams; moves must not.
    output = (0.03, 90, 0, 255, torch.uint8) if kind in ("Conv2d", "Linear") else None
    if form == "7 bits" and output is not None:
        output = (0.06, 60, 0, 127, torch.uint8)
    graph, lowered = lowered_operator(function, FORMS[form], x, weight=weight, output=output)
    limit = (
        0.01
        if kind in ("MaxPool2d", "AdaptiveMaxPool2d", "Flatten", "Reshape", "Pad", "LookupTable")
        else 1.01
    )
    assert steps_apart(graph, lowered, x) <= limit
    assert_whole(lowered)
    assert kind in kinds(lowered)
    # A quantizer that gives up a bit needs a table behind what has no clamp bounds.
    if kind != "LookupTable" and form != "7 bits":
        assert "LookupTable" not in kinds(lowered)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("function", [torch.add, lambda a, b: F.relu(a + b)])
def test_add_is_within_a_step(function: Callable[..., Tensor], form: str) -> None:
    a, b = torch.randn(2, 2, 5, 6, 7, generator=torch.Generator().manual_seed(5)).unbind()
    graph, lowered = lowered_operator(function, FORMS[form], a, b, operands=2)
    assert_whole(lowered)
    assert kinds(lowered).count("Add") == 1
    assert form == "7 bits" or "LookupTable" not in kinds(lowered)
    assert steps_apart(graph, lowered, a, b) <= 1.01


@pytest.mark.parametrize("name", ["conv", "depthwise", "linear"])
@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_weights_and_biases_of_other_quantizers(name: str, per_tensor: bool, bias: bool) -> None:
    function, weight, shape, _ = OPERATORS[name]
    x = torch.randn(shape)
    graph, lowered = lowered_operator(
        function, UINT8, x, weight=weight, bias=bias, per_tensor=per_tensor
    )
    assert_whole(lowered)
    assert steps_apart(graph, lowered, x) <= 1.01


@pytest.mark.parametrize(
    "output", [(0.02, 200, 0, 255, torch.uint8), (4.0, 0, 0, 255, torch.uint8)]
)
def test_change_of_qparams_is_a_table(output: tuple[Any, ...]) -> None:
    x = torch.randn(3, 400) * 3
    graph, lowered = lowered_operator(lambda x: x.clone(), INT8, x, output=output)
    assert_whole(lowered)
    assert "LookupTable" in kinds(lowered)
    assert steps_apart(graph, lowered, x) <= 0.01


class DeadChannels(nn.Module):
    """Channels whose weight is zero, or next to it, and whose bias is not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        with torch.no_grad():
            self.conv.weight[1] = 0
            self.conv.weight[3] = 1e-20
            self.conv.weight[4] *= 1e-6
            assert self.conv.bias is not None
            self.conv.bias.copy_(torch.tensor([0.1, 3.0, -0.2, -2.0, 2.5, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result


@pytest.mark.parametrize("quantizer", [by_pyquant, by_x86, by_xnnpack])
def test_dead_channels_keep_their_bias(quantizer: Quantizer) -> None:
    graph = quantizer(DeadChannels(), IMAGE)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    assert steps_apart(graph, lowered, *IMAGE) <= 1.01
