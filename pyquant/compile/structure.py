"""When two graphs are the same."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable
from typing import Any

import torch
from torch import fx

from pyquant.capture.node import get_constant


def structure(module: fx.GraphModule, *, sizes: bool) -> Hashable:
    """What a graph does, for comparing: operators, how they are connected, and their arguments.

    Args:
        module: A captured or prepared graph.
        sizes: Whether whole numbers and the values of constants count. With them, graphs of the
            same structure compute the same function. Without them they are one piece of code at
            several input shapes: ``view(1, -1)`` and ``view(8, -1)``.
    """
    index: dict[fx.Node, int] = {}
    modules: dict[str, int] = {}
    rows: list[Hashable] = []

    def literal(value: Any) -> Hashable:
        if isinstance(value, fx.Node):
            return ("node", index[value])
        if isinstance(value, (list, tuple)):
            return tuple(literal(item) for item in value)
        if isinstance(value, dict):
            return tuple((key, literal(item)) for key, item in value.items())
        if isinstance(value, int) and not isinstance(value, bool) and not sizes:
            return "size"
        return repr(value)

    for node in module.graph.nodes:
        index[node] = len(index)
        target: Hashable = str(node.target) if node.op == "call_function" else ""
        if node.op == "get_attr" and sizes:
            constant = get_constant(module, node)
            target = str(node.target) if constant is None else digest(constant)
        elif node.op == "call_module":
            kind = type(module.get_submodule(str(node.target))).__name__
            target = (kind, modules.setdefault(str(node.target), len(modules)))
        rows.append((node.op, target, literal(node.args), literal(node.kwargs)))
    return tuple(rows)


def digest(value: torch.Tensor) -> Hashable:
    """What a tensor holds: equal for tensors of the same values, shape and type."""
    if value.layout != torch.strided or value.is_quantized:
        return id(value)
    flat = value.detach().contiguous().reshape(-1).view(torch.uint8)
    content = hashlib.blake2b(flat.numpy().data, digest_size=16).digest()
    return (tuple(value.shape), value.dtype, content)
