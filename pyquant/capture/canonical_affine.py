"""A factor and a sum per channel, as frozen batch norms compute, become a batch norm."""

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
    """Rewrites ``x * scale + shift`` of an image by constants ``[1, C, 1, 1]``, in place.

    It becomes ``aten.batch_norm`` with mean 0 and variance 1, which is the same up to how torch
    rounds, and is then treated like any other: folded into the convolution in front of it.

    Args:
        module: A functional graph of ATen calls, after ``fold_constants``.
    """
    for node in module.graph.find_nodes(op="call_function", target=_aten.add.Tensor):
        total = _operands(module, node)
        if total is None or node.kwargs.get("alpha", 1) != 1:
            continue
        product, shift = total
        if not is_call(product, _aten.mul.Tensor) or len(product.users) != 1:
            continue
        factors = _operands(module, product)
        if factors is None:
            continue
        source, scale = factors
        values = (scale, shift, torch.zeros_like(scale), torch.ones_like(scale))
        constants = [
            insert_constant(module, node, f"{node.name}_{name}", value)
            for name, value in zip(("scale", "shift", "mean", "var"), values, strict=True)
        ]
        args = (source, *constants, False, 0.0, 0.0, False)
        replace(node, insert_call(node, _aten.batch_norm.default, args, node))
    module.graph.eliminate_dead_code()


def _operands(module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node, torch.Tensor] | None:
    """The image and the constant ``[C]`` of a product or sum, in either order."""
    for source, other in (node.args[:2], node.args[1::-1]):
        constant, shape = get_constant(module, other), shape_of(source)
        if not isinstance(source, fx.Node) or constant is None or shape is None:
            continue
        if len(shape) == 4 and constant.shape == (1, shape[1], 1, 1):
            return source, constant.detach().reshape(-1)
    return None
