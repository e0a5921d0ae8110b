"""Operators that only hand on their input disappear."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import fx
from torch._ops import OpOverload

from pyquant.capture.node import arguments, is_call, replace, shape_of, value_of

_aten = torch.ops.aten


def remove_identity(module: fx.GraphModule, *, keep_dropout: bool = False) -> None:
    """Removes identities and checks from the graph, in place.

    Removed are: the input guards and metadata assertions of ``torch.export``; dropout in eval
    mode; ``detach``, ``alias``, ``lift_fresh``; ``clone``, ``contiguous`` and ``to`` that change
    neither dtype nor device; views, slices and squeezes that keep the shape; concatenations of one
    tensor. Since memory formats no longer hold then, every remaining ``view`` becomes a
    ``reshape``. The graph must be functional. Where ``as_strided`` reads the layout, nothing that
    may change the layout goes.

    Args:
        module: A functional graph of ATen calls.
        keep_dropout: Whether dropouts in eval mode stay.
    """
    graph = module.graph
    keep_layout = any(is_call(node, _aten.as_strided.default) for node in graph.nodes)
    for node in list(graph.nodes):
        if _is_check(node):
            graph.erase_node(node)
            continue
        if node.op != "call_function" or not isinstance(node.target, OpOverload):
            continue
        rule = _IDENTITY_RULES.get(node.target)
        if rule is None or (keep_layout and rule is _keeps_type):
            continue
        if keep_dropout and rule is _is_eval_dropout:
            continue
        source = node.args[0]
        if isinstance(source, (list, tuple)) and len(source) == 1:
            source = source[0]
        if isinstance(source, fx.Node) and rule(node):
            replace(node, source)
    if not keep_layout:
        for view in (_aten.view.default, _aten._unsafe_view.default):
            for node in graph.find_nodes(op="call_function", target=view):
                node.target = _aten.reshape.default
    if hasattr(module, "_guards_fn"):
        del module._guards_fn


def _is_check(node: fx.Node) -> bool:
    """Whether ``node`` only asserts something that the example inputs fixed."""
    if node.op == "call_module" and node.target == "_guards_fn":
        return True
    return is_call(node, _aten._assert_tensor_metadata.default) and not node.users


def _always(node: fx.Node) -> bool:
    return True


def _is_eval_dropout(node: fx.Node) -> bool:
    return arguments(node)["train"] is False


def _keeps_type(node: fx.Node) -> bool:
    """The result has the dtype, device and shape of the input."""
    result, source = value_of(node), value_of(node.args[0])
    return (
        result is not None
        and source is not None
        and result.dtype == source.dtype
        and result.device == source.device
        and result.shape == source.shape
    )


def _keeps_shape(node: fx.Node) -> bool:
    shape = shape_of(node)
    return shape is not None and shape == shape_of(node.args[0])


def _is_whole_slice(node: fx.Node) -> bool:
    values = arguments(node)
    return (
        values["start"] in (None, 0)
        and values["end"] in (None, sys.maxsize)
        and values["step"] == 1
    )


def _is_of_one(node: fx.Node) -> bool:
    return len(arguments(node)["tensors"]) == 1


_IDENTITY_RULES: dict[OpOverload, Callable[[fx.Node], bool]] = {
    _aten.dropout.default: _is_eval_dropout,
    _aten.alpha_dropout.default: _is_eval_dropout,
    _aten.feature_dropout.default: _is_eval_dropout,
    _aten.feature_alpha_dropout.default: _is_eval_dropout,
    _aten.detach.default: _always,
    _aten.alias.default: _always,
    _aten.lift_fresh.default: _always,
    _aten.lift_fresh_copy.default: _always,
    _aten.clone.default: _keeps_type,
    _aten.contiguous.default: _keeps_type,
    _aten.to.dtype: _keeps_type,
    _aten.to.device: _keeps_type,
    _aten.to.dtype_layout: _keeps_type,
    _aten.to.other: _keeps_type,
    _aten._to_copy.default: _keeps_type,
    _aten.type_as.default: _keeps_type,
    _aten.view.default: _keeps_shape,
    _aten.reshape.default: _keeps_shape,
    _aten.expand.default: _keeps_shape,
    _aten.flatten.using_ints: _keeps_shape,
    _aten.squeeze.default: _keeps_shape,
    _aten.squeeze.dim: _keeps_shape,
    _aten.squeeze.dims: _keeps_shape,
    _aten.slice.Tensor: _is_whole_slice,
    _aten.cat.default: _is_of_one,
}
