"""How each of a Program's operators is said in an XNNPACK graph.

XNNPACK has the Program's arithmetic: int8 activations (the Program's uint8 minus 128), int8 weights
with a scale per channel, int32 biases. Unary functions between int8 values become tables of 256
entries when the runtime loads them. What XNNPACK has for float32 only is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pyquant.errors import UnsupportedError
from pyquant.ir import ops
from pyquant.ir.program import Node
from pyquant.ir.program import Tensor as IrTensor
from pyquant.mobile.stock_layers import qparams
from pyquant.mobile.xnnpack_functions import table
from pyquant.mobile.xnnpack_graph import MOST_CONCATENATED
from pyquant.mobile.xnnpack_translation import TO_NCHW, TO_NHWC, Translation

_KEEP_DIMS, _ALIGN_CORNERS = 0x40, 0x08  # XNN_FLAG_...
_TO_THE_END = 0  # the size of a slice


def _bounds(op: Any, output: IrTensor) -> tuple[float, float] | None:
    if (op.output_min, op.output_max) == (0, 255):
        return None
    scale, zero_point = qparams(output)
    return (op.output_min - zero_point) * scale, (op.output_max - zero_point) * scale


def _quantize(to: Translation, node: Node) -> None:
    if node.inputs[0] not in to.program.inputs:
        raise UnsupportedError(f"{to.tensor(node.inputs[0]).name} is float32 inside of the network")
    real, quantized = to.values[node.inputs[0]], to.write(node.output)
    shape = to.graph.shapes[real]
    if len(shape) != 4:
        to.unary("XNNConvert", real, quantized)
        return
    planes = to.like(node.output, shape)
    to.unary("XNNConvert", real, planes)
    to.transpose(planes, quantized, TO_NHWC)


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


def _adaptive_window(to: Translation, node: Node) -> dict[str, int]:
    op: Any = node.op
    _, height, width, _ = to.shapes[node.inputs[0]]
    if height % op.output_h or width % op.output_w:
        raise UnsupportedError("windows of different sizes cannot be pooled by XNNPACK")
    h, w = height // op.output_h, width // op.output_w
    return _pooling(ops.Window(h, w, h, w), (0, 0, 0, 0))


def _adaptive_max_pool2d(to: Translation, node: Node) -> None:
    x = to.read(node.inputs[0])
    if to.shapes[node.inputs[0]] == to.shapes[node.output]:
        to.unary("XNNConvert", x, to.write(node.output))
    else:
        window = _adaptive_window(to, node)
        to.unary("XNNMaxPooling2d", x, to.write(node.output), **window)


def _adaptive_avg_pool2d(to: Translation, node: Node) -> None:
    op: Any = node.op
    _, height, width, _ = to.shapes[node.inputs[0]]
    results = (op.output_h, op.output_w)
    if (height, width) == results == (1, 1):
        to.unary("XNNConvert", to.read(node.inputs[0]), to.write(node.output))
        return
    # XNNPACK's global pooling of int8 goes wrong when the batch grows from one run to the next.
    if results == (1, 1) and not to.any_batch:
        x, y = to.read(node.inputs[0]), to.write(node.output)
        to.unary("XNNGlobalAvgPooling2d", x, y, flags=_KEEP_DIMS)
        return
    to.in_float("XNNAvgPooling2d", node, **_adaptive_window(to, node))


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


def _concat(to: Translation, node: Node) -> None:
    op: Any = node.op
    parts = [to.read(index) for index in node.inputs]
    while len(parts) > MOST_CONCATENATED:
        parts[:MOST_CONCATENATED] = [_joined(to, node, parts[:MOST_CONCATENATED])]
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
    planes = to.like(node.output, [shape[axis] for axis in TO_NCHW])
    to.reshape(x, planes)
    to.transpose(planes, to.write(node.output), TO_NHWC)


def _resize_bilinear(to: Translation, node: Node) -> None:
    op: Any = node.op
    sizes, (_, height, width, _) = to.shapes[node.inputs[0]][1:3], to.shapes[node.output]
    factors = (op.scale_h or height / sizes[0], op.scale_w or width / sizes[1])
    if (sizes[0] * factors[0], sizes[1] * factors[1]) != (height, width):
        raise UnsupportedError("XNNPACK takes the scale from the sizes, which are rounded here")
    flags = _ALIGN_CORNERS if op.align_corners else 0
    to.in_float("XNNStaticResizeBilinear2D", node, new_height=height, new_width=width, flags=flags)


_Rule = Callable[[Translation, Node], None]

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
    ops.AdaptiveMaxPool2d: _adaptive_max_pool2d,
    ops.Flatten: _reshape,
    ops.Reshape: _reshape,
    ops.Pad: _pad,
    ops.LookupTable: table,
    ops.Concat: _concat,
    ops.Slice: _slice,
    ops.ChannelShuffle: _channel_shuffle,
    ops.ResizeBilinear: _resize_bilinear,
}
