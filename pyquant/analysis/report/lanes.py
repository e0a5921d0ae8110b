"""The graph as a list of layers with its edges beside it, as version control shows history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyquant.analysis.analysis import LayerAnalysis

#: Height of a row and distance of two lanes, in CSS pixels.
ROW, LANE = 26, 9


@dataclass(frozen=True)
class GraphDrawing:
    """Dots at ``x`` in rows of :data:`ROW` pixels, and the edges between them as SVG paths.

    Attributes:
        x: Of the dots.
        width: Of the drawing, pixels.
        straight: Edges from a row to the next.
        around: Edges that pass other rows; each in a lane left of the dots.
    """

    x: float
    width: float
    height: float
    straight: tuple[str, ...]
    around: tuple[str, ...]


def draw_graph(layers: Sequence[LayerAnalysis]) -> GraphDrawing:
    """The edges that ``layers[i].inputs`` name; those of unknown layers are left out."""
    row_of = {layer.name: row for row, layer in enumerate(layers)}
    edges = [
        (row_of[name], row)
        for row, layer in enumerate(layers)
        for name in dict.fromkeys(layer.inputs)
        if name in row_of and row_of[name] < row
    ]
    long = sorted((edge for edge in edges if edge[1] - edge[0] > 1), key=lambda edge: edge[::-1])
    lanes = _lanes(long)
    x = (max(lanes, default=-1) + 1) * LANE + 8.0

    def y(row: int) -> float:
        return (row + 0.5) * ROW

    around = []
    for (first, last), lane in zip(long, lanes, strict=True):
        left = x - (lane + 1) * LANE
        around.append(
            f"M{x:g} {y(first):g}C{left:g} {y(first):g} {left:g} {y(first):g} "
            f"{left:g} {y(first) + ROW / 2:g}V{y(last) - ROW / 2:g}"
            f"C{left:g} {y(last):g} {left:g} {y(last):g} {x:g} {y(last):g}"
        )
    return GraphDrawing(
        x=x,
        width=x + 8,
        height=len(layers) * ROW,
        straight=tuple(
            f"M{x:g} {y(first):g}V{y(last):g}" for first, last in edges if last - first == 1
        ),
        around=tuple(around),
    )


def _lanes(edges: Sequence[tuple[int, int]]) -> list[int]:
    """For each edge the first lane that is free over all of its rows; edges by their ends.

    Edges that begin in one row may share it: they carry the same tensor.
    """
    taken: list[list[tuple[int, int]]] = []
    found = []
    for first, last in edges:
        lane = next(
            (
                index
                for index, others in enumerate(taken)
                if all(start == first or end <= first or start >= last for start, end in others)
            ),
            len(taken),
        )
        if lane == len(taken):
            taken.append([])
        taken[lane].append((first, last))
        found.append(lane)
    return found
