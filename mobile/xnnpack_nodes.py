"""How each of a Program's operators is said in an XNNPACK graph.

XNNPACK has the Program's arithmetic: int8 activations (the Program's uint8 minus 128), int8 weights
with a scale per channel, int32 biases. Unary functions between int8 values become tables of 256
entries when the runtime loads them. What XNNPACK has for float32 only is computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pyquant.errors import UnsupportedError
from pyquant.ir import ops
from pyquant.ir.program import DType, Node, Program
from pyquant.ir.program import Tensor as IrTensor
from pyquant.mobile.affine_tables import affine_layer
from pyquant.mobile.stock_layers import qparams
from pyquant.mobile.table_functions import function_of, identity
from pyquant.mobile.xnnpack_graph import Shape, XnnpackGraph

_KEEP_DIMS, _ALIGN_CORNERS = 0x40, 0x08  # XNN_FLAG_...
_ANY_BATCH = 0  # a size that a reshape infers
_TO_THE_END = 0  # the size of a slice
_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
_MOST_AT_ONCE = 5  # operands of a concatenation


@dataclass
class Translation:
    """A Program on its way into a graph.

    Attributes:
        program: What is translated.
        graph: What has been translated of it.
        shapes: Of all activations, by their index in the Program, as the Program holds them.
        values: The graph's values by the same index.
    """

    program: Program
    graph: XnnpackGraph
    shapes: Mapping[int, tuple[int, ...]]
    values: dict[int, int] = field(default_factory=dict)

    def tensor(self, index: int) -> IrTensor:
        """What the Program says of an activation or constant."""
        return self.program.tensors[index]

    def step(self, index: int) -> float:
        """The scale of a quantized activation."""
        tensor = self.tensor(index)
        if tensor.dtype != DType.uint8:
            raise UnsupportedError(f"{tensor.name} is {tensor.dtype.name} inside of the network")
        return qparams(tensor)[0]

    def read(self, index: int) -> int:
        """The int8 value of a quantized activation."""
        self.step(index)
        if self.tensor(index).is_constant:
            raise UnsupportedError(f"the operand {self.tensor(index).name} is a constant")
        return self.values[index]

    def write(self, index: int) -> int:
        """A new int8 value for a quantized activation."""
        self.step(index)
        self.values[index] = self.like(index, self.shapes[index])
        return self.values[index]

    def like(self, index: int, shape: Shape) -> int:
        """A new int8 value with the qparams of an activation."""
        scale, zero_point = qparams(self.tensor(index))
        return self.graph.quantized(shape, scale, zero_point - 128)

    def unary(self, kind: str, x: int, y: int, **fields: Any) -> None:
        """An operator with one operand."""
        self.graph.node(kind, input_id=x, output_id=y, **fields)

    def in_float(self, kind: str, node: Node, **fields: Any) -> None:
        """A node with one operand, computed in float32."""
        x, y = self.to_real(node.inputs[0]), self.graph.real(self.shapes[node.output])
        self.unary(kind, x, y, **fields)
        self.unary("XNNConvert", y, self.write(node.output))

    def to_real(self, index: int) -> int:
        """A new float32 value of an activation."""
        real = self.graph.real(self.shapes[index])
        self.unary("XNNConvert", self.read(index), real)
        return real

    def planes(self, index: int) -> int:
        """A new int8 value: an image as NCHW; an activation of another rank as it is."""
        x = self.read(index)
        if len(self.shapes[index]) != 4:
            return x
        y = self.like(index, [self.shapes[index][axis] for axis in _TO_NCHW])
        self.transpose(x, y, _TO_NCHW)
        return y

    def transpose(self, x: int, y: int, perm: tuple[int, ...]) -> None:
        """Dimension ``i`` of the result is dimension ``perm[i]`` of ``x``."""
        self.unary("XNNStaticTranspose", x, y, num_dims=len(perm), perm=list(perm))

    def reshape(self, x: int, y: int) -> None:
        """To the shape of ``y`` for any batch size."""
        shape = [_ANY_BATCH, *self.graph.shapes[y][1:]]
        self.unary("XNNStaticReshape", x, y, num_dims=len(shape), new_shape=shape)


def _bounds(op: Any, output: IrTensor) -> tuple[float, float] | None:
    if (op.output_min, op.output_max) == (0, 255):
        return None
    scale, zero_point = qparams(output)
    return (op.output_min - zero_point) * scale, (op.output_max - zero_point) * scale


def _quantize(to: Translation, node: Node) -> None:
    real, quantized = to.values[node.inputs[0]], to.write(node.output)
    shape = to.graph.shapes[real]
    if len(shape) != 4:
        to.unary("XNNConvert", real, quantized)
        return
    planes = to.like(node.output, shape)
    to.unary("XNNConvert", real, planes)
    to.transpose(planes, quantized, _TO_NHWC)


def _dequantize(to: Translation, node: Node) -> None:
    planes = to.planes(node.inputs[0])
    if node.output not in to.values:
        raise UnsupportedError(f"{to.tensor(node.output).name} is float32 inside of the network")
    to.unary("XNNConvert", planes, to.values[node.output])


def _constants(to: Translation, node: Node, dim: int, perm: tuple[int, ...]) -> dict[str, int]:
    """A layer's weight with its axes in the order ``perm``, and bias."""
    x, weight, bias = (to.tensor(index) for index in node.inputs)
    if weight.data is None or bias.data is None:
        raise UnsupportedError("weight and bias must be constants")
    data = np.ascontiguousarray(weight.data.transpose(perm), dtype=np.int8)
    scales = np.broadcast_to(weight.scale.reshape(-1), bias.data.shape).astype(np.float32)
    return {
        "filter_id": to.graph.weight(data, scales, dim),
        "bias_id": to.graph.bias(bias.data.astype(np.int32), scales * np.float32(qparams(x)[0])),
    }


def _convolution(to: Translation, node: Node) -> None:
    op: Any = node.op
    transposed = isinstance(op, ops.ConvTranspose2d)
    window = op.window
    outputs, _, _, depth = to.tensor(node.inputs[1]).shape
    depthwise = depth == 1 and not transposed
    # Of a depthwise convolution XNNPACK takes the channels last.
    dim, perm = (3, (3, 1, 2, 0)) if depthwise else (0, (0, 1, 2, 3))
    kinds = {(True, False): "XNNDepthwiseConv2d", (False, True): "XNNConvTranspose2d"}
    to.graph.node(
        kinds.get((depthwise, transposed), "XNNConv2d"),
        bounds=_bounds(op, to.tensor(node.output)),
        input1_id=to.read(node.inputs[0]),
        output_id=to.write(node.output),
        padding_top=window.pad_top,
        padding_right=window.pad_right,
        padding_bottom=window.pad_bottom,
        padding_left=window.pad_left,
        kernel_height=window.kernel_h,
        kernel_width=window.kernel_w,
        subsampling_height=window.stride_h,
        subsampling_width=window.stride_w,
        dilation_height=window.dilation_h,
        dilation_width=window.dilation_w,
        group_input_channels=depth,
        group_output_channels=outputs // op.groups,
        groups=op.groups,
        adjustment_height=op.output_pad_h if transposed else 0,
        adjustment_width=op.output_pad_w if transposed else 0,
        **_constants(to, node, dim, perm),
    )


def _linear(to: Translation, node: Node) -> None:
    to.graph.node(
        "XNNFullyConnected",
        bounds=_bounds(node.op, to.tensor(node.output)),
        input1_id=to.read(node.inputs[0]),
        output_id=to.write(node.output),
        **_constants(to, node, 0, (0, 1)),
    )


def _add(to: Translation, node: Node) -> None:
    a, b, y = (to.step(index) for index in (*node.inputs, node.output))
    _binary(to, node, "XNNAdd", all(2.0**-10 <= ratio < 2.0**8 for ratio in (a / y, b / y)))


def _mul(to: Translation, node: Node) -> None:
    a, b, y = (to.step(index) for index in (*node.inputs, node.output))
    _binary(to, node, "XNNMultiply", 2.0**-16 <= a * b / y < 2.0**8)


def _binary(to: Translation, node: Node, kind: str, fits: bool) -> None:
    """``fits``: whether XNNPACK takes the scales; in float32 there are none."""
    bounds = _bounds(node.op, to.tensor(node.output))
    take = to.read if fits else to.to_real
    a, b = (take(index) for index in node.inputs)
    y = to.write(node.output)
    result = y if fits else to.graph.real(to.shapes[node.output])
    to.graph.node(kind, bounds=bounds, input1_id=a, input2_id=b, output_id=result)
    if not fits:
        to.unary("XNNConvert", result, y)


def _pooling(window: ops.Window, padding: tuple[int, int, int, int]) -> dict[str, int]:
    """``padding``: top, right, bottom, left."""
    if (window.kernel_h, window.kernel_w) == (1, 1):
        raise UnsupportedError("XNNPACK does not pool over single pixels")
    names = ("top", "right", "bottom", "left")
    return {
        **{f"padding_{name}": size for name, size in zip(names, padding, strict=True)},
        "pooling_height": window.kernel_h,
        "pooling_width": window.kernel_w,
        "stride_height": window.stride_h,
        "stride_width": window.stride_w,
        "dilation_height": window.dilation_h,
        "dilation_width": window.dilation_w,
    }


def _max_pool2d(to: Translation, node: Node) -> None:
    op: Any = node.op
    w = op.window
    sizes, results = (to.shapes[index] for index in (node.inputs[0], node.output))
    extents = (w.dilation_h * (w.kernel_h - 1) + 1, w.dilation_w * (w.kernel_w - 1) + 1)
    # With ceil_mode the last window may reach beyond the padding.
    bottom = (results[1] - 1) * w.stride_h + extents[0] - sizes[1] - w.pad_top
    right = (results[2] - 1) * w.stride_w + extents[1] - sizes[2] - w.pad_left
    padding = (w.pad_top, max(right, w.pad_right), max(bottom, w.pad_bottom), w.pad_left)
    x, y = to.read(node.inputs[0]), to.write(node.output)
    to.unary("XNNMaxPooling2d", x, y, **_pooling(w, padding))


def _avg_pool2d(to: Translation, node: Node) -> None:
    op: Any = node.op
    window = op.window
    padding = (window.pad_top, window.pad_right, window.pad_bottom, window.pad_left)
    if op.ceil_mode or op.divisor_override or (any(padding) and op.count_include_pad):
        raise UnsupportedError("XNNPACK's average is over the pixels inside of the image")
    to.in_float("XNNAvgPooling2d", node, **_pooling(window, padding))


def _adaptive_avg_pool2d(to: Translation, node: Node) -> None:
    op: Any = node.op
    _, height, width, _ = to.shapes[node.inputs[0]]
    if (op.output_h, op.output_w) == (1, 1):
        x, y = to.read(node.inputs[0]), to.write(node.output)
        to.unary("XNNGlobalAvgPooling2d", x, y, flags=_KEEP_DIMS)
        return
    if height % op.output_h or width % op.output_w:
        raise UnsupportedError("windows of different sizes cannot be pooled by XNNPACK")
    h, w = height // op.output_h, width // op.output_w
    to.in_float("XNNAvgPooling2d", node, **_pooling(ops.Window(h, w, h, w), (0, 0, 0, 0)))


def _pad(to: Translation, node: Node) -> None:
    op: Any = node.op
    if min(op.top, op.left, op.bottom, op.right) < 0:
        raise UnsupportedError("XNNPACK's padding does not crop")
    to.unary(
        "XNNStaticConstantPad",
        to.read(node.inputs[0]),
        to.write(node.output),
        pre_paddings=[0, op.top, op.left, 0],
        post_paddings=[0, op.bottom, op.right, 0],
        padding_value=0.0,
    )


def _between_int8(to: Translation, node: Node, kind: str, **fields: Any) -> None:
    """XNNPACK makes a table of it."""
    to.unary(kind, to.read(node.inputs[0]), to.write(node.output), **fields)


def _clamp(to: Translation, node: Node, low: float, high: float) -> None:
    scale, zero_point = qparams(to.tensor(node.output))
    bounds = (max(low, -zero_point * scale), min(high, (255 - zero_point) * scale))
    if bounds[0] >= bounds[1]:
        raise UnsupportedError("all results are the same")
    _between_int8(to, node, "XNNClamp", bounds=bounds)


def _silu(to: Translation, node: Node) -> None:
    real = to.to_real(node.inputs[0])
    gate, result = (to.graph.real(to.shapes[node.output]) for _ in range(2))
    to.unary("XNNSigmoid", real, gate)
    to.graph.node("XNNMultiply", input1_id=real, input2_id=gate, output_id=result)
    to.unary("XNNConvert", result, to.write(node.output))


def _hardsigmoid(to: Translation, node: Node) -> None:
    """A linear layer with one weight: a plain operand cannot be a constant."""
    op: Any = node.op
    weight, scale, bias = affine_layer(op, *map(to.tensor, _ends(node)), slope=1 / 6, offset=0.5)
    scales = np.asarray([scale], np.float32)
    size = int(np.prod(to.shapes[node.output]))
    column, result = (to.like(index, (size, 1)) for index in (node.inputs[0], node.output))
    y = to.write(node.output)
    to.reshape(to.read(node.inputs[0]), column)
    to.graph.node(
        "XNNFullyConnected",
        bounds=(0.0, 1.0),
        input1_id=column,
        filter_id=to.graph.weight(np.asarray([[weight]], np.int8), scales, 0),
        bias_id=to.graph.bias(
            np.asarray([bias], np.int32), scales * qparams(to.tensor(node.inputs[0]))[0]
        ),
        output_id=result,
    )
    to.reshape(result, y)


def _ends(node: Node) -> tuple[int, int]:
    return node.inputs[0], node.output


_Rule = Callable[[Translation, Node], None]

#: The functions of :mod:`pyquant.mobile.table_functions`. XNNPACK lacks the others.
_FUNCTIONS: dict[Callable[..., Tensor], _Rule] = {
    identity: partial(_clamp, low=-math.inf, high=math.inf),
    torch.relu: partial(_clamp, low=0.0, high=math.inf),
    functional.relu6: partial(_clamp, low=0.0, high=6.0),
    functional.hardswish: partial(_between_int8, kind="XNNHardswish"),
    functional.hardsigmoid: _hardsigmoid,
    functional.silu: _silu,
    torch.sigmoid: partial(_between_int8, kind="XNNSigmoid"),
    torch.tanh: partial(_between_int8, kind="XNNTanh"),
    functional.gelu: partial(_between_int8, kind="XNNGelu"),
    functional.elu: partial(_between_int8, kind="XNNELU", alpha=1.0),
    torch.abs: partial(_between_int8, kind="XNNAbs"),
    torch.neg: partial(_between_int8, kind="XNNNegate"),
}


def _table(to: Translation, node: Node) -> None:
    op: Any = node.op
    function = function_of(op, *map(to.tensor, _ends(node)))
    rule = _FUNCTIONS.get(function) if function is not None else None
    if rule is None:
        raise UnsupportedError("XNNPACK has no operator for this table")
    rule(to, node)


def _concat(to: Translation, node: Node) -> None:
    op: Any = node.op
    parts = [to.read(index) for index in node.inputs]
    while len(parts) > _MOST_AT_ONCE:
        parts[:_MOST_AT_ONCE] = [_joined(to, node, parts[:_MOST_AT_ONCE])]
    if op.interleaved:
        _shuffle(to, _joined(to, node, parts), node.output, len(node.inputs))
    else:
        to.graph.concatenate(parts, to.write(node.output), op.axis)


def _joined(to: Translation, node: Node, parts: Sequence[int]) -> int:
    op: Any = node.op
    shape = list(to.graph.shapes[parts[0]])
    shape[op.axis] = sum(to.graph.shapes[part][op.axis] for part in parts)
    joined = to.like(node.output, shape)
    to.graph.concatenate(parts, joined, op.axis)
    return joined


def _channel_shuffle(to: Translation, node: Node) -> None:
    op: Any = node.op
    _shuffle(to, to.read(node.inputs[0]), node.output, op.groups)


def _shuffle(to: Translation, x: int, output: int, groups: int) -> None:
    *pixels, channels = to.shapes[output]
    grouped = to.like(output, (*pixels, groups, channels // groups))
    swapped = to.like(output, (*pixels, channels // groups, groups))
    to.reshape(x, grouped)
    to.transpose(grouped, swapped, (0, 1, 2, 4, 3))
    to.reshape(swapped, to.write(output))


def _slice(to: Translation, node: Node) -> None:
    op: Any = node.op
    shape = to.shapes[node.inputs[0]]
    offsets, sizes = [0] * len(shape), [_TO_THE_END] * len(shape)
    offsets[op.axis] = op.begin % shape[op.axis]
    sizes[op.axis] = to.shapes[node.output][op.axis]
    x, y = to.read(node.inputs[0]), to.write(node.output)
    to.unary("XNNStaticSlice", x, y, num_dims=len(shape), offsets=offsets, sizes=sizes)


def _reshape(to: Translation, node: Node) -> None:
    x, shape = to.planes(node.inputs[0]), to.shapes[node.output]
    if len(shape) != 4:
        to.reshape(x, to.write(node.output))
        return
    planes = to.like(node.output, [shape[axis] for axis in _TO_NCHW])
    to.reshape(x, planes)
    to.transpose(planes, to.write(node.output), _TO_NHWC)


def _resize_bilinear(to: Translation, node: Node) -> None:
    op: Any = node.op
    sizes, (_, height, width, _) = to.shapes[node.inputs[0]][1:3], to.shapes[node.output]
    factors = (op.scale_h or height / sizes[0], op.scale_w or width / sizes[1])
    if (sizes[0] * factors[0], sizes[1] * factors[1]) != (height, width):
        raise UnsupportedError("XNNPACK takes the scale from the sizes, which are rounded here")
    flags = _ALIGN_CORNERS if op.align_corners else 0
    to.in_float("XNNStaticResizeBilinear2D", node, new_height=height, new_width=width, flags=flags)


#: How each operator is said. Adding an operator is adding a row; XNNPACK lacks the others.
RULES: dict[type, _Rule] = {
    ops.Quantize: _quantize,
    ops.Dequantize: _dequantize,
    ops.Conv2d: _convolution,
    ops.ConvTranspose2d: _convolution,
    ops.Linear: _linear,
    ops.Add: _add,
    ops.Mul: _mul,
    ops.MaxPool2d: _max_pool2d,
    ops.AvgPool2d: _avg_pool2d,
    ops.AdaptiveAvgPool2d: _adaptive_avg_pool2d,
    ops.Flatten: _reshape,
    ops.Reshape: _reshape,
    ops.Pad: _pad,
    ops.LookupTable: _table,
    ops.Concat: _concat,
    ops.Slice: _slice,
    ops.ChannelShuffle: _channel_shuffle,
    ops.ResizeBilinear: _resize_bilinear,
}
