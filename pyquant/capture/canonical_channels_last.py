"""Layers over the last dimension of images become layers over channels, as in convolutions."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import fx
from torch._ops import OpOverload

from pyquant.capture.node import (
    arguments,
    get_constant,
    insert_call,
    insert_constant,
    is_call,
    replace,
    shape_of,
)

_aten = torch.ops.aten
_TO_FRONT, _TO_BACK = [0, 3, 1, 2], [0, 2, 3, 1]
#: Elementwise like those that torch tags so.
_ELEMENTWISE = (_aten.hardswish.default,)

#: Tensors ``[N, H, W, C]`` and the images ``[N, C, H, W]`` of the same values.
_Images: TypeAlias = dict[fx.Node, fx.Node]


def canonicalize_channels_last(module: fx.GraphModule) -> None:
    """Rewrites linear layers over tensors ``[N, H, W, C]``, in place.

    They become 1x1 convolutions, and elementwise operators next to them work on images, too. So the
    permutations in ConvNeXt's blocks stand around the layer norms only.

    Args:
        module: A functional graph of ATen calls whose constants are folded.
    """
    images: _Images = {}
    for node in list(module.graph.nodes):
        if _permutes(node, _TO_BACK):
            images[node] = node.args[0]
        elif _permutes(node, _TO_FRONT) and node.args[0] in images:
            replace(node, images[node.args[0]])
        elif len(shape_of(node) or ()) == 4:
            image = _convolution(module, node, images) or _elementwise(module, node, images)
            if image is not None:
                result = insert_call(node, _aten.permute.default, (image, _TO_BACK), node)
                images[result] = image
                replace(node, result)
    module.graph.eliminate_dead_code()


def _permutes(node: fx.Node, dims: list[int]) -> bool:
    return (
        is_call(node, _aten.permute.default)
        and [dim % len(dims) for dim in arguments(node)["dims"]] == dims
    )


def _convolution(module: fx.GraphModule, node: fx.Node, images: _Images) -> fx.Node | None:
    """A linear layer over images."""
    if not is_call(node, _aten.linear.default):
        return None
    source, weight, bias = arguments(node).values()
    value = get_constant(module, weight)
    if value is None:
        return None
    if source not in images:
        images[source] = insert_call(node, _aten.permute.default, (source, _TO_FRONT), source)
    window = value.detach()[:, :, None, None]
    constant = insert_constant(module, node, f"{weight.target}_2d", window)
    args = (images[source], constant, bias, [1, 1], [0, 0], [1, 1], 1)
    return insert_call(node, _aten.conv2d.default, args, node)


def _elementwise(module: fx.GraphModule, node: fx.Node, images: _Images) -> fx.Node | None:
    """A function of images, of one shape, and of constants of one element."""
    if not isinstance(node.target, OpOverload):
        return None
    if torch.Tag.pointwise not in node.target.tags and not is_call(node, *_ELEMENTWISE):
        return None
    constants = [get_constant(module, operand) for operand in node.all_input_nodes]
    for operand, constant in zip(node.all_input_nodes, constants, strict=True):
        fits = operand in images and shape_of(operand) == shape_of(node)
        if not fits and (constant is None or constant.numel() != 1):
            return None

    def image_of(operand: fx.Node) -> fx.Node:
        return images.get(operand, operand)

    args = fx.map_arg(node.args, image_of)
    return insert_call(node, node.target, args, node, fx.map_arg(node.kwargs, image_of))
