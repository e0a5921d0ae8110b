"""Tables on stock operators: a stock activation if it has the same 256 results, else a gather."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from pyquant.ir import ops
from pyquant.ir.program import Tensor as IrTensor


class TableLayer(nn.Module):
    """y = values[x] on quint8, exactly, for any table.

    The gather runs on contiguous NHWC data, so that no step depends on how the runtime treats
    channels_last.
    """

    def __init__(self, values: Tensor, scale: float, zero_point: int) -> None:
        super().__init__()
        self.register_buffer("values", values)
        self.scale, self.zero_point = scale, zero_point

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8 of the same shape."""
        rank4 = x.dim() == 4
        if rank4:
            x = x.permute(0, 2, 3, 1)
        index = x.contiguous().int_repr().to(torch.int64)
        y: Tensor = torch._make_per_tensor_quantized_tensor(
            torch.take(self.get_buffer("values"), index), self.scale, self.zero_point
        )
        return y.permute(0, 3, 1, 2) if rank4 else y


class ReluLayer(nn.Module):
    """``aten::relu``, which keeps the qparams."""

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8 with the same qparams."""
        return torch.relu(x)


class HardswishLayer(nn.Module):
    """``quantized::hardswish``: QNNPACK computes it as a table of its own."""

    def __init__(self, scale: float, zero_point: int) -> None:
        super().__init__()
        self.scale, self.zero_point = scale, zero_point

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8 of the same shape."""
        y: Tensor = torch.ops.quantized.hardswish(x, self.scale, self.zero_point)
        return y


def clamp_table(minimum: int, maximum: int, scale: float, zero_point: int) -> TableLayer:
    """A table that clamps to [minimum, maximum] and keeps the qparams."""
    values = torch.arange(256).clamp(minimum, maximum).to(torch.uint8)
    return TableLayer(values, scale, zero_point)


def table_layer(op: ops.LookupTable, x: IrTensor, output: IrTensor) -> nn.Module:
    """The fastest layer with exactly ``op``'s results for every one of the 256 inputs.

    Must run with the QNNPACK engine selected.
    """
    values = torch.from_numpy(np.frombuffer(op.values, dtype=np.uint8).copy())
    in_scale, in_zero_point = float(x.scale.reshape(-1)[0]), x.zero_point
    out_scale, out_zero_point = float(output.scale.reshape(-1)[0]), output.zero_point
    # As NHWC, because this is how the layer will be used.
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 4, 4, 16)
    probe = torch._make_per_tensor_quantized_tensor(every, in_scale, in_zero_point)
    probe = probe.permute(0, 3, 1, 2)

    candidates: list[nn.Module] = [HardswishLayer(out_scale, out_zero_point)]
    if (in_scale, in_zero_point) == (out_scale, out_zero_point):
        candidates += [nn.Identity(), ReluLayer()]
    for candidate in candidates:
        result = candidate(probe).int_repr().permute(0, 2, 3, 1).reshape(-1)
        if torch.equal(result, values):
            return candidate
    return TableLayer(values, out_scale, out_zero_point)
