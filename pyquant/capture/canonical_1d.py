"""One-dimensional layers become two-dimensional ones over images of height 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

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
_HEIGHT = 2  # the dimension that [N, C, L] gets
_CONVOLUTIONS: dict[OpOverload, OpOverload] = {
    _aten.conv1d.default: _aten.conv2d.default,
    _aten.conv1d.padding: _aten.conv2d.padding,
    _aten.conv_transpose1d.default: _aten.conv_transpose2d.input,
}
#: Their arguments with a value for each spatial dimension, and what it is for the height.
_PER_DIMENSION = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}
#: Elementwise like those that torch tags so.
_ELEMENTWISE = (_aten.hardswish.default, _aten.batch_norm.default)
_PADS = (_aten.pad.default, _aten.constant_pad_nd.default)
#: These work along their argument ``dim``.
_ALONG_DIM = (_aten.slice.Tensor, _aten.cat.default)


def canonicalize_1d(module: fx.GraphModule) -> None:
    """Rewrites convolutions and pooling over ``[N, C, L]`` with what stands between them, in place.

    The tensor becomes ``[N, C, 1, L]`` by ``aten.unsqueeze(x, 2)`` where the first such layer reads
    it and ``[N, C, L]`` again by ``aten.squeeze(y, [2])`` behind the last. In between, batch norms,
    paddings, slices, concatenations and elementwise operators work on the image.

    Args:
        module: A functional graph of ATen calls whose constants are folded.
    """
    images: dict[fx.Node, fx.Node] = {}  # of tensors [N, C, L], once they have one
    for node in list(module.graph.nodes):
        twin = _twin(module, node, images)
        if twin is None:
            continue
        image = insert_call(node, *twin[:2], node, twin[2])
        result = insert_call(node, _aten.squeeze.dims, (image, [_HEIGHT]), node)
        images[result] = image
        replace(node, result)
    module.graph.eliminate_dead_code()


#: An operator on images and its arguments.
_Call: TypeAlias = tuple[OpOverload, tuple[Any, ...], dict[str, Any]]


def _twin(module: fx.GraphModule, node: fx.Node, images: dict[fx.Node, fx.Node]) -> _Call | None:
    """What ``node`` is over images."""
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return None
    source = node.args[0] if node.args else None
    if isinstance(source, (list, tuple)) and source:
        source = source[0]
    if not isinstance(source, fx.Node) or len(shape_of(source) or ()) != 3:
        return None
    if node.target in _CONVOLUTIONS:
        return _convolution(module, node, _image(node, source, images))
    if node.target in _POOLS and len(shape_of(node) or ()) == 3:
        target, rewrite = _POOLS[node.target]
        return target, (_image(node, source, images), *rewrite(arguments(node))), {}
    if all(operand in images for operand in _activations(node)) and _is_indifferent(node):

        def image_of(operand: fx.Node) -> fx.Node:
            return images.get(operand, operand)

        if node.target in _ALONG_DIM:
            args = _along(arguments(node))
            return node.target, fx.map_arg(args, image_of), {}
        return node.target, fx.map_arg(node.args, image_of), fx.map_arg(node.kwargs, image_of)
    return None


def _along(values: dict[str, Any]) -> tuple[Any, ...]:
    dim = values["dim"] % 3
    return tuple({**values, "dim": dim + (dim >= _HEIGHT)}.values())


def _image(node: fx.Node, source: fx.Node, images: dict[fx.Node, fx.Node]) -> fx.Node:
    if source not in images:
        images[source] = insert_call(node, _aten.unsqueeze.default, (source, _HEIGHT), source)
    return images[source]


def _convolution(module: fx.GraphModule, node: fx.Node, image: fx.Node) -> _Call | None:
    assert isinstance(node.target, OpOverload)
    values = arguments(node)
    weight = get_constant(module, values["weight"])
    if weight is None:
        return None
    name = str(values["weight"].target)
    constant = insert_constant(module, node, f"{name}_2d", weight.detach().unsqueeze(_HEIGHT))
    rest = (
        _pair(value, _PER_DIMENSION[key])
        if key in _PER_DIMENSION and not isinstance(value, str)
        else value
        for key, value in values.items()
        if key not in ("input", "weight")
    )
    args = (image, constant, *rest)
    return _CONVOLUTIONS[node.target], args, {}


def _activations(node: fx.Node) -> list[fx.Node]:
    """The inputs that are no constants per channel of a batch norm."""
    if is_call(node, _aten.batch_norm.default):
        return node.all_input_nodes[:1]
    return node.all_input_nodes


def _is_indifferent(node: fx.Node) -> bool:
    """Whether ``node`` means the same with a dimension more in front of the last one."""
    if is_call(node, *_PADS):
        return len(arguments(node)["pad"]) == 2
    assert isinstance(node.target, OpOverload)
    return is_call(node, *_ELEMENTWISE, *_ALONG_DIM) or torch.Tag.pointwise in node.target.tags


def _pair(value: Any, height: int) -> list[int]:
    length = value if isinstance(value, int) else value[0]
    return [height, length]


def _stride(values: dict[str, Any]) -> list[int]:
    return _pair(values["stride"] or values["kernel_size"], 1)


#: operator: its twin over images, and that one's arguments behind the first.
_POOLS: dict[OpOverload, tuple[OpOverload, Callable[[dict[str, Any]], tuple[Any, ...]]]] = {
    _aten.max_pool1d.default: (
        _aten.max_pool2d.default,
        lambda values: (
            _pair(values["kernel_size"], 1),
            _stride(values),
            _pair(values["padding"], 0),
            _pair(values["dilation"], 1),
            values["ceil_mode"],
        ),
    ),
    _aten.avg_pool1d.default: (
        _aten.avg_pool2d.default,
        lambda values: (
            _pair(values["kernel_size"], 1),
            _stride(values),
            _pair(values["padding"], 0),
            values["ceil_mode"],
            values["count_include_pad"],
        ),
    ),
    _aten.adaptive_avg_pool1d.default: (
        _aten.adaptive_avg_pool2d.default,
        lambda values: (_pair(values["output_size"], 1),),
    ),
}
