"""Batch norm in eval mode becomes part of the convolution or linear layer before it.

torchao's own folding changes results where a convolution has other readers besides the batch norm
or shares its weight with another layer; this one makes a weight per use, and turns a batch norm
that nothing can absorb into a depthwise 1x1 convolution, which can be quantized.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from pyquant.capture.node import (
    WEIGHTED,
    arguments,
    get_constant,
    insert_call,
    insert_constant,
    is_call,
    replace,
    shape_of,
)

_aten = torch.ops.aten
#: Where a layer's node keeps its :class:`FoldedBatchNorm`.
FOLDED_KEY = "pyquant_folded_batch_norm"
_BATCH_NORMS = (_aten.batch_norm.default, _aten._native_batch_norm_legit_no_training.default)


@dataclass(frozen=True)
class FoldedBatchNorm:
    """What a layer was before a batch norm was folded into it; the names are those of ``get_attr``.

    Attributes:
        weight: The layer's weight.
        bias: Its bias, if it had one.
        norm: The batch norm's arguments by name, tensors as their names.
    """

    weight: str
    bias: str | None
    norm: dict[str, Any]


def fold_batch_norm(module: fx.GraphModule, *, for_training: bool = False) -> None:
    """Removes every batch norm with constant statistics from the graph, in place.

    Each layer's node keeps in its metadata what it was before.

    Args:
        module: A captured graph. Its own parameters may be the user's: they are not changed.
        for_training: Leave those that would become operators of their own, but for images, where
            that is a convolution.
    """
    for node in list(module.graph.nodes):
        if not is_call(node, *_BATCH_NORMS) or arguments(node).get("training", False):
            continue
        if not _is_constant(module, node) or _result(node) is None:
            continue
        result = _result(node)
        source = node.args[0]
        assert isinstance(source, fx.Node) and result is not None
        taken = for_training and FOLDED_KEY in source.meta  # each is trained by itself
        if _absorbs(module, source) and not taken:
            _fold(module, source, node)
            replacement = source
        elif len(shape_of(source) or ()) == 4:
            replacement = _unit_convolution(module, result, source)
            _fold(module, replacement, node)
        elif for_training:
            continue
        else:
            replacement = _product_and_sum(module, result, source, node)
        replace(result, replacement)
        if result is not node:
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def affine(
    mean: torch.Tensor,
    variance: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift per channel of a batch norm in eval mode, float64 ``[C]`` each."""
    scale = torch.rsqrt(variance.double() + eps)
    if weight is not None:
        scale = scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def fold(
    target: object,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a layer that is followed by an affine map, of the weight's dtype.

    Args:
        target: The layer's operator, one of ``WEIGHTED``.
        weight: Its weight.
        bias: Its bias ``[O]``; ``None`` for zeros.
        scale: float64 ``[O]``.
        shift: float64 ``[O]``.
    """
    folded = weight * per_output(target, weight, scale)
    return folded.to(weight.dtype), (shift if bias is None else bias * scale + shift).to(
        weight.dtype
    )


def per_output(target: object, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """``scale``, ``[O]``, in a shape that multiplies the output channels of ``weight``."""
    if target is not _aten.conv_transpose2d.input:
        return scale.reshape(-1, *[1] * (weight.dim() - 1))
    # [I, O / groups, kH, kW]: the inputs of each group meet its own outputs.
    inputs, outputs = weight.shape[:2]
    groups = scale.numel() // outputs
    by_group = scale.reshape(groups, 1, outputs, 1, 1)
    return by_group.expand(groups, inputs // groups, outputs, 1, 1).reshape(inputs, outputs, 1, 1)


def _is_constant(module: fx.GraphModule, norm: fx.Node) -> bool:
    values = arguments(norm)
    return all(
        get_constant(module, values[name]) is not None for name in ("running_mean", "running_var")
    )


def _affine(module: fx.GraphModule, norm: fx.Node) -> tuple[torch.Tensor, torch.Tensor]:
    values = arguments(norm)
    names = ("running_mean", "running_var", "weight", "bias")
    mean, variance, *parameters = (get_constant(module, values[name]) for name in names)
    assert mean is not None and variance is not None
    with torch.no_grad():
        return affine(mean, variance, parameters[0], parameters[1], values["eps"])


def _result(node: fx.Node) -> fx.Node | None:
    """The node that stands for the normalised tensor."""
    if is_call(node, _aten.batch_norm.default):
        return node
    users = [user for user in node.users if user.target is operator.getitem]
    return users[0] if len(users) == 1 and users[0].args[1] == 0 else None


def _absorbs(module: fx.GraphModule, source: fx.Node) -> bool:
    if len(source.users) != 1 or not is_call(source, *WEIGHTED):
        return False
    if is_call(source, _aten.linear.default) and len(shape_of(source) or ()) != 2:
        return False  # the channels of a rank-3 batch norm are not the features
    values = arguments(source)
    if values["bias"] is not None and get_constant(module, values["bias"]) is None:
        return False
    return get_constant(module, values["weight"]) is not None


def _fold(module: fx.GraphModule, layer: fx.Node, norm: fx.Node) -> None:
    """Gives ``layer`` a weight and a bias of its own with the batch norm in them."""
    values = arguments(layer)
    weight, bias = values["weight"], values["bias"]
    weight_value, bias_value = get_constant(module, weight), get_constant(module, bias)
    assert weight_value is not None
    with torch.no_grad():
        constants = fold(layer.target, weight_value, bias_value, *_affine(module, norm))
    layer.meta[FOLDED_KEY] = FoldedBatchNorm(
        str(weight.target),
        None if bias is None else str(bias.target),
        {
            name: str(value.target) if isinstance(value, fx.Node) else value
            for name, value in arguments(norm).items()
            if name != "input"
        },
    )
    args: list[Any] = list(layer.args) + [None] * (3 - len(layer.args))
    args[1] = insert_constant(module, layer, f"{weight.target}_folded", constants[0])
    args[2] = insert_constant(module, layer, f"{weight.target}_folded_bias", constants[1])
    layer.args = tuple(args)


def _unit_convolution(module: fx.GraphModule, result: fx.Node, source: fx.Node) -> fx.Node:
    """A depthwise 1x1 convolution of ones, for the batch norm of an image."""
    shape = shape_of(source)
    assert shape is not None
    ones = insert_constant(module, result, f"{result.name}_scale", torch.ones(shape[1], 1, 1, 1))
    args = (source, ones, None, [1, 1], [0, 0], [1, 1], shape[1])
    return insert_call(result, _aten.conv2d.default, args, result)


def _product_and_sum(
    module: fx.GraphModule, result: fx.Node, source: fx.Node, norm: fx.Node
) -> fx.Node:
    """A multiplication and a sum, for the batch norm of anything else."""
    scale, shift = _affine(module, norm)
    shape = [-1] + [1] * max(len(shape_of(source) or ()) - 2, 0)
    factor = insert_constant(module, result, f"{result.name}_scale", scale.float().reshape(shape))
    term = insert_constant(module, result, f"{result.name}_shift", shift.float().reshape(shape))
    product = insert_call(result, _aten.mul.Tensor, (source, factor), result)
    return insert_call(result, _aten.add.Tensor, (product, term), result)
