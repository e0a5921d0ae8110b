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
from torch import Tensor

from pyquant.analysis.graph_runner import GraphRunner
from pyquant.quantization.named_layers import Layer

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

    def reads(self, layer: Layer) -> Mapping[str, Grid]:
        """The grid of each of the layer's inputs, by name; empty if one of them is float32."""

    def constants(self, layer: Layer) -> Mapping[int, Tensor]:
        """The weight and the bias of a quantized layer as it computes with them, float32, by their
        position among the arguments of its first call.
        """


def float_values(runner: GraphRunner, inputs: Sequence[Tensor]) -> Iterator[NamedValue]:
    """All tensors of a float graph."""
    values = runner.start(inputs)
    for index in runner.run(values):
        node = runner.nodes[index]
        if isinstance(values[node], Tensor):
            yield node.name, values[node]


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


def distinct_scales(values: npt.NDArray[np.float32]) -> tuple[float, ...]:
    """One if all are the same."""
    scales = tuple(float(value) for value in values)
    return scales[:1] if len(set(scales)) == 1 else scales
