"""A Program's operators as modules of stock PyTorch operators for the QNNPACK engine.

Activations are ``quint8`` tensors of logical shape NCHW in channels_last memory, which is the
Program's NHWC. ``relu6``, ``hardtanh`` and ``clamp`` are never used: on channels_last ``quint8``
they return scrambled data under QNNPACK in every PyTorch up to 2.13. Bounds are the operator's
own saturation, its ``_relu`` form, or a table.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyquant.errors import ExportError
from pyquant.ir import ops
from pyquant.ir.program import DType
from pyquant.ir.program import Tensor as IrTensor
from pyquant.mobile.stock_tables import TableLayer


class QuantizeLayer(nn.Module):
    """float32 to quint8; a rank-4 result is channels_last."""

    def __init__(self, output: IrTensor) -> None:
        super().__init__()
        self.scale, self.zero_point = qparams(output)

    def forward(self, x: Tensor) -> Tensor:
        """float32 of any layout to quint8."""
        if x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return torch.quantize_per_tensor(x, self.scale, self.zero_point, torch.quint8)


class DequantizeLayer(nn.Module):
    """quint8 to float32, contiguous; a float32 input only changes its layout."""

    def __init__(self, is_float: bool) -> None:
        super().__init__()
        self.is_float = is_float

    def forward(self, x: Tensor) -> Tensor:
        """quint8 or float32 to contiguous float32."""
        return (x if self.is_float else x.dequantize()).contiguous()


class ConvLayer(nn.Module):
    """``quantized::conv2d`` or ``quantized::conv2d_relu``, quint8 to quint8.

    Stock convolutions pad symmetrically; any other border is ``constant_pad_nd`` in front, which
    fills with the zero_point and keeps channels_last.
    """

    def __init__(
        self, op: ops.Conv2d, weight: Tensor, bias: Tensor, output: IrTensor, relu: bool
    ) -> None:
        super().__init__()
        window = op.window
        padding, self.border = split_padding(window)
        self.packed: Any = torch.ops.quantized.conv2d_prepack(
            weight,
            bias,
            [window.stride_h, window.stride_w],
            padding,
            [window.dilation_h, window.dilation_w],
            op.groups,
        )
        self.relu = relu
        self.scale, self.zero_point = qparams(output)

    def forward(self, x: Tensor) -> Tensor:
        """quint8 [N, C, H, W] to quint8 [N, O, H', W']."""
        if self.border:
            x = torch.constant_pad_nd(x, self.border, 0.0)
        conv = torch.ops.quantized.conv2d_relu if self.relu else torch.ops.quantized.conv2d
        result: Tensor = conv(x, self.packed, self.scale, self.zero_point)
        return result


class FloatConvLayer(nn.Module):
    """A convolution with float32 output: int8 weights, multiplied in float32."""

    def __init__(self, op: ops.Conv2d, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.window, self.groups = op.window, op.groups
        self.padding, self.border = split_padding(op.window)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """quint8 [N, C, H, W] to float32 [N, O, H', W']."""
        x = x.dequantize()
        if self.border:
            x = torch.constant_pad_nd(x, self.border, 0.0)
        return functional.conv2d(
            x,
            self.get_buffer("weight").dequantize(),
            self.get_buffer("bias"),
            [self.window.stride_h, self.window.stride_w],
            self.padding,
            [self.window.dilation_h, self.window.dilation_w],
            self.groups,
        )


class LinearLayer(nn.Module):
    """``quantized::linear`` or ``quantized::linear_relu`` over the last axis of NHWC."""

    def __init__(self, weight: Tensor, bias: Tensor, output: IrTensor, relu: bool) -> None:
        super().__init__()
        self.packed: Any = torch.ops.quantized.linear_prepack(weight, bias)
        self.relu = relu
        self.scale, self.zero_point = qparams(output)

    def forward(self, x: Tensor) -> Tensor:
        """quint8 [..., K] (rank 4: [N, K, H, W]) to quint8 [..., O]."""
        linear = torch.ops.quantized.linear_relu if self.relu else torch.ops.quantized.linear
        result: Tensor = linear(channels_to_back(x), self.packed, self.scale, self.zero_point)
        return channels_to_front(result)


class FloatLinearLayer(nn.Module):
    """A linear layer with float32 output, for logits: int8 weights, multiplied in float32."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """quint8 [..., K] (rank 4: [N, K, H, W]) to float32 [..., O]."""
        weight, bias = self.get_buffer("weight").dequantize(), self.get_buffer("bias")
        return channels_to_front(functional.linear(channels_to_back(x).dequantize(), weight, bias))


class AddLayer(nn.Module):
    """``quantized::add`` or ``quantized::add_relu``."""

    def __init__(self, output: IrTensor, relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.scale, self.zero_point = qparams(output)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two quint8 tensors of one shape to quint8."""
        add = torch.ops.quantized.add_relu if self.relu else torch.ops.quantized.add
        result: Tensor = add(a, b, self.scale, self.zero_point)
        return result


class FloatAddLayer(nn.Module):
    """An addition in float32, for operands that are float32, of a far different scale, or of two
    shapes.
    """

    def __init__(self, a: IrTensor, b: IrTensor, output: IrTensor, relu: bool) -> None:
        super().__init__()
        self.a_is_float = a.dtype == DType.float32
        self.b_is_float = b.dtype == DType.float32
        self.relu = relu
        self.scale, self.zero_point = qparams(output)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two tensors of one rank, each quint8 or float32, to quint8."""
        total = (a if self.a_is_float else a.dequantize()) + (
            b if self.b_is_float else b.dequantize()
        )
        if self.relu:
            total = torch.relu(total)
        return torch.quantize_per_tensor(total, self.scale, self.zero_point, torch.quint8)


class MulLayer(nn.Module):
    """``quantized::mul`` or ``quantized::mul_relu``, which repeat dimensions of 1."""

    def __init__(self, a: IrTensor, b: IrTensor, output: IrTensor, relu: bool) -> None:
        super().__init__()
        # The stock operator takes the result's shape and layout from its first operand.
        self.swapped = math.prod(a.shape) < math.prod(b.shape)
        self.relu = relu
        self.scale, self.zero_point = qparams(output)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two quint8 tensors of one rank to quint8."""
        if self.swapped:
            a, b = b, a
        mul = torch.ops.quantized.mul_relu if self.relu else torch.ops.quantized.mul
        result: Tensor = mul(a, b, self.scale, self.zero_point)
        return result


class MaxPoolLayer(nn.Module):
    """``aten::max_pool2d`` on quint8."""

    def __init__(self, op: ops.MaxPool2d, x: IrTensor) -> None:
        super().__init__()
        window = op.window
        self.window, self.ceil_mode = window, op.ceil_mode
        self.padding, self.border = split_padding(window, largest=True)
        if self.border and op.ceil_mode:
            raise ExportError("max pooling with ceil_mode needs padding that is symmetric")
        scale, zero_point = qparams(x)
        self.lowest = -zero_point * scale  # quantizes to 0, which never wins

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8 with the same qparams."""
        window = self.window
        if self.border:
            x = torch.constant_pad_nd(x, self.border, self.lowest)
        return functional.max_pool2d(
            x,
            [window.kernel_h, window.kernel_w],
            [window.stride_h, window.stride_w],
            self.padding,
            [window.dilation_h, window.dilation_w],
            self.ceil_mode,
        )


class AvgPoolLayer(nn.Module):
    """``aten::avg_pool2d``; in float32 where the stock quint8 form computes something else.

    The stock form keeps the input's qparams and, under QNNPACK, ignores ``count_include_pad`` and
    ``divisor_override``.
    """

    def __init__(self, op: ops.AvgPool2d, x: IrTensor, output: IrTensor) -> None:
        super().__init__()
        self.op = op
        self.padding, self.border = split_padding(op.window, largest=True)
        if self.border and (op.ceil_mode or not op.count_include_pad):
            raise ExportError(
                "average pooling with ceil_mode, or without counting the padding, needs padding "
                "that is symmetric"
            )
        self.scale, self.zero_point = qparams(output)
        plain = not (any(self.padding) or self.border or op.ceil_mode or op.divisor_override > 0)
        self.in_float = not (plain and same_qparams(x, output))

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8."""
        window = self.op.window
        if self.in_float:
            x = x.dequantize()
        if self.border:
            x = torch.constant_pad_nd(x, self.border, 0.0)
        x = functional.avg_pool2d(
            x,
            [window.kernel_h, window.kernel_w],
            [window.stride_h, window.stride_w],
            self.padding,
            self.op.ceil_mode,
            self.op.count_include_pad,
            self.op.divisor_override or None,
        )
        if self.in_float:
            x = torch.quantize_per_tensor(x, self.scale, self.zero_point, torch.quint8)
        return x


class AdaptiveAvgPoolLayer(nn.Module):
    """``aten::adaptive_avg_pool2d``; in float32 where the pool changes the qparams."""

    def __init__(self, op: ops.AdaptiveAvgPool2d, x: IrTensor, output: IrTensor) -> None:
        super().__init__()
        self.size = (op.output_h, op.output_w)
        self.in_float = not same_qparams(x, output)
        self.scale, self.zero_point = qparams(output)

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8."""
        if not self.in_float:
            return functional.adaptive_avg_pool2d(x, self.size)
        x = functional.adaptive_avg_pool2d(x.dequantize(), self.size)
        return torch.quantize_per_tensor(x, self.scale, self.zero_point, torch.quint8)


class AdaptiveMaxPoolLayer(nn.Module):
    """``aten::max_pool2d`` over the whole image, of whatever size it is."""

    def __init__(self, op: ops.AdaptiveMaxPool2d, x: IrTensor) -> None:
        super().__init__()
        if (op.output_h, op.output_w) != (1, 1):
            raise ExportError(
                "stock operators take the maximum of whole images, not of parts: pool with a "
                "fixed window instead"
            )
        self.is_pixel = tuple(x.shape[1:3]) == (1, 1)  # which QNNPACK refuses to pool

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8 with the same qparams."""
        return x if self.is_pixel else functional.max_pool2d(x, [x.size(2), x.size(3)])


class FlattenLayer(nn.Module):
    """[N, ...] to [N, K]; a rank-4 input in NCHW order."""

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8 with the same qparams."""
        return torch.flatten(x, 1)


class ReshapeLayer(nn.Module):
    """[N, ...] to [N, *sizes], in NCHW order."""

    def __init__(self, op: ops.Reshape) -> None:
        super().__init__()
        self.sizes = list(op.sizes)

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8 with the same qparams; a rank-4 result is channels_last."""
        x = x.contiguous().view([x.size(0), *self.sizes])
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


class PadLayer(nn.Module):
    """``aten::constant_pad_nd`` with the zero_point; negative amounts crop."""

    def __init__(self, op: ops.Pad) -> None:
        super().__init__()
        self.border = [op.left, op.right, op.top, op.bottom]

    def forward(self, x: Tensor) -> Tensor:
        """quint8 to quint8 with the same qparams."""
        return torch.constant_pad_nd(x, self.border, 0.0)


class BoundedLayer(nn.Module):
    """A layer whose result goes through a table that clamps it."""

    def __init__(self, layer: nn.Module, clamp: TableLayer) -> None:
        super().__init__()
        self.layer, self.clamp = layer, clamp

    def forward(self, *inputs: Tensor) -> Tensor:
        """The layer's inputs to quint8 within the bounds."""
        result: Tensor = self.clamp(self.layer(*inputs))
        return result


def qparams(tensor: IrTensor) -> tuple[float, int]:
    """Scale and zero_point of an activation; the scale is float32's exact value."""
    return float(tensor.scale.reshape(-1)[0]), int(tensor.zero_point)


def same_qparams(a: IrTensor, b: IrTensor) -> bool:
    """Whether the same integer means the same number in both."""
    return qparams(a) == qparams(b)


def channels_to_back(x: Tensor) -> Tensor:
    """[N, C, H, W] as [N, H, W, C], a view; other ranks stay."""
    return x.permute(0, 2, 3, 1) if x.dim() == 4 else x


def channels_to_front(x: Tensor) -> Tensor:
    """[N, H, W, C] as [N, C, H, W], a view; other ranks stay."""
    return x.permute(0, 3, 1, 2) if x.dim() == 4 else x


def split_padding(window: ops.Window, largest: bool = False) -> tuple[list[int], list[int]]:
    """The padding as ([height, width], []) if symmetric, else ([0, 0], [left, right, top, bottom]).

    ``largest``: pooling allows at most half the kernel; more becomes a border too.
    """
    sides = [window.pad_left, window.pad_right, window.pad_top, window.pad_bottom]
    symmetric = sides[0] == sides[1] and sides[2] == sides[3]
    fits = 2 * window.pad_top <= window.kernel_h and 2 * window.pad_left <= window.kernel_w
    if symmetric and (fits or not largest):
        return [window.pad_top, window.pad_left], []
    return [0, 0], sides
