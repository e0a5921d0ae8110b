"""Spatial means become global average pooling."""

from __future__ import annotations

import torch
from torch import fx

from pyquant.capture.node import arguments, insert_call, replace, shape_of

_aten = torch.ops.aten


def canonicalize_pooling(module: fx.GraphModule) -> None:
    """Rewrites ``mean`` over height and width of a rank-4 tensor, in place.

    With ``keepdim`` it becomes ``aten.adaptive_avg_pool2d(x, [1, 1])``, without it that and
    ``aten.flatten.using_ints(y, 1)``.

    Args:
        module: A functional graph of ATen calls.
    """
    for node in module.graph.find_nodes(op="call_function", target=_aten.mean.dim):
        values = arguments(node)
        source, dims = values["self"], values["dim"]
        shape = shape_of(source)
        if shape is None or len(shape) != 4 or dims is None or values["dtype"] is not None:
            continue
        if sorted(dim % 4 for dim in dims) != [2, 3]:
            continue
        result = insert_call(node, _aten.adaptive_avg_pool2d.default, (source, [1, 1]), node)
        if not values["keepdim"]:
            result = insert_call(node, _aten.flatten.using_ints, (result, 1), node)
        replace(node, result)
