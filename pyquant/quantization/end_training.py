"""A trained graph becomes what ``prepare`` would have made: operators and observers."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from pyquant.capture.node import get_constant, insert_constant
from pyquant.quantization.dropout import drop_dropouts
from pyquant.quantization.fold_batch_norm import fold_batch_norm
from pyquant.quantization.freezable import Freezable
from pyquant.quantization.normalized_layer import NormalizedLayer, TrainedBatchNorm

_aten = torch.ops.aten


def end_training(prepared: fx.GraphModule) -> None:
    """Puts operators with folded weights in the place of the modules that are trained, in place.

    Args:
        prepared: A graph of ``prepare`` or ``prepare_qat``; one of ``prepare`` stays as it is.
    """
    if not any(isinstance(module, Freezable) for module in prepared.modules()):
        return
    prepared.eval()
    drop_dropouts(prepared)
    for node in prepared.graph.find_nodes(op="call_module"):
        module = prepared.get_submodule(str(node.target))
        if isinstance(module, NormalizedLayer):
            _fold(prepared, node, module)
        elif isinstance(module, TrainedBatchNorm):
            source, mean, variance, weight, bias, _ = node.args
            settings = (False, 0.0, module.eps, False)
            become(node, _aten.batch_norm.default, source, weight, bias, mean, variance, *settings)
    fold_batch_norm(prepared)
    prepared.delete_all_unused_submodules()
    prepared.recompile()


def become(node: fx.Node, target: Any, *args: Any) -> None:
    """Turns ``node`` into another call in place: it keeps its name and its readers.

    Args:
        node: Any call.
        target: An operator, or the name of a module.
        args: The arguments.
    """
    node.op = "call_module" if isinstance(target, str) else "call_function"
    node.target = target
    node.args = args
    node.kwargs = {}


def _fold(prepared: fx.GraphModule, node: fx.Node, layer: NormalizedLayer) -> None:
    source, *operands = node.args
    with torch.no_grad():
        weight, bias, *norm = (get_constant(prepared, operand) for operand in operands[:6])
        assert weight is not None
        folded = layer.folded(weight, bias, *norm)
    operand = insert_constant(prepared, node, f"{node.name}_weight", folded[0])
    constant = insert_constant(prepared, node, f"{node.name}_bias", folded[1])
    if layer.weight_fake_quantize is not None:
        name = f"{operand.target}_fake_quantize"
        prepared.add_submodule(name, layer.weight_fake_quantize)
        with prepared.graph.inserting_before(node):
            operand = prepared.graph.call_module(name, (operand,))
    become(node, layer.target, source, operand, constant, *layer.settings)
