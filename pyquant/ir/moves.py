"""Operators that only move values, and keep the qparams: one table for lowering."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

from torch.fx import Node

from pyquant.ir import ops
from pyquant.ir.node_arguments import argument, pair, pool_window
from pyquant.ir.quantized_graph import QuantizedGraph, is_call


@dataclass(frozen=True)
class Moved:
    """An operator that only moves values, and the float nodes whose values it moves."""

    op: ops.Op
    sources: tuple[Node, ...]


def move(graph: QuantizedGraph, node: Node) -> Moved | None:
    """``node`` as an operator that only moves values; ``None`` if it is none."""
    rule = MOVES.get(str(node.target)) if node.op == "call_function" else None
    if rule is None or not _rank_is_supported(graph, node):
        return None
    moved = rule(graph, node)
    if isinstance(moved, Moved) or moved is None:
        return moved
    return Moved(moved, (cast(Node, node.args[0]),))


def _max_pool2d(graph: QuantizedGraph, node: Node) -> ops.Op | None:
    if len(graph.shape(cast(Node, node.args[0]))) != 4:
        return None
    dilation_h, dilation_w = pair(argument(node, 4, "dilation", 1))
    window = replace(pool_window(node), dilation_h=dilation_h, dilation_w=dilation_w)
    return ops.MaxPool2d(window, ceil_mode=bool(argument(node, 5, "ceil_mode", False)))


def _amax(graph: QuantizedGraph, node: Node) -> ops.Op | None:
    source, axes = node.args[0], argument(node, 1, "dim", ())
    if len(graph.shape(cast(Node, source))) != 4 or not argument(node, 2, "keepdim", False):
        return None
    return ops.AdaptiveMaxPool2d() if {int(axis) % 4 for axis in axes} == {2, 3} else None


def _reshape(graph: QuantizedGraph, node: Node) -> ops.Op | None:
    source = graph.shape(cast(Node, node.args[0]))
    target = graph.shape(node)
    if len(source) < 2 or len(target) < 2 or source[0] != target[0] or 0 in source:
        return None
    if len(target) == 2:
        return ops.Flatten()
    # Views of more dimensions are parts of other operators.
    if max(len(source), len(target)) > 4:
        return None
    # The last size follows from the input's, so that images of other sizes go through as well.
    return ops.Reshape((*target[1:-1], -1))


def _pad(graph: QuantizedGraph, node: Node) -> ops.Op | None:
    amounts = [int(cast(int, amount)) for amount in cast(Sequence[Any], node.args[1])]
    if str(node.target) == "aten.pad.default":
        mode, value = argument(node, 2, "mode", "constant"), argument(node, 3, "value", None)
    else:
        mode, value = "constant", argument(node, 2, "value", 0)
    amounts += [0] * (4 - len(amounts))
    if mode != "constant" or float(value or 0) != 0 or len(graph.shape(node)) != 4:
        return None
    if any(amounts[4:]):
        return None
    left, right, top, bottom = amounts[:4]
    return ops.Pad(top, left, bottom, right)


def _identity(graph: QuantizedGraph, node: Node) -> ops.Op:
    # The table of the identity; the pass that removes such tables removes it.
    return ops.LookupTable(bytes(range(ops.LookupTable.TABLE_SIZE)))


def _dropout(graph: QuantizedGraph, node: Node) -> ops.Op | None:
    return None if argument(node, 2, "train", True) else _identity(graph, node)


def _axis(graph: QuantizedGraph, node: Node, dim: int) -> int:
    """A dimension of the graph's tensor as an axis of the Program's."""
    rank = len(graph.shape(node))
    return (0, 3, 1, 2)[dim % 4] if rank == 4 else dim % rank


def _concat(graph: QuantizedGraph, node: Node) -> Moved | None:
    sources = tuple(cast(Sequence[Node], node.args[0]))
    if len(sources) == 1:
        return Moved(_identity(graph, node), sources)
    if not 2 <= len(sources) <= ops.Concat.MAX_INPUTS or any(map(graph.is_constant, sources)):
        return None
    if any(len(graph.shape(source)) != len(graph.shape(node)) for source in sources):
        return None  # torch lets empty rank-1 tensors be
    return Moved(ops.Concat(_axis(graph, node, int(argument(node, 1, "dim", 0)))), sources)


def _slice(graph: QuantizedGraph, node: Node) -> ops.Op | None:
    source, dim = cast(Node, node.args[0]), int(argument(node, 1, "dim", 0))
    size, kept = graph.shape(source)[dim], graph.shape(node)[dim]
    if argument(node, 4, "step", 1) != 1 or kept == 0:
        return None
    begin = int(argument(node, 2, "start", None) or 0)
    end = argument(node, 3, "end", None)
    end = ops.Slice.TO_THE_END if end is None or end >= _OPEN_END else int(end)
    axis = _axis(graph, source, dim)
    if len(graph.shape(source)) == 4 and axis == 3:
        # The number of channels stays, so bounds can be absolute, and clamped.
        begin = max(begin + size, 0) if begin < 0 else begin
        end = begin + kept
        whole = kept == size
    else:
        whole = (begin, end) == (0, ops.Slice.TO_THE_END)
    if whole:
        return _identity(graph, node)
    # Bounds outside of the example are clamped; they may lie inside of another input.
    return ops.Slice(axis, begin, end) if -size <= begin and end <= size else None


def _split_part(graph: QuantizedGraph, node: Node) -> Moved | None:
    split, index = cast(Node, node.args[0]), node.args[1]
    if not is_call(split, *SPLITS) or not isinstance(index, int):
        return None
    source, dim = cast(Node, split.args[0]), int(argument(split, 2, "dim", 0))
    parts = graph.part_shapes(split)
    begin = sum(part[dim] for part in parts[:index])
    end = begin + parts[index][dim]
    return Moved(ops.Slice(_axis(graph, source, dim), begin, end), (source,))


def _channel_shuffle(graph: QuantizedGraph, node: Node) -> ops.Op | None:
    if len(graph.shape(node)) != 4:
        return None
    return ops.ChannelShuffle(int(cast(int, node.args[1])))


def resize_target(node: Node, scales_index: int) -> tuple[int, int, float, float] | None:
    """Output sizes and scale factors from the arguments of an upsampling."""
    size = node.args[1]
    if str(node.target).endswith(".vec"):
        scales = argument(node, scales_index, "scale_factors", None) or (0.0, 0.0)
    else:
        names = ("scales_h", "scales_w")
        scales = [argument(node, scales_index + i, name, None) for i, name in enumerate(names)]
    height, width = cast(Sequence[Any], size) if size is not None else (0, 0)
    if not (isinstance(height, int) and isinstance(width, int)):
        return None
    return height, width, float(scales[0] or 0), float(scales[1] or 0)


def _resize_nearest(graph: QuantizedGraph, node: Node) -> ops.Op | None:
    resize = resize_target(node, 2)
    return None if resize is None else ops.ResizeNearest(*resize)


#: ATen writes the largest int64 for "to the end"; no axis is longer than this.
_OPEN_END = 2**31 - 1

#: How a q/dq graph that ``pyquant.prepare`` did not make splits a tensor.
SPLITS = (
    "aten.chunk.default",
    "aten.split.Tensor",
    "aten.split_with_sizes.default",
    "aten.split.sizes",
)

Move: TypeAlias = Callable[[QuantizedGraph, Node], ops.Op | Moved | None]
MOVES: dict[str, Move] = {
    "aten.max_pool2d.default": _max_pool2d,
    "aten.amax.default": _amax,
    "aten.flatten.using_ints": _reshape,
    "aten.view.default": _reshape,
    "aten.reshape.default": _reshape,
    "aten.squeeze.default": _reshape,
    "aten.squeeze.dim": _reshape,
    "aten.squeeze.dims": _reshape,
    "aten.unsqueeze.default": _reshape,
    "aten.pad.default": _pad,
    "aten.constant_pad_nd.default": _pad,
    "aten.dropout.default": _dropout,
    "aten.dropout_.default": _dropout,
    "aten.feature_dropout.default": _dropout,
    "aten.clone.default": _identity,
    "aten.contiguous.default": _identity,
    "aten.cat.default": _concat,
    "aten.slice.Tensor": _slice,
    "<built-in function getitem>": _split_part,
    "aten.channel_shuffle.default": _channel_shuffle,
    "aten.upsample_nearest2d.vec": _resize_nearest,
    "aten.upsample_nearest2d.default": _resize_nearest,
}


def _rank_is_supported(graph: QuantizedGraph, node: Node) -> bool:
    """Activations have one to six dimensions."""
    return 1 <= len(graph.shape(node)) <= 6
