"""An observed graph run as float and as quantized side by side, with a stop at each layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from pyquant.capture.node import get_constant
from pyquant.quantization.weighted_layers import WeightedLayer, fake_quantize, weighted_layers

#: What a node yields for each batch.
_Values = list[Any]


@dataclass(frozen=True)
class Stop:
    """A layer that is about to run in the quantized network, and has run in the float one.

    Attributes:
        layer: The layer; what is done to it has effect on the rest of the quantized run.
        float_inputs: What it read in the float network, a tensor for each batch.
        quantized_inputs: What it is going to read in the quantized one.
    """

    layer: WeightedLayer
    float_inputs: list[torch.Tensor]
    quantized_inputs: list[torch.Tensor]


def twin_run(
    prepared: fx.GraphModule, batches: Sequence[tuple[torch.Tensor, ...]]
) -> Iterator[Stop]:
    """Runs a calibrated graph node by node on all batches, and stops at each quantized layer.

    A value is forgotten after its last reader, so memory holds the batches' activations at one
    place of the network, twice.

    Args:
        prepared: A calibrated graph.
        batches: The inputs of its calls.
    """
    layers = {layer.node: layer for layer in weighted_layers(prepared)}
    nodes = list(prepared.graph.nodes)
    last_reader = {source: node for node in nodes for source in node.all_input_nodes}
    float_run, quantized_run = _Run(prepared), _QuantizedRun(prepared)
    for index, node in enumerate(prepared.graph.find_nodes(op="placeholder")):
        for run in (float_run, quantized_run):
            run.values[node] = [batch[index] for batch in batches]
    for node in nodes:
        if node.op in ("output", "placeholder") or _is_constant(node):
            continue
        float_run.step(node)
        if node in layers:
            layer = layers[node]
            source = layer.source
            yield Stop(layer, float_run.values[source], quantized_run.values[source])
        quantized_run.step(node)
        for source in node.all_input_nodes:
            if last_reader.get(source) is node:
                float_run.values.pop(source, None)
                quantized_run.values.pop(source, None)


class _Run:
    """The float network: observers pass on what they see."""

    def __init__(self, prepared: fx.GraphModule) -> None:
        self.prepared = prepared
        self.values: dict[fx.Node, _Values] = {}

    def step(self, node: fx.Node) -> None:
        """Computes the values of ``node``."""
        if node.op == "call_module":
            observer = self.prepared.get_submodule(str(node.target))
            source = node.all_input_nodes[0]
            self.values[node] = [self.observe(observer, value) for value in self.values[source]]
            return
        # Read now and not when their own nodes would run: a layer may just have changed them.
        constants = {
            source: self._constant(source)
            for source in node.all_input_nodes
            if _is_constant(source)
        }
        activations = [source for source in node.all_input_nodes if source not in constants]
        results = []
        with torch.no_grad():
            for row in zip(*(self.values[source] for source in activations), strict=True):
                known = {**constants, **dict(zip(activations, row, strict=True))}
                args = fx.map_arg(node.args, known.__getitem__)
                kwargs = fx.map_arg(node.kwargs, known.__getitem__)
                results.append(node.target(*args, **kwargs))  # type: ignore[operator]
        self.values[node] = results

    def observe(self, observer: Any, value: torch.Tensor) -> torch.Tensor:
        """What an observer makes of ``value``."""
        return value

    def _constant(self, node: fx.Node) -> torch.Tensor:
        if node.op == "call_module":
            observer = self.prepared.get_submodule(str(node.target))
            return self.observe(observer, self._constant(node.all_input_nodes[0]))
        value = get_constant(self.prepared, node)
        assert value is not None
        return value.detach()


class _QuantizedRun(_Run):
    """The quantized network: observers quantize and dequantize."""

    def observe(self, observer: Any, value: torch.Tensor) -> torch.Tensor:
        """``value`` on the observer's grid; other modules pass it on."""
        if not hasattr(observer, "calculate_qparams"):
            return value
        with torch.no_grad():
            return fake_quantize(observer, value.detach())


def _is_constant(node: fx.Node) -> bool:
    while node.op == "call_module":
        node = node.all_input_nodes[0]
    return node.op == "get_attr"
