"""``import_torch_ao``: from a converted model to a quantized (q/dq) graph."""

from __future__ import annotations

import copy
import importlib
from typing import Any

import torch
from torch import fx, nn

from pyquant.capture.export import as_inputs, canonical_graph
from pyquant.capture.quiet import quiet
from pyquant.errors import CaptureError
from pyquant.torch_ao.trace import on_float
from pyquant.torch_ao.unpack import is_converted, unpack


def import_torch_ao(
    model: nn.Module, example_inputs: tuple[Any, ...] | list[Any] | torch.Tensor
) -> fx.GraphModule:
    """Imports a model that ``torch.ao.quantization`` converted, number for number.

    The model is not changed. Its outputs are float tensors also where the model's own would be
    quantized ones.

    Args:
        model: What ``torch.ao.quantization.convert``, ``convert_fx`` or
            ``convert_to_reference_fx`` returned.
        example_inputs: The positional inputs, or one tensor; e.g. float32 ``[1, 3, 224, 224]``.

    Returns:
        The quantized graph (PT2E, q/dq form), as ``pyquant.convert`` returns it: activations with
        the model's scales and zero points, its int8 weights, its float32 biases.

    Raises:
        CaptureError: The model is not converted; or quantized dynamically; it holds an operator
            that has no counterpart; or it does not run on the inputs, or cannot be exported.
    """
    inputs = as_inputs(example_inputs)
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):
        raise CaptureError(
            f"expected a model that torch.ao converted, got {type(model).__name__}; pass the "
            "nn.Module itself, not a TorchScript of it"
        )
    if not any(map(is_converted, model.modules())) and not _is_reference(model):
        raise CaptureError(
            f"{type(model).__name__} holds nothing that torch.ao.quantization converted; pass "
            "float and prepared models to pyquant.quantize"
        )
    if any(isinstance(value, torch.Tensor) and value.is_quantized for value in inputs):
        raise CaptureError("example_inputs must be float tensors, not quantized ones")
    with quiet():
        importlib.import_module("torch.ao.quantization.fx._decomposed")  # quantized_decomposed

        copied = copy.deepcopy(model)
        unpack(copied)
        return canonical_graph(on_float(copied), inputs)


def _is_reference(model: nn.Module) -> bool:
    """Whether it is a graph of ``quantize_per_tensor`` and ``dequantize`` around float modules."""
    return isinstance(model, fx.GraphModule) and any(
        node.target is torch.quantize_per_tensor for node in model.graph.nodes
    )
