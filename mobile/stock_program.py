"""Which stock layer computes each node of a Program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from pyquant.errors import ExportError
from pyquant.ir import ops
from pyquant.ir.program import DType, Node, Program
from pyquant.ir.program import Tensor as IrTensor
from pyquant.mobile.stock_layers import (
    AdaptiveAvgPoolLayer,
    AdaptiveMaxPoolLayer,
    AddLayer,
    AvgPoolLayer,
    BoundedLayer,
    ConvLayer,
    DequantizeLayer,
    FlattenLayer,
    FloatAddLayer,
    FloatConvLayer,
    FloatLinearLayer,
    LinearLayer,
    MaxPoolLayer,
    MulLayer,
    PadLayer,
    QuantizeLayer,
    ReshapeLayer,
    qparams,
)
from pyquant.mobile.stock_moves import (
    ChannelShuffleLayer,
    ConcatLayer,
    ResizeBilinearLayer,
    ResizeNearestLayer,
    SliceLayer,
)
from pyquant.mobile.stock_tables import clamp_table, table_layer


def _weight_and_bias(program: Program, node: Node) -> tuple[Tensor, Tensor]:
    """A per-channel qint8 weight (convolutions [O, I, kH, kW]) and the float32 bias."""
    x, weight, bias = (program.tensors[index] for index in node.inputs)
    if weight.data is None or bias.data is None:
        raise ExportError("weight and bias must be constants")
    values = torch.from_numpy(np.ascontiguousarray(weight.data, dtype=np.int8))
    if values.dim() == 4:
        values = values.permute(0, 3, 1, 2).contiguous()
    channels = values.shape[0]
    scale = np.broadcast_to(weight.scale.reshape(-1), (channels,)).astype(np.float64)
    packed = torch._make_per_channel_quantized_tensor(
        values, torch.from_numpy(scale.copy()), torch.zeros(channels, dtype=torch.int64), 0
    )
    # The stock operators divide by s_x * s_w again, which gives back the int32 value.
    real = bias.data.astype(np.float64) * (float(x.scale.reshape(-1)[0]) * scale)
    return packed, torch.from_numpy(real.astype(np.float32))


_Bounded = TypeVar("_Bounded", ops.Conv2d, ops.Linear, ops.Add, ops.Mul)


def _bounded(op: _Bounded, output: IrTensor, build: Callable[[bool], nn.Module]) -> nn.Module:
    """``build(relu)`` so that the result lies within the operator's bounds."""
    if op.output_max == 255 and op.output_min in (0, output.zero_point):
        return build(op.output_min > 0)
    return BoundedLayer(build(False), clamp_table(op.output_min, op.output_max, *qparams(output)))


def _add_layer(node: Node, op: ops.Add, a: IrTensor, b: IrTensor, output: IrTensor) -> nn.Module:
    def build(relu: bool) -> nn.Module:
        # QNNPACK refuses operands of two shapes, and scales that differ more than this.
        stock = not op.broadcast and all(
            operand.dtype == DType.uint8
            and 2.0**-14 <= qparams(operand)[0] / qparams(output)[0] < 2.0**8
            for operand in (a, b)
        )
        return AddLayer(output, relu) if stock else FloatAddLayer(a, b, output, relu)

    return _bounded(op, output, build)


def build_layer(program: Program, node: Node) -> nn.Module:
    """The module that computes ``node`` from its activation inputs.

    Must run with the QNNPACK engine selected. Raises :class:`ExportError` without the layer's
    name where stock operators cannot express it.
    """
    inputs: Sequence[IrTensor] = [program.tensors[index] for index in node.inputs]
    x, output, op = inputs[0], program.tensors[node.output], node.op
    is_float = output.dtype == DType.float32
    match op:
        case ops.Quantize():
            return QuantizeLayer(output)
        case ops.Dequantize():
            return DequantizeLayer(x.dtype == DType.float32)
        case ops.Conv2d():
            weight, bias = _weight_and_bias(program, node)
            if is_float:
                return FloatConvLayer(op, weight, bias)
            conv = op
            return _bounded(op, output, lambda relu: ConvLayer(conv, weight, bias, output, relu))
        case ops.Linear():
            weight, bias = _weight_and_bias(program, node)
            if is_float:
                return FloatLinearLayer(weight, bias)
            return _bounded(op, output, lambda relu: LinearLayer(weight, bias, output, relu))
        case ops.Add():
            return _add_layer(node, op, x, inputs[1], output)
        case ops.MaxPool2d():
            return MaxPoolLayer(op, x)
        case ops.AvgPool2d():
            return AvgPoolLayer(op, x, output)
        case ops.AdaptiveAvgPool2d():
            return AdaptiveAvgPoolLayer(op, x, output)
        case ops.AdaptiveMaxPool2d():
            return AdaptiveMaxPoolLayer(op, x)
        case ops.Flatten():
            return FlattenLayer()
        case ops.Pad():
            return PadLayer(op)
        case ops.LookupTable():
            return table_layer(op, x, output)
        case ops.Mul():
            other = inputs[1]
            return _bounded(op, output, lambda relu: MulLayer(x, other, output, relu))
        case ops.Concat():
            return ConcatLayer(op, len(x.shape), len(inputs))
        case ops.Slice():
            return SliceLayer(op, len(x.shape))
        case ops.ChannelShuffle():
            return ChannelShuffleLayer(op)
        case ops.ResizeNearest():
            return ResizeNearestLayer(op)
        case ops.ResizeBilinear():
            return ResizeBilinearLayer(op, output)
        case ops.Reshape():
            return ReshapeLayer(op)
    raise ExportError(f"no stock operator computes {type(op).__name__}")
