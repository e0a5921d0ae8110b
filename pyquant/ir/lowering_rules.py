"""How each ATen operator of a q/dq graph becomes an operator of a Program: one table.

A rule gets the float node, the qparams that its result is quantized with, and the clamp bounds of
the activations that follow it; it answers with the operator and its operands, or ``None`` if this
use of the operator has no int8 form. Every rule is exact to the bit of the Program's own
arithmetic, and within one step of the float q/dq graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from torch.fx import Node

from pyquant.ir import ops
from pyquant.ir.moves import move, resize_target
from pyquant.ir.node_arguments import argument as _argument
from pyquant.ir.node_arguments import pair as _pair
from pyquant.ir.node_arguments import pool_window
from pyquant.ir.quantized_graph import QParams, QuantizedGraph, QuantizedWeight


@dataclass(frozen=True)
class QuantizedValue:
    """A float node's value quantized with ``qparams``: a uint8 tensor of the Program."""

    node: Node
    qparams: QParams


@dataclass(frozen=True)
class FloatValue:
    """A float node's value as it is: a float32 tensor."""

    node: Node


Value: TypeAlias = QuantizedValue | FloatValue


@dataclass
class Lowered:
    """An operator of the Program and where its operands come from.

    Attributes:
        op: The operator.
        operands: Activations, in operator order.
        weight: For operators with weights.
        bias: float32, one per output channel; quantized when the input's scale is known.
    """

    op: ops.Op
    operands: Sequence[Value]
    weight: QuantizedWeight | None = None
    bias: np.ndarray[Any, np.dtype[np.float32]] | None = None


@dataclass(frozen=True)
class Bounds:
    """What an activation clamps to, in quantized terms."""

    low: int
    high: int


def quantized_operand(graph: QuantizedGraph, node: Any) -> QuantizedValue | None:
    """The quantized value that a float operand stands for: a dequantize node, or an operator
    over one that only moves values.
    """
    if not isinstance(node, Node):
        return None
    if graph.is_dequantize(node):
        source = node.args[0]
        if not isinstance(source, Node) or not graph.is_quantize(source):
            return None
        if graph.qparams(source) != graph.qparams(node):
            return None
        return QuantizedValue(cast(Node, source.args[0]), graph.qparams(node))
    moved = move(graph, node)
    if moved is None:
        return None
    found = {
        None if operand is None else operand.qparams
        for operand in (quantized_operand(graph, source) for source in moved.sources)
    }
    qparams = found.pop()
    return QuantizedValue(node, qparams) if qparams is not None and not found else None


# --- Operators with weights.


def _conv2d(graph: QuantizedGraph, node: Node, bounds: Bounds) -> Lowered | None:
    stride = _pair(_argument(node, 3, "stride", 1))
    padding = _argument(node, 4, "padding", 0)
    dilation = _pair(_argument(node, 5, "dilation", 1))
    groups = int(_argument(node, 6, "groups", 1))
    x = quantized_operand(graph, node.args[0])
    weight = graph.weight(node.args[1])
    if x is None or weight is None or weight.values.ndim != 4 or len(graph.shape(x.node)) != 4:
        return None
    kernel = _pair(weight.values.shape[2:])
    if padding == "valid":
        before = after = (0, 0)
    elif padding == "same":
        total = [dilation[i] * (kernel[i] - 1) for i in range(2)]
        before = (total[0] // 2, total[1] // 2)
        after = (total[0] - before[0], total[1] - before[1])
    else:
        before = after = _pair(padding)
    window = ops.Window(*kernel, *stride, *before, *after, *dilation)
    channels_last = np.ascontiguousarray(weight.values.transpose(0, 2, 3, 1))
    return Lowered(
        ops.Conv2d(window, groups, bounds.low, bounds.high),
        [x],
        QuantizedWeight(channels_last, weight.scales),
        _bias(graph, node.args[2] if len(node.args) > 2 else node.kwargs.get("bias"), weight),
    )


def _conv_transpose2d(graph: QuantizedGraph, node: Node, bounds: Bounds) -> Lowered | None:
    stride, padding, output_padding, dilation = (
        _pair(_argument(node, index, name, default))
        for index, name, default in (
            (3, "stride", 1),
            (4, "padding", 0),
            (5, "output_padding", 0),
            (7, "dilation", 1),
        )
    )
    groups = int(_argument(node, 6, "groups", 1))
    x = quantized_operand(graph, node.args[0])
    weight = graph.weight(node.args[1], output_axis=1)
    if x is None or weight is None or len(graph.shape(x.node)) != 4:
        return None
    # [O / groups, I, kH, kW] to [O, kH, kW, I / groups].
    outputs, inputs, *kernel = weight.values.shape
    grouped = weight.values.reshape(outputs, groups, inputs // groups, *kernel)
    values = grouped.transpose(1, 0, 3, 4, 2).reshape(-1, *kernel, inputs // groups)
    weight = QuantizedWeight(np.ascontiguousarray(values), np.tile(weight.scales, groups))
    window = ops.Window(*_pair(kernel), *stride, *padding, *padding, *dilation)
    bias = _bias(graph, _argument(node, 2, "bias", None), weight)
    op = ops.ConvTranspose2d(window, groups, *output_padding, bounds.low, bounds.high)
    return Lowered(op, [x], weight, bias)


def _linear(graph: QuantizedGraph, node: Node, bounds: Bounds) -> Lowered | None:
    x = quantized_operand(graph, node.args[0])
    weight = graph.weight(node.args[1])
    # A rank-4 activation is NHWC in the Program: its last axis is not the model's.
    if x is None or weight is None or len(graph.shape(x.node)) in (1, 4):
        return None
    bias = _bias(graph, node.args[2] if len(node.args) > 2 else node.kwargs.get("bias"), weight)
    return Lowered(ops.Linear(bounds.low, bounds.high), [x], weight, bias)


def _bias(
    graph: QuantizedGraph, node: Any, weight: QuantizedWeight
) -> np.ndarray[Any, np.dtype[np.float32]]:
    if node is None:
        return np.zeros(weight.scales.shape, np.float32)
    return cast(torch.Tensor, graph.constant(node)).detach().float().numpy()


# --- Arithmetic between activations.


def _add(graph: QuantizedGraph, node: Node, bounds: Bounds) -> Lowered | None:
    if node.kwargs.get("alpha", 1) != 1 or len(node.args) < 2:
        return None
    operands: list[Value] = []
    for argument in node.args[:2]:
        if not isinstance(argument, Node) or graph.is_constant(argument):
            return None
        operand: Value | None = quantized_operand(graph, argument)
        if operand is None and float_result(graph, argument) is not None:
            operand = FloatValue(argument)
        if operand is None:
            return None
        operands.append(operand)
    shapes = [graph.shape(operand.node) for operand in operands]
    broadcast = shapes[0] != shapes[1]
    if broadcast and not _repeats(graph, node, operands):
        return None
    return Lowered(ops.Add(bounds.low, bounds.high, broadcast), operands)


def _mul(graph: QuantizedGraph, node: Node, bounds: Bounds) -> Lowered | None:
    operands = [quantized_operand(graph, argument) for argument in node.args[:2]]
    if not _repeats(graph, node, operands):
        return None
    return Lowered(ops.Mul(bounds.low, bounds.high), cast(Sequence[Value], operands))


def _repeats(graph: QuantizedGraph, node: Node, operands: Sequence[Value | None]) -> bool:
    """Whether ``node`` takes quantized operands, of which dimensions of 1 are repeated."""
    if not all(isinstance(operand, QuantizedValue) for operand in operands):
        return False
    ranks = {len(graph.shape(cast(Value, operand).node)) for operand in operands}
    # Repeating a dimension of 1 means the same in NHWC, but not prepending one.
    return ranks == {len(graph.shape(node))} and 0 not in ranks


# --- Pooling.


def _avg_pool2d(graph: QuantizedGraph, node: Node, bounds: Bounds) -> Lowered | None:
    x = quantized_operand(graph, node.args[0])
    if x is None or len(graph.shape(x.node)) != 4:
        return None
    op = ops.AvgPool2d(
        pool_window(node),
        ceil_mode=bool(_argument(node, 4, "ceil_mode", False)),
        count_include_pad=bool(_argument(node, 5, "count_include_pad", True)),
        divisor_override=int(_argument(node, 6, "divisor_override", None) or 0),
    )
    return Lowered(op, [x]) if op.divisor_override >= 0 else None


def _adaptive_avg_pool2d(graph: QuantizedGraph, node: Node, bounds: Bounds) -> Lowered | None:
    x = quantized_operand(graph, node.args[0])
    if x is None or len(graph.shape(x.node)) != 4:
        return None
    shape = graph.shape(node)
    return Lowered(ops.AdaptiveAvgPool2d(shape[2], shape[3]), [x])


def _mean(graph: QuantizedGraph, node: Node, bounds: Bounds) -> Lowered | None:
    x = quantized_operand(graph, node.args[0])
    axes = node.args[1] if len(node.args) > 1 else None
    if x is None or len(graph.shape(x.node)) != 4 or len(graph.shape(node)) != 4:
        return None
    if not isinstance(axes, (list, tuple)) or {int(cast(int, a)) % 4 for a in axes} != {2, 3}:
        return None
    return Lowered(ops.AdaptiveAvgPool2d(1, 1), [x])


def _resize_bilinear(graph: QuantizedGraph, node: Node, bounds: Bounds) -> Lowered | None:
    x, resize = quantized_operand(graph, node.args[0]), resize_target(node, 3)
    if x is None or resize is None:
        return None
    return Lowered(ops.ResizeBilinear(*resize, align_corners=bool(node.args[2])), [x])


Rule: TypeAlias = Callable[[QuantizedGraph, Node, Bounds], Lowered | None]

#: Operators whose result may stay float32.
WEIGHTED: dict[str, Rule] = {
    "aten.conv2d.default": _conv2d,
    "aten.conv2d.padding": _conv2d,
    "aten.linear.default": _linear,
    "aten.conv_transpose2d.input": _conv_transpose2d,
}

#: Operators that take a following clamp into themselves.
CLAMPING: dict[str, Rule] = {
    **WEIGHTED,
    "aten.add.Tensor": _add,
    "aten.add_.Tensor": _add,
    "aten.mul.Tensor": _mul,
    "aten.mul_.Tensor": _mul,
}

POOLS: dict[str, Rule] = {
    "aten.avg_pool2d.default": _avg_pool2d,
    "aten.adaptive_avg_pool2d.default": _adaptive_avg_pool2d,
    "aten.mean.dim": _mean,
    "aten.upsample_bilinear2d.vec": _resize_bilinear,
    "aten.upsample_bilinear2d.default": _resize_bilinear,
}

#: Monotone clamps, as the interval they clamp to.
CLAMPS: dict[str, Callable[[Node], tuple[float, float]]] = {
    "aten.relu": lambda node: (0.0, float("inf")),
    "aten.relu6": lambda node: (0.0, 6.0),
    "aten.hardtanh": lambda node: (
        float(_argument(node, 1, "min_val", -1.0)),
        float(_argument(node, 2, "max_val", 1.0)),
    ),
    "aten.clamp": lambda node: (
        float(-np.inf if _argument(node, 1, "min", None) is None else _argument(node, 1, "min", 0)),
        float(np.inf if _argument(node, 2, "max", None) is None else _argument(node, 2, "max", 0)),
    ),
}

#: Elementwise functions of one tensor and numbers: each is a table of 256 values.
UNARY = frozenset(CLAMPS) | {
    "aten.sigmoid",
    "aten.hardsigmoid",
    "aten.hardswish",
    "aten.silu",
    "aten.gelu",
    "aten.elu",
    "aten.selu",
    "aten.celu",
    "aten.tanh",
    "aten.leaky_relu",
    "aten.prelu",
    "aten.softplus",
    "aten.mish",
    "aten.neg",
    "aten.abs",
    "aten.exp",
    "aten.sqrt",
    "aten.add",
    "aten.sub",
    "aten.rsub",
    "aten.mul",
    "aten.div",
    "aten.pow",
}


def functional_name(node: Node) -> str:
    """The name without overload and trailing underscore: ``aten.relu`` for ``aten.relu_.default``;
    empty if ``node`` is no call.
    """
    if node.op != "call_function":
        return ""
    return str(node.target).rsplit(".", 1)[0].rstrip("_")


def is_clamp(node: Node) -> bool:
    """Whether ``node`` clamps a tensor between numbers."""
    return functional_name(node) in CLAMPS and len(node.all_input_nodes) == 1


def unary_source(graph: QuantizedGraph, node: Node) -> Node | None:
    """The tensor that ``node`` is an elementwise function of, if it is one of that tensor and of
    constants of one element.
    """
    if functional_name(node) not in UNARY:
        return None
    sources = [argument for argument in node.all_input_nodes if not graph.is_constant(argument)]
    constants = [argument for argument in node.all_input_nodes if graph.is_constant(argument)]
    if len(sources) != 1 or graph.shape(sources[0]) != graph.shape(node):
        return None
    return sources[0] if all(graph.constant(c).numel() == 1 for c in constants) else None


def table_of(
    graph: QuantizedGraph, node: Node, source: QParams, target: QParams
) -> ops.LookupTable:
    """The table of a unary node between qparams: exact with respect to the q/dq graph."""
    inputs = source.dequantize(np.arange(ops.LookupTable.TABLE_SIZE, dtype=np.uint8))

    def value_of(argument: Node) -> Any:
        is_constant = graph.is_constant(argument)
        return graph.constant(argument) if is_constant else torch.from_numpy(inputs.copy())

    with torch.no_grad():
        outputs = cast(Any, node.target)(
            *torch.fx.map_arg(node.args, value_of), **torch.fx.map_arg(node.kwargs, value_of)
        )
    return ops.LookupTable(target.quantize(outputs.reshape(-1).numpy()).tobytes())


def requantization_table(source: QParams, target: QParams) -> ops.LookupTable:
    """The table that changes qparams."""
    inputs = source.dequantize(np.arange(ops.LookupTable.TABLE_SIZE, dtype=np.uint8))
    return ops.LookupTable(target.quantize(inputs).tobytes())


def float_result(graph: QuantizedGraph, node: Node) -> Lowered | None:
    """``node`` as an operator with int8 operands and a float32 result."""
    rule = WEIGHTED.get(str(node.target)) if node.op == "call_function" else None
    return rule(graph, node, Bounds(0, 255)) if rule else None
