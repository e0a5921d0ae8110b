"""One operator between quantize and dequantize, as PT2E writes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import pyquant
from pyquant.targets import QuantizedModule

# --- Single operators, as q/dq graphs written down by hand.


def fake_quantize(x: Tensor, qparams: tuple[Any, ...]) -> Tensor:
    quantized = torch.ops.quantized_decomposed.quantize_per_tensor(x, *qparams)
    result: Tensor = torch.ops.quantized_decomposed.dequantize_per_tensor(quantized, *qparams)
    return result


UINT8 = (0.05, 131, 0, 255, torch.uint8)
INT8 = (0.05, -17, -128, 127, torch.int8)
SEVEN_BITS = (0.1, 60, 0, 127, torch.uint8)
FORMS = {"uint8": UINT8, "int8": INT8, "7 bits": SEVEN_BITS}


class QuantizedOperator(nn.Module):
    """q/dq, a function, q/dq; weights are int8 behind a dequantize node."""

    def __init__(
        self,
        function: Callable[..., Tensor],
        form: tuple[Any, ...],
        *,
        output: tuple[Any, ...] | None = None,
        weight: tuple[int, ...] | None = None,
        bias: bool = True,
        per_tensor: bool = False,
        operands: int = 1,
    ) -> None:
        super().__init__()
        self.function, self.form, self.result = function, form, output or form
        self.operands, self.per_tensor = operands, per_tensor
        self.has_weight = weight is not None
        if weight is not None:
            generator = torch.Generator().manual_seed(3)
            values = torch.randint(-127, 128, weight, generator=generator).to(torch.int8)
            fan_in = math.prod(weight[1:])
            scales = (0.5 + torch.rand(weight[0], generator=generator)) / 70 / math.sqrt(fan_in)
            self.register_buffer("weight", values)
            self.register_buffer("scales", scales)
            self.register_buffer("zero_points", torch.zeros(weight[0], dtype=torch.int64))
            self.register_buffer("bias", torch.randn(weight[0], generator=generator))
        self.has_bias = bias

    def forward(self, *inputs: Tensor) -> Tensor:
        arguments = [fake_quantize(value, self.form) for value in inputs]
        if self.has_weight:
            decomposed = torch.ops.quantized_decomposed
            if self.per_tensor:
                weight = decomposed.dequantize_per_tensor(
                    self.weight, 0.001, 0, -127, 127, torch.int8
                )
            else:
                weight = decomposed.dequantize_per_channel(
                    self.weight, self.scales, self.zero_points, 0, -127, 127, torch.int8
                )
            arguments += [weight, self.bias if self.has_bias else None]
        return fake_quantize(self.function(*arguments), self.result)


def lowered_operator(
    function: Callable[..., Tensor], form: tuple[Any, ...], *inputs: Tensor, **options: Any
) -> tuple[GraphModule, QuantizedModule]:
    import torchao.quantization.pt2e.quantizer  # noqa: F401  (registers the q/dq operators)

    module = QuantizedOperator(function, form, **options).eval()
    graph = torch.export.export(module, inputs).module()
    return graph, pyquant.lower(graph)


#: name: function, weight shape, input shape, the Program's operator
