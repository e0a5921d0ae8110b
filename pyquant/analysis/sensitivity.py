"""Each layer's own contribution to the error: one layer quantized, all others float32."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pyquant.analysis.graph_runner import GraphRunner
from pyquant.analysis.sqnr import ErrorSums
from pyquant.analysis.values import Grid, ValueSource
from pyquant.quantization.named_layers import Layer


class Sensitivity:
    """The error of the model's outputs for each int8 layer by itself.

    Of such a layer the inputs, the weight, the bias and the output are what the quantized model
    makes of them. The float graph runs once; at each layer a second run branches off and goes to
    the end, so a batch costs half as many runs as there are layers.

    Args:
        floats: The float graph.
        quantized: The quantized model of the same nodes.
        layers: Of the float graph; those that stayed float32 are passed over.
    """

    def __init__(
        self, floats: GraphRunner, quantized: ValueSource, layers: Sequence[Layer]
    ) -> None:
        self._floats = floats
        self._quantized = quantized
        self.layers = [
            layer for layer in layers if quantized.is_int8(layer) and quantized.reads(layer)
        ]
        self._constants = {layer.name: quantized.constants(layer) for layer in self.layers}
        self._sums = {layer.name: ErrorSums() for layer in self.layers}

    def add(self, inputs: Sequence[Tensor]) -> Iterator[None]:
        """Takes one more batch; a step for each of ``layers``."""
        runner = self._floats
        by_node = {layer.first: layer for layer in self.layers}
        expected = runner.finish(runner.start(inputs))
        values = runner.start(inputs)
        for index in runner.run(values):
            layer = by_node.get(runner.nodes[index])
            if layer is None:
                continue
            branch = dict(values)
            branch[layer.last] = self._alone(layer, values)
            outputs = runner.finish(branch, index + 1, skip=set(layer.nodes))
            for truth, found in zip(expected, outputs, strict=True):
                self._sums[layer.name].add(truth, found)
            yield

    def result(self) -> dict[str, float]:
        """SQNR of the model's outputs in dB, by the name of the one layer that is quantized."""
        return {name: sums.sqnr for name, sums in self._sums.items()}

    def _alone(self, layer: Layer, values: Mapping[fx.Node, Any]) -> Tensor:
        """The output of ``layer`` as the quantized model would compute it from float inputs."""
        reads = self._quantized.reads(layer)
        constants = self._constants[layer.name]
        inside: dict[fx.Node, Any] = {}

        def value(node: fx.Node) -> Any:
            if node in inside:
                return inside[node]
            if node.op == "get_attr":
                return operator.attrgetter(str(node.target))(self._floats.module)
            return _round_to(values[node], reads.get(node.name))

        with torch.no_grad():
            for node in layer.nodes:
                args = list(fx.map_arg(node.args, value))
                if node is layer.first:
                    args += [None] * (max(constants, default=0) + 1 - len(args))
                    for position, constant in constants.items():
                        args[position] = constant
                assert callable(node.target)
                inside[node] = node.target(*args, **fx.map_arg(node.kwargs, value))
        grid = self._quantized.grids.get(layer.last.name)
        result: Tensor = _round_to(inside[layer.last], grid)
        return result


def _round_to(value: Any, grid: Grid | None) -> Any:
    if grid is None or not isinstance(value, Tensor):
        return value
    return torch.fake_quantize_per_tensor_affine(
        value, grid.scale, grid.zero_point, grid.low, grid.high
    )
