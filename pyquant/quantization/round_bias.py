"""Biases on the grid that integer runtimes round them to.

Every int8 runtime holds a bias as int32 at scale ``s_x * s_w[c]``. Rounding it in the graph already
makes the q/dq graph, the Program and the phone files agree on it; a float bias in the graph would
turn results near a tie in some of them and not in others.
"""

from __future__ import annotations

import torch
from torch import fx

from pyquant.capture.node import WEIGHTED, get_constant, insert_constant, is_call

#: Beyond this the bias leaves no room in an int32 accumulator; lowering sees to such channels.
_LIMIT = 2.0**30


def round_biases(module: fx.GraphModule) -> None:
    """Rounds the bias of every quantized convolution and linear layer, in place.

    Args:
        module: A converted (q/dq) graph. Biases are float32 ``[O]`` before and after.
    """
    for node in list(module.graph.nodes):
        if not is_call(node, *WEIGHTED) or len(node.args) < 3:
            continue
        bias = get_constant(module, node.args[2])
        scale = _bias_scale(module, node)
        if bias is None or scale is None:
            continue
        if scale.numel() > 1:  # of a grouped transposed convolution: all groups have the same
            scale = scale.repeat(bias.numel() // scale.numel())
        steps = bias.double() / scale
        rounded = torch.where(steps.abs() < _LIMIT, steps.round() * scale, bias.double()).float()
        # A bias that another layer shares has another grid there, hence a constant of its own.
        constant = insert_constant(module, node, f"{node.name}_bias", rounded)
        node.update_arg(2, constant)
    module.graph.eliminate_dead_code()
    module.delete_all_unused_submodules()
    module.recompile()


def _bias_scale(module: fx.GraphModule, node: fx.Node) -> torch.Tensor | None:
    """``s_x * s_w``, float64 ``[O]`` or scalar; ``None`` unless both operands are quantized."""
    scales = []
    for operand in node.args[:2]:
        if not isinstance(operand, fx.Node) or "dequantize_per_" not in str(operand.target):
            return None
        scale = operand.args[1]
        constant = get_constant(module, scale) if isinstance(scale, fx.Node) else scale
        if constant is None:
            return None
        scales.append(torch.as_tensor(constant, dtype=torch.float64))
    return scales[0] * scales[1]
