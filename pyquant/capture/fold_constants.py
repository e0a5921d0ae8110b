"""Values that depend on parameters only are computed once."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from pyquant.capture.node import get_constant, insert_constant, replace, value_of


def fold_constants(module: fx.GraphModule) -> None:
    """Replaces calls whose inputs are all parameters or constants by their value, in place.

    So weight normalisation, standardised weights and other parametrizations become plain weights.
    Calls without inputs (random numbers), calls that write somewhere, and dequantized weights stay.

    Args:
        module: A functional graph of ATen calls.
    """
    mutated = {
        node.args[0]
        for node in module.graph.nodes
        if isinstance(node.target, OpOverload) and node.target._schema.is_mutable and node.args
    }
    for node in list(module.graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, OpOverload):
            continue
        inputs = node.all_input_nodes
        if not inputs or value_of(node) is None or node.target._schema.is_mutable:
            continue
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            continue
        if node.target.namespace == "quantized_decomposed":
            continue
        if any(n in mutated or get_constant(module, n) is None for n in inputs):
            continue

        def constant(argument: fx.Node) -> Any:
            return get_constant(module, argument)

        with torch.no_grad():
            value = node.target(
                *fx.map_arg(node.args, constant), **fx.map_arg(node.kwargs, constant)
            )
        if not value.is_floating_point():
            continue
        replace(node, insert_constant(module, node, f"{node.name}_folded", value))
    module.graph.eliminate_dead_code()
