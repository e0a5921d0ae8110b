"""Channel shuffles written with views become the operator of that name."""

from __future__ import annotations

import torch
from torch import fx

from pyquant.capture.node import arguments, insert_call, is_call, replace, shape_of

_aten = torch.ops.aten
_VIEWS = (_aten.view.default, _aten._unsafe_view.default, _aten.reshape.default)
_SHUFFLES = (_aten.channel_shuffle.default, _aten.native_channel_shuffle.default)


def canonicalize_channel_shuffle(module: fx.GraphModule) -> None:
    """Rewrites ``x.view(N, g, C / g, H, W).transpose(1, 2).reshape(N, C, H, W)``, in place, as
    ``aten.channel_shuffle(x, g)``.

    Args:
        module: A functional graph of ATen calls, without identities such as ``contiguous``.
    """
    for node in list(module.graph.nodes):
        if is_call(node, *_SHUFFLES):
            node.target = _aten.channel_shuffle.default
        elif is_call(node, *_VIEWS):
            _replace_shuffle(node)
    module.graph.eliminate_dead_code()


def _replace_shuffle(node: fx.Node) -> None:
    swap = node.args[0]
    if not isinstance(swap, fx.Node) or not _swaps_groups(swap):
        return
    view = swap.args[0]
    if not is_call(view, *_VIEWS):
        return
    assert isinstance(view, fx.Node)
    source, grouped = view.args[0], shape_of(view)
    before = shape_of(source)
    if before is None or grouped is None or len(before) != 4 or shape_of(node) != before:
        return
    batch, channels, *image = before
    if grouped == (batch, grouped[1], channels // grouped[1], *image):
        args = (source, grouped[1])
        replace(node, insert_call(node, _aten.channel_shuffle.default, args, node))


def _swaps_groups(node: fx.Node) -> bool:
    """Whether ``node`` swaps the axes 1 and 2 of a rank-5 tensor."""
    if len(shape_of(node) or ()) != 5:
        return False
    if is_call(node, _aten.transpose.int):
        values = arguments(node)
        return {values["dim0"] % 5, values["dim1"] % 5} == {1, 2}
    if is_call(node, _aten.permute.default):
        return [dim % 5 for dim in arguments(node)["dims"]] == [0, 2, 1, 3, 4]
    return False
