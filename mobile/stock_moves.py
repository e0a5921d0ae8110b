"""Stock layers for a Program's operators that join, part, reorder and resize activations.

Activations are as in ``stock_layers``; moving ``quint8`` values keeps their qparams.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyquant.errors import ExportError
from pyquant.ir import ops
from pyquant.ir.program import Tensor as IrTensor
from pyquant.mobile.stock_layers import qparams


class ConcatLayer(nn.Module):
    """``aten::cat``, and behind it ``aten::channel_shuffle`` where inputs are interleaved."""

    def __init__(self, op: ops.Concat, rank: int, count: int) -> None:
        super().__init__()
        if op.interleaved and rank != 4:
            raise ExportError("only the channels of images can be interleaved")
        self.dim = torch_dim(op.axis, rank)
        self.groups = count if op.interleaved else 1

    def forward(self, *inputs: Tensor) -> Tensor:
        """Several quint8 tensors to one."""
        y = torch.cat(inputs, self.dim)
        return torch.channel_shuffle(y, self.groups) if self.groups > 1 else y


class SliceLayer(nn.Module):
    """``aten::slice``."""

    def __init__(self, op: ops.Slice, rank: int) -> None:
        super().__init__()
        self.dim, self.begin, self.end = torch_dim(op.axis, rank), op.begin, op.end or None

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8, dense."""
        y: Tensor = torch.ops.aten.slice.Tensor(x, self.dim, self.begin, self.end)
        if y.dim() == 4:
            return y.contiguous(memory_format=torch.channels_last)
        return y.contiguous()


class ChannelShuffleLayer(nn.Module):
    """``aten::channel_shuffle``."""

    def __init__(self, op: ops.ChannelShuffle) -> None:
        super().__init__()
        self.groups = op.groups

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8."""
        return torch.channel_shuffle(x, self.groups)


class ResizeNearestLayer(nn.Module):
    """``aten::upsample_nearest2d`` on quint8."""

    def __init__(self, op: ops.ResizeNearest) -> None:
        super().__init__()
        self.size, self.scale = size_or_scale(op)

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8."""
        return functional.interpolate(x, self.size, self.scale)


class ResizeBilinearLayer(nn.Module):
    """``aten::upsample_bilinear2d`` in float32: the stock quint8 form rounds otherwise."""

    def __init__(self, op: ops.ResizeBilinear, output: IrTensor) -> None:
        super().__init__()
        self.size, self.scale = size_or_scale(op)
        self.align_corners = op.align_corners
        self.output_scale, self.zero_point = qparams(output)

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8."""
        y = functional.interpolate(
            x.dequantize(), self.size, self.scale, "bilinear", self.align_corners
        )
        return torch.quantize_per_tensor(y, self.output_scale, self.zero_point, torch.quint8)


def torch_dim(axis: int, rank: int) -> int:
    """An axis of the Program's shapes as a dimension of torch's."""
    return (0, 2, 3, 1)[axis] if rank == 4 else axis


def size_or_scale(
    op: ops.ResizeNearest | ops.ResizeBilinear,
) -> tuple[list[int] | None, list[float] | None]:
    """What ``interpolate`` takes: it knows either sizes or scale factors."""
    sizes, scales = [op.output_h, op.output_w], [op.scale_h, op.scale_w]
    if all(sizes) and not any(scales):
        return sizes, None
    if all(scales) and not any(sizes):
        return None, scales
    raise ExportError("stock operators resize by sizes or by scale factors, not by both")
