"""Explicit zero padding in front of convolutions moves into them."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from pyquant.capture.node import arguments, insert_call, is_call, refresh, replace, shape_of

_aten = torch.ops.aten


def normalize_convolutions(module: fx.GraphModule) -> None:
    """Gives every 2-d convolution numeric padding, in place.

    ``conv2d(padding="same" | "valid")`` becomes ``aten.conv2d.default``; where "same" needs one
    pixel more at the right or bottom, an ``aten.pad`` goes in front. All seven arguments are
    written out, so that later passes find them by position.

    Args:
        module: A functional graph of ATen calls.
    """
    for node in list(module.graph.nodes):
        if not is_call(node, _aten.conv2d.default, _aten.conv2d.padding):
            continue
        values = arguments(node)
        padding: Any = values["padding"]
        source, weight = values["input"], shape_of(values["weight"])
        if isinstance(padding, str):
            if weight is None or len(shape_of(source) or ()) != 4:
                continue
            dilation = _pair(values["dilation"])
            total = [0, 0]
            if padding == "same":
                total = [d * (k - 1) for d, k in zip(dilation, weight[2:], strict=True)]
            padding = [amount // 2 for amount in total]
            bottom, right = (amount % 2 for amount in total)
            if bottom or right:
                source = insert_call(
                    node, _aten.pad.default, (source, [0, right, 0, bottom], "constant", 0.0), node
                )
        node.target = _aten.conv2d.default
        node.args = (
            source,
            values["weight"],
            values["bias"],
            _pair(values["stride"]),
            _pair(padding),
            _pair(values["dilation"]),
            values["groups"],
        )
        node.kwargs = {}


def fold_padding(module: fx.GraphModule) -> None:
    """Moves zero padding into the convolutions that follow it, in place; exact.

    ``constant_pad_nd`` and ``pad`` of the last two dimensions by zeros become
    ``aten.pad(x, [left, right, top, bottom], "constant", 0.0)``; two in a row become one. Where
    the amounts are symmetric and only convolutions read the result, their padding grows instead
    and the pad goes. Asymmetric ones stay.

    Args:
        module: A functional graph of ATen calls, after :func:`normalize_convolutions`.
    """
    for node in list(module.graph.nodes):
        amounts = zero_padding(node)
        if amounts is None:
            continue
        source = node.args[0]
        assert isinstance(source, fx.Node)
        inner = zero_padding(source)
        if inner is not None and min(*inner, *amounts) >= 0:
            amounts = [a + b for a, b in zip(inner, amounts, strict=True)]
            source = source.args[0]
        node.target = _aten.pad.default
        node.args, node.kwargs = (source, amounts, "constant", 0.0), {}
        refresh(node)
    for node in module.graph.find_nodes(op="call_function", target=_aten.pad.default):
        amounts = zero_padding(node)
        if amounts is not None and _is_foldable(node, amounts):
            left, _, top, _ = amounts
            for conv in list(node.users):
                args = list(conv.args)
                assert isinstance(args[4], (list, tuple))
                args[4] = [args[4][0] + top, args[4][1] + left]
                conv.args = tuple(args)
            replace(node, node.args[0])
    module.graph.eliminate_dead_code()


def zero_padding(node: object) -> list[int] | None:
    """``[left, right, top, bottom]`` if ``node`` pads a rank-4 tensor's image with zeros."""
    if not is_call(node, _aten.pad.default, _aten.constant_pad_nd.default):
        return None
    assert isinstance(node, fx.Node)
    values = arguments(node)
    amounts = list(values["pad"])
    if values.get("mode", "constant") != "constant" or values["value"] not in (None, 0, 0.0):
        return None
    if len(shape_of(values["self"]) or ()) != 4 or any(amounts[4:]):
        return None
    if not all(isinstance(amount, int) for amount in amounts):
        return None
    return [*amounts, 0, 0, 0, 0][:4]


def _is_foldable(pad: fx.Node, amounts: list[int]) -> bool:
    left, right, top, bottom = amounts
    return (
        left == right >= 0
        and top == bottom >= 0
        and bool(pad.users)
        and all(
            is_call(user, _aten.conv2d.default)
            and user.args[0] is pad
            and user.args.count(pad) == 1
            and len(user.args) == 7
            for user in pad.users
        )
    )


def _pair(value: Any) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values
