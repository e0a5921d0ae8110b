"""A PReLU with a slope per channel becomes operators that have int8 forms."""

from __future__ import annotations

import torch
from torch import fx

from pyquant.capture.canonical_affine import insert_norm
from pyquant.capture.node import arguments, get_constant, insert_call, replace, shape_of

_aten = torch.ops.aten


def canonicalize_prelu(module: fx.GraphModule) -> None:
    """Rewrites ``prelu(x, slopes)`` with constant slopes ``[C]``, in place, as
    ``relu(x) + slopes * min(x, 0)``, where the product is a batch norm.

    With one slope for all channels it stays: it is a table then.

    Args:
        module: A functional graph of ATen calls whose constants are folded.
    """
    for node in module.graph.find_nodes(op="call_function", target=_aten.prelu.default):
        source, weight = arguments(node).values()
        slopes = get_constant(module, weight)
        if slopes is None or slopes.numel() == 1 or len(shape_of(source) or ()) not in (3, 4):
            continue
        above = insert_call(node, _aten.relu.default, (source,), node)
        below = insert_call(node, _aten.clamp.default, (source, None, 0.0), node)
        scaled = insert_norm(module, node, below, slopes, torch.zeros_like(slopes))
        replace(node, insert_call(node, _aten.add.Tensor, (above, scaled), node))
