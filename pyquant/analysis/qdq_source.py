"""The layers' values in a q/dq graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, fx

from pyquant.analysis.graph_runner import GraphRunner
from pyquant.analysis.values import Grid, NamedValue, distinct_scales
from pyquant.ir.quantized_graph import QuantizedGraph
from pyquant.quantization.named_layers import Layer


class QdqSource:
    """A q/dq graph. The value of a quantized node is the one behind its first dequantize node."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.graph = QuantizedGraph(module)
        self.runner = GraphRunner(module)
        self.grids: dict[str, Grid] = {}
        self._shown: dict[fx.Node, str] = {}  # the node that shows the value of the named one
        for node in self.runner.nodes:
            if self.graph.is_quantize(node):
                self.grids.setdefault(_source(node).name, self._grid(node))
        for node in self.runner.nodes:
            quantized = self.graph.is_dequantize(node)
            name = _source(_source(node)).name if quantized else node.name
            if (quantized or name not in self.grids) and name not in self._shown.values():
                self._shown[node] = name
        self.names = set(self._shown.values())
        self._nodes = {node.name: node for node in self.runner.nodes}

    def values(self, inputs: Sequence[Tensor]) -> Iterator[NamedValue]:
        """See :class:`ValueSource`."""
        values = self.runner.start(inputs)
        for index in self.runner.run(values):
            node = self.runner.nodes[index]
            if node in self._shown and isinstance(values[node], Tensor):
                yield self._shown[node], values[node]

    def weight_scales(self, layer: Layer) -> tuple[float, ...]:
        """See :class:`ValueSource`."""
        node = self._nodes.get(layer.first.name)
        if node is None or layer.weight is None:
            return ()
        weight = self.graph.weight(node.args[1], layer.output_axis)
        return () if weight is None else distinct_scales(weight.scales)

    def is_int8(self, layer: Layer) -> bool:
        """See :class:`ValueSource`."""
        if not (layer.has_pattern and self.reads(layer)):
            return False
        if layer.weight is not None:
            return bool(self.weight_scales(layer))
        return layer.last.name in self.grids

    def reads(self, layer: Layer) -> dict[str, Grid]:
        """See :class:`ValueSource`."""
        node = self._nodes.get(layer.first.name)
        found: dict[str, Grid] = {}
        for argument in node.all_input_nodes if node is not None else ():
            if self.graph.is_dequantize(argument):
                found[_source(_source(argument)).name] = self._grid(argument)
            elif not self.graph.is_constant(argument):
                return {}
        return found

    def constants(self, layer: Layer) -> dict[int, Tensor]:
        """See :class:`ValueSource`."""
        if layer.weight is None:
            return {}
        arguments = enumerate(self._nodes[layer.first.name].args)
        return {
            position: self.graph.constant(argument)
            for position, argument in arguments
            if isinstance(argument, fx.Node) and self.graph.is_constant(argument)
        }

    def _grid(self, node: fx.Node) -> Grid:
        qparams = self.graph.qparams(node)
        return Grid(qparams.scale, qparams.zero_point, qparams.low, qparams.high)


def _source(node: fx.Node) -> fx.Node:
    """What a quantize or dequantize node reads."""
    return node.all_input_nodes[0]
