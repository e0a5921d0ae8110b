"""Reshapes that keep the batch are written so that other batch sizes work too."""

from __future__ import annotations

import math

import torch
from torch import fx

from pyquant.capture.node import insert_call, is_call, replace, shape_of

_aten = torch.ops.aten
_SQUEEZES = (_aten.squeeze.default, _aten.squeeze.dim, _aten.squeeze.dims)
_VIEWS = (_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default)
_RESHAPES = (*_VIEWS, _aten.flatten.using_ints, *_SQUEEZES)


def canonicalize_flatten(module: fx.GraphModule) -> None:
    """Rewrites reshapes and squeezes that keep the first dimension, in place.

    What ends in rank 2 as ``[N, everything else]`` becomes ``aten.flatten.using_ints(x, 1)``,
    chains of squeezes included; other reshapes get -1 as their first size. The export fixed the
    example's batch size in them; afterwards any batch size goes through.

    Args:
        module: A functional graph of ATen calls.
    """
    for node in list(module.graph.nodes):
        if not is_call(node, *_RESHAPES):
            continue
        source = _source(node)
        before, after = shape_of(source), shape_of(node)
        if before is None or after is None or len(before) < 2 or not after:
            continue
        if before[0] != after[0] or 0 in before:
            continue
        if len(after) == 2 and len(before) > 2 and math.prod(before[1:]) == after[1]:
            replace(node, insert_call(node, _aten.flatten.using_ints, (source, 1), node))
        elif is_call(node, *_VIEWS):
            node.args, node.kwargs = (source, [-1, *after[1:]]), {}
    module.graph.eliminate_dead_code()


def _source(node: fx.Node) -> fx.Node:
    """The input of a reshape, or of the whole chain of squeezes that ends in ``node``."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    while is_call(node, *_SQUEEZES) and is_call(source, *_SQUEEZES):
        before = source.args[0]
        assert isinstance(before, fx.Node)
        source = before
    return source
