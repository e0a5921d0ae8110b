"""Factors and terms per channel, as frozen batch norms compute, become batch norms."""

from __future__ import annotations

import torch
from torch import fx

from pyquant.capture.node import (
    get_constant,
    insert_call,
    insert_constant,
    is_call,
    replace,
    shape_of,
)

_aten = torch.ops.aten


def canonicalize_affine(module: fx.GraphModule) -> None:
    """Rewrites ``x * scale + shift``, ``x * scale`` and ``x + shift`` of an image, in place, where
    scale and shift are constants ``[C, 1, 1]`` or ``[1, C, 1, 1]``.

    They become ``aten.batch_norm`` with mean 0 and variance 1, which is the same up to how torch
    rounds, and is then treated like any other: folded into the convolution in front of it.

    Args:
        module: A functional graph of ATen calls, after ``fold_constants``.
    """
    for node in module.graph.find_nodes(op="call_function", target=_aten.add.Tensor):
        total = _operands(module, node)
        if total is None:
            continue
        product, shift = total
        factors = _operands(module, product) if is_call(product, _aten.mul.Tensor) else None
        if factors is not None and len(product.users) == 1:
            source, scale = factors
            replace(node, insert_norm(module, node, source, scale, shift))
        elif shift.numel() > 1:  # else it is a table
            replace(node, insert_norm(module, node, product, torch.ones_like(shift), shift))
    module.graph.eliminate_dead_code()
    for node in module.graph.find_nodes(op="call_function", target=_aten.mul.Tensor):
        factors = _operands(module, node)
        if factors is not None and factors[1].numel() > 1:
            source, scale = factors
            replace(node, insert_norm(module, node, source, scale, torch.zeros_like(scale)))


def insert_norm(
    module: fx.GraphModule,
    before: fx.Node,
    source: fx.Node,
    scale: torch.Tensor,
    shift: torch.Tensor,
) -> fx.Node:
    """Inserts ``source * scale + shift`` as a batch norm.

    Args:
        module: The graph's owner.
        before: The node that stands for the result, or for something computed from it.
        source: The tensor; its channels are its second dimension.
        scale: ``[C]``; what is inserted needs a gradient if this does.
        shift: ``[C]``, as well.

    Returns:
        The batch norm.
    """
    values = (scale, shift, torch.zeros_like(scale), torch.ones_like(scale))
    constants = []
    for name, value in zip(("scale", "shift", "mean", "var"), values, strict=True):
        constants.append(insert_constant(module, before, f"{before.name}_{name}", value))
        inserted = get_constant(module, constants[-1])
        assert inserted is not None
        inserted.requires_grad_(value.requires_grad)
    args = (source, *constants, False, 0.0, 0.0, False)
    return insert_call(before, _aten.batch_norm.default, args, before)


def _operands(module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, torch.Tensor] | None:
    """The image and the constant ``[C]`` of a product or sum, in either order."""
    if node.kwargs.get("alpha", 1) != 1:
        return None
    for source, other in (node.args[:2], node.args[1::-1]):
        constant, shape = get_constant(module, other), shape_of(source)
        if not isinstance(source, fx.Node) or constant is None or shape is None:
            continue
        if len(shape) == 4 and constant.shape in ((1, shape[1], 1, 1), (shape[1], 1, 1)):
            return source, constant.reshape(-1)
    return None
