"""Expansions in front of operators that broadcast by themselves disappear."""

from __future__ import annotations

import torch
from torch import fx

from pyquant.capture.node import is_call, shape_of

_aten = torch.ops.aten
_EXPANSIONS = (_aten.expand.default, _aten.expand_as.default)
_BROADCASTING = (_aten.mul.Tensor, _aten.add.Tensor, _aten.sub.Tensor, _aten.div.Tensor)


def remove_expand(module: fx.GraphModule) -> None:
    """Lets elementwise operators read the tensor behind an expansion, in place, if it has the same
    rank and the result keeps its shape: ``x * gate.expand_as(x)`` becomes ``x * gate``.

    Args:
        module: A functional graph of ATen calls.
    """
    for node in module.graph.nodes:
        if not is_call(node, *_BROADCASTING):
            continue
        for operand in node.all_input_nodes:
            if not is_call(operand, *_EXPANSIONS):
                continue
            source = operand.args[0]
            others = [n for n in node.all_input_nodes if n is not operand]
            shapes = [shape_of(n) for n in (source, *others)]
            if shape_of(node) in shapes[1:] and len(shapes[0] or ()) == len(shape_of(node) or ()):
                node.replace_input_with(operand, source)
    module.graph.eliminate_dead_code()
