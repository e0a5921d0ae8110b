"""Batch norm in eval mode becomes part of the convolution or linear layer before it.

torchao's own folding changes results where a convolution has other readers besides the batch norm
or shares its weight with another layer; this one makes a weight per use, and turns a batch norm
that nothing can absorb into a depthwise 1x1 convolution, which can be quantized.
"""

from __future__ import annotations

import operator
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
_BATCH_NORMS = (_aten.batch_norm.default, _aten._native_batch_norm_legit_no_training.default)


def fold_batch_norm(module: fx.GraphModule) -> None:
    """Removes every batch norm with constant statistics from the graph, in place.

    Args:
        module: A captured graph. Its own parameters may be the user's: they are not changed.
    """
    for node in list(module.graph.nodes):
        if not is_call(node, *_BATCH_NORMS) or arguments(node).get("training", False):
            continue
        affine = _affine(module, node)
        result = _result(node)
        if affine is None or result is None:
            continue
        scale, shift = affine
        source = node.args[0]
        assert isinstance(source, fx.Node)
        if _absorbs(module, source):
            _fold(module, source, scale, shift)
            replacement = source
        else:
            replacement = _stand_alone(module, result, source, scale, shift)
        replace(result, replacement)
        if result is not node:
            module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    module.recompile()


def _affine(module: fx.GraphModule, node: fx.Node) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Scale and shift per channel, float32 ``[C]`` each; ``None`` if they are not constant."""
    values = arguments(node)
    mean = get_constant(module, values["running_mean"])
    variance = get_constant(module, values["running_var"])
    if mean is None or variance is None:
        return None
    weight, bias = get_constant(module, values["weight"]), get_constant(module, values["bias"])
    scale = torch.rsqrt(variance.detach().double() + values["eps"])
    if weight is not None:
        scale = scale * weight.detach()
    shift = -mean.detach() * scale
    if bias is not None:
        shift = shift + bias.detach()
    return scale, shift


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


def _fold(module: fx.GraphModule, layer: fx.Node, scale: torch.Tensor, shift: torch.Tensor) -> None:
    """Gives ``layer`` a weight and a bias of its own with the affine map in them."""
    values = arguments(layer)
    weight = get_constant(module, values["weight"])
    assert weight is not None
    bias = get_constant(module, values["bias"])
    new_weight = (weight.detach() * _per_output(layer, weight, scale)).to(weight.dtype)
    new_bias = shift if bias is None else bias.detach() * scale + shift
    name = str(values["weight"].target)
    args: list[Any] = list(layer.args) + [None] * (3 - len(layer.args))
    args[1] = insert_constant(module, layer, f"{name}_folded", new_weight)
    args[2] = insert_constant(module, layer, f"{name}_folded_bias", new_bias.to(weight.dtype))
    layer.args = tuple(args)


def _per_output(layer: fx.Node, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """``scale``, ``[O]``, in a shape that multiplies the output channels of ``weight``."""
    if not is_call(layer, _aten.conv_transpose2d.input):
        return scale.reshape(-1, *[1] * (weight.dim() - 1))
    # [I, O / groups, kH, kW]: the inputs of each group meet its own outputs.
    inputs, outputs = weight.shape[:2]
    groups = scale.numel() // outputs
    by_group = scale.reshape(groups, 1, outputs, 1, 1)
    return by_group.expand(groups, inputs // groups, outputs, 1, 1).reshape(inputs, outputs, 1, 1)


def _stand_alone(
    module: fx.GraphModule,
    norm: fx.Node,
    source: fx.Node,
    scale: torch.Tensor,
    shift: torch.Tensor,
) -> fx.Node:
    """A depthwise 1x1 convolution for images; a multiplication and a sum for other ranks."""
    rank = len(shape_of(source) or ())
    shape = [-1, 1, 1, 1] if rank == 4 else [-1] + [1] * max(rank - 2, 0)
    factor = insert_constant(module, norm, f"{norm.name}_scale", scale.float().reshape(shape))
    if rank == 4:
        bias = insert_constant(module, norm, f"{norm.name}_shift", shift.float())
        args = (source, factor, bias, [1, 1], [0, 0], [1, 1], scale.numel())
        return insert_call(norm, _aten.conv2d.default, args, norm)
    term = insert_constant(module, norm, f"{norm.name}_shift", shift.float().reshape(shape))
    product = insert_call(norm, _aten.mul.Tensor, (source, factor), norm)
    return insert_call(norm, _aten.add.Tensor, (product, term), norm)
