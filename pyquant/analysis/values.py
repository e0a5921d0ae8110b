"""The layers' values in a float graph, a q/dq graph and the runtime, by the names of graph nodes.

Lowering names each node of a Program after the graph's node whose value it computes, so these names
are what all three have in common.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import Tensor, fx

from pyquant.analysis.graph_runner import GraphRunner
from pyquant.ir.ops import Quantize
from pyquant.ir.program import DType, Program
from pyquant.ir.quantized_graph import QuantizedGraph
from pyquant.quantization.layers import Layer
from pyquant.targets import ProgramModule, QuantizedModule

#: The name of a graph's node and its value, float32 in the float model's layout.
NamedValue: TypeAlias = tuple[str, Tensor]


@dataclass(frozen=True)
class Grid:
    """A per-tensor grid in uint8 terms."""

    scale: float
    zero_point: int
    low: int = 0
    high: int = 255

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest number on it."""
        return (self.low - self.zero_point) * self.scale, (self.high - self.zero_point) * self.scale


class ValueSource(Protocol):
    """A model whose inside can be seen."""

    @property
    def grids(self) -> Mapping[str, Grid]:
        """Of the quantized activations, by name."""

    @property
    def names(self) -> Collection[str]:
        """All that :meth:`values` gives."""

    def values(self, inputs: Sequence[Tensor]) -> Iterator[NamedValue]:
        """Runs on ``inputs``; each name comes once."""

    def weight_scales(self, layer: Layer) -> tuple[float, ...]:
        """One, or one per output channel; empty if the weight is float32."""

    def is_int8(self, layer: Layer) -> bool:
        """Whether the layer computes on quantized inputs."""


def float_values(runner: GraphRunner, inputs: Sequence[Tensor]) -> Iterator[NamedValue]:
    """All tensors of a float graph."""
    values = runner.start(inputs)
    for index in runner.run(values):
        node = runner.nodes[index]
        if isinstance(values[node], Tensor):
            yield node.name, values[node]


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
        return () if weight is None else _scales(weight.scales)

    def is_int8(self, layer: Layer) -> bool:
        """See :class:`ValueSource`."""
        if not (layer.has_pattern and self.reads(layer)):
            return False
        if layer.weight is not None:
            return bool(self.weight_scales(layer))
        return layer.last.name in self.grids

    def reads(self, layer: Layer) -> dict[str, Grid]:
        """The grid of each of the layer's inputs, by name; empty if one of them is float32."""
        node = self._nodes.get(layer.first.name)
        found: dict[str, Grid] = {}
        for argument in node.all_input_nodes if node is not None else ():
            if self.graph.is_dequantize(argument):
                found[_source(_source(argument)).name] = self._grid(argument)
            elif not self.graph.is_constant(argument):
                return {}
        return found

    def constants(self, layer: Layer) -> dict[int, Tensor]:
        """The constant tensors among the arguments of the layer's first call, by position; weights
        as they are after dequantization.
        """
        arguments = enumerate(self._nodes[layer.first.name].args)
        return {
            position: self.graph.constant(argument)
            for position, argument in arguments
            if isinstance(argument, fx.Node) and self.graph.is_constant(argument)
        }

    def _grid(self, node: fx.Node) -> Grid:
        qparams = self.graph.qparams(node)
        return Grid(qparams.scale, qparams.zero_point, qparams.low, qparams.high)


class RuntimeSource:
    """What really runs: Programs, and the ATen operators between them."""

    def __init__(self, model: QuantizedModule) -> None:
        self._module = model.module
        self._programs = [module.program for module in model.programs]
        self.grids: dict[str, Grid] = {}
        self.names: set[str] = set()
        self._weights: dict[str, tuple[float, ...]] = {}
        self._computed: set[str] = set()
        for program in self._programs:
            self._read(program)
        if isinstance(self._module, fx.GraphModule):
            self.names.update(node.name for node in self._module.graph.nodes)

    def _read(self, program: Program) -> None:
        for node in program.nodes:
            output = program.tensors[node.output]
            if output.dtype == DType.uint8:
                grid = Grid(float(output.scale[0]), output.zero_point)
                self.grids.setdefault(node.name, grid)
            self.names.add(node.name)
            if not isinstance(node.op, Quantize):
                self._computed.add(node.name)
            weight = program.tensors[node.inputs[1]] if len(node.inputs) == 3 else None
            if weight is not None and weight.dtype == DType.int8:
                self._weights.setdefault(node.name, _scales(weight.scale))

    def values(self, inputs: Sequence[Tensor]) -> Iterator[NamedValue]:
        """See :class:`ValueSource`."""
        seen: set[str] = set()
        for name, value in self._all_values(inputs):
            if name not in seen:
                seen.add(name)
                yield name, value

    def _all_values(self, inputs: Sequence[Tensor]) -> Iterator[NamedValue]:
        if isinstance(self._module, ProgramModule):
            yield from _inside(self._module, inputs)
            return
        assert isinstance(self._module, fx.GraphModule)
        runner = GraphRunner(self._module)
        values = runner.start(inputs)
        for index in runner.run(values):
            node = runner.nodes[index]
            if node.op == "call_module":
                module = self._module.get_submodule(str(node.target))
                if isinstance(module, ProgramModule):
                    yield from _inside(module, [values[source] for source in node.args])  # type: ignore[index]
            elif isinstance(values[node], Tensor):
                yield node.name, values[node]

    def weight_scales(self, layer: Layer) -> tuple[float, ...]:
        """See :class:`ValueSource`."""
        return self._weights.get(layer.last.name, ())

    def is_int8(self, layer: Layer) -> bool:
        """See :class:`ValueSource`."""
        return layer.last.name in self._computed


def _source(node: fx.Node) -> fx.Node:
    """What a quantize or dequantize node reads."""
    return node.all_input_nodes[0]


def _inside(module: ProgramModule, inputs: Sequence[Tensor]) -> Iterator[NamedValue]:
    for value in module.intermediates(*inputs):
        if value.operator != Quantize.__name__:
            yield value.name, value.dequantize()


def _scales(values: npt.NDArray[np.float32]) -> tuple[float, ...]:
    """One if all are the same."""
    scales = tuple(float(value) for value in values)
    return scales[:1] if len(set(scales)) == 1 else scales


def matched(
    expected: Iterator[NamedValue], actual: Iterator[NamedValue], names: Collection[str]
) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Pairs of values of one name, as soon as both are there.

    Args:
        expected, actual: Are advanced in turns, so that few values wait if the orders are alike.
        names: The others are passed over.
    """
    waiting: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    sides = [(expected, 0), (actual, 1)]
    while sides:
        for side in list(sides):
            stream, which = side
            item = next((item for item in stream if item[0] in names), None)
            if item is None:
                sides.remove(side)
                continue
            name, value = item
            other = waiting[1 - which].pop(name, None)
            if other is None:
                waiting[which][name] = value
            elif which == 0:
                yield name, value, other
            else:
                yield name, other, value
