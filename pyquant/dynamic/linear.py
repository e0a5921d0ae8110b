"""Linear layers: the kernel, the operator for compiled graphs, the module."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from pyquant import _C
from pyquant.dynamic.packing import (
    DynamicModule,
    PackedCache,
    calls_operators,
    dense_float32,
    quantize_rows,
    workspace,
)

_packed: PackedCache[_C.DynamicLinear] = PackedCache()


def pack_linear(values: Tensor, scales: Tensor, bias: Tensor | None) -> _C.DynamicLinear:
    """The weights as the kernel reads them; the same object for the same memory."""
    return _packed.get(
        values,
        lambda: _C.DynamicLinear(
            (values, scales.float(), None if bias is None else bias.detach().float())
        ),
    )


@torch.library.custom_op("pyquant::dynamic_linear", mutates_args=(), device_types="cpu")
def dynamic_linear(x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """``y = x @ (values * scales).T + bias`` with ``x`` quantized row by row."""
    packed = pack_linear(values, scales, bias)
    return packed.run(x.to(torch.float32).contiguous(), workspace()).to(x.dtype)


@dynamic_linear.register_fake
def _(x: Tensor, values: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    return x.new_empty((*x.shape[:-1], values.shape[0]))


@register_flop_formula(torch.ops.pyquant.dynamic_linear)
def _(x: torch.Size, values: torch.Size, *_: object, **__: object) -> int:
    return 2 * x.numel() * values[0]


class DynamicLinear(DynamicModule):
    """``nn.Linear`` with int8 weights; activations are quantized as they come, row by row.

    Buffers: ``weight`` int8 ``[O, I]``, ``scales`` float32 ``[O]``, ``bias`` float32 ``[O]`` or
    ``None``. Float types other than float32 are converted, and the result converted back.
    """

    float_type = nn.Linear
    weight: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        values, scales = quantize_rows(weight)
        self.register_buffer("weight", values)
        self.register_buffer("scales", scales)
        copied = None if bias is None else bias.detach().to("cpu", torch.float32, copy=True)
        self.register_buffer("bias", copied)

    @classmethod
    def from_float(cls, module: nn.Linear) -> DynamicLinear:
        """The same layer with int8 weights."""
        return cls(module.weight, module.bias)

    @property
    def in_features(self) -> int:
        """Columns of the weight."""
        return self.weight.shape[1]

    @property
    def out_features(self) -> int:
        """Rows of the weight."""
        return self.weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features]`` to ``[..., out_features]``.

        A row with NaN or infinity gives a row of NaN.

        Raises:
            InvalidInputError: A wrong shape, or no dense floating tensor on the CPU.
        """
        if calls_operators():
            compiled: Tensor = dynamic_linear(x, self.weight, self.scales, self.bias)
            return compiled
        if self._packed is None:
            self._packed = pack_linear(self.weight, self.scales, self.bias)
        y: Tensor = self._packed.run(dense_float32(x, self), workspace())
        return y if x.dtype is torch.float32 else y.to(x.dtype)

    def extra_repr(self) -> str:
        """For ``print``."""
        bias = self.bias is not None
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={bias}"
