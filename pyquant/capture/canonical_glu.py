"""Gated linear units become two halves, a sigmoid and a product."""

from __future__ import annotations

import torch
from torch import fx

from pyquant.capture.node import arguments, insert_call, replace, shape_of

_aten = torch.ops.aten


def canonicalize_glu(module: fx.GraphModule) -> None:
    """Rewrites ``glu(x, dim)``, in place, as ``x[: n / 2] * sigmoid(x[n / 2 :])`` along ``dim``.

    Along the first dimension it stays: the bounds would depend on the batch size.

    Args:
        module: A functional graph of ATen calls.
    """
    for node in module.graph.find_nodes(op="call_function", target=_aten.glu.default):
        values = arguments(node)
        source, shape = values["self"], shape_of(values["self"])
        if shape is None or (dim := values["dim"] % len(shape)) == 0:
            continue
        middle = shape[dim] // 2
        kept, gate = (
            insert_call(node, _aten.slice.Tensor, (source, dim, start, start + middle), node)
            for start in (0, middle)
        )
        opened = insert_call(node, _aten.sigmoid.default, (gate,), node)
        replace(node, insert_call(node, _aten.mul.Tensor, (kept, opened), node))
