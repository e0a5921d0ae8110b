"""Means and maxima over height and width become global pooling."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from pyquant.capture.node import arguments, insert_call, replace, shape_of

_aten = torch.ops.aten


def canonicalize_pooling(module: fx.GraphModule) -> None:
    """Rewrites means and maxima over height and width of a rank-4 tensor, in place.

    With ``keepdim`` a ``mean`` becomes ``aten.adaptive_avg_pool2d(x, [1, 1])``, and an ``amax``
    ``aten.amax(x, [2, 3], True)``; without it that and ``aten.flatten.using_ints(y, 1)``. The
    values of an ``adaptive_max_pool2d`` to one pixel are an ``amax``, too, and to sizes that divide
    the input's a ``max_pool2d``.

    Args:
        module: A functional graph of ATen calls.
    """
    for node in module.graph.find_nodes(op="call_function", target=_aten.mean.dim):
        if arguments(node)["dtype"] is None:
            _pool(node, _aten.adaptive_avg_pool2d.default, ([1, 1],))
    for node in module.graph.find_nodes(op="call_function", target=_aten.amax.default):
        _pool(node, _aten.amax.default, ([2, 3], True))
    for node in module.graph.find_nodes(
        op="call_function", target=_aten.adaptive_max_pool2d.default
    ):
        _max_pool(node)
    module.graph.eliminate_dead_code()


def _pool(node: fx.Node, target: OpOverload, args: tuple[Any, ...]) -> None:
    """A reduction over height and width as ``target(x, *args)``, which keeps the dimensions."""
    values = arguments(node)
    source, dims = values["self"], values["dim"]
    shape = shape_of(source)
    if shape is None or len(shape) != 4 or not dims or sorted(dim % 4 for dim in dims) != [2, 3]:
        return
    result = insert_call(node, target, (source, *args), node)
    if not values["keepdim"]:
        result = insert_call(node, _aten.flatten.using_ints, (result, 1), node)
    replace(node, result)


def _max_pool(node: fx.Node) -> None:
    """The values of an adaptive pooling; those that somebody wants the indices of stay."""
    source, outputs = node.args
    shape = shape_of(source)
    users = list(node.users)
    values_only = all(user.target is operator.getitem and user.args[1] == 0 for user in users)
    if shape is None or len(shape) != 4 or not values_only:
        return
    assert isinstance(outputs, (list, tuple))
    sizes = [int(outputs[i]) for i in range(2)]  # type: ignore[arg-type]
    for user in users:
        if sizes == [1, 1]:
            replace(user, insert_call(user, _aten.amax.default, (source, [2, 3], True), user))
        elif not any(size % output for size, output in zip(shape[2:], sizes, strict=True)):
            window = [size // output for size, output in zip(shape[2:], sizes, strict=True)]
            args = (source, window, window)
            replace(user, insert_call(user, _aten.max_pool2d.default, args, user))
