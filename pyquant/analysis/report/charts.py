"""Where the marks of the report's charts stand, in SVG user units; the templates draw them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pyquant.analysis.analysis import Histogram, TensorStatistics

_HISTOGRAM_WIDTH, _HISTOGRAM_HEIGHT = 320.0, 96.0
_MOST_BARS, _HAIR = 80, 1.0
#: A chart of few columns does not get wider ones than this; one of many scrolls.
_WIDEST_COLUMN, _NARROWEST_COLUMN = 34.0, 15.0
_AXIS = 52.0
_WIDTH = 1200.0
_CHART_HEIGHT = 200.0


@dataclass(frozen=True)
class Tick:
    """A line of a grid."""

    position: float
    label: str


@dataclass(frozen=True)
class HistogramChart:
    """Bars of ``log(1 + count)``, and the grid's range as a band over them.

    Attributes:
        inside, outside: SVG paths of the bars within the range and beyond it.
        band: Left and right end of the range; ``None`` for a tensor without a grid.
        low, high: The values at the left and the right end of the chart.
    """

    width: float
    height: float
    inside: str
    outside: str
    band: tuple[float, float] | None
    low: float
    high: float


def histogram_chart(statistics: TensorStatistics) -> HistogramChart:
    """A chart wide enough for the values and for the range that they were given."""
    histogram = statistics.histogram
    limits = statistics.representable if statistics.scales else None
    low, high = statistics.minimum, statistics.maximum
    if limits is not None:
        low, high = min(low, limits[0]), max(high, limits[1])
    if not high > low:  # one value only
        low, high = low - 0.5, high + 0.5
    width, height = _HISTOGRAM_WIDTH, _HISTOGRAM_HEIGHT

    def place(value: float) -> float:
        return (min(max(value, low), high) - low) / (high - low) * width

    bars = _bars(histogram)
    tallest = math.log1p(max((number for _, _, number in bars), default=0)) or 1.0
    outlines = (_Outline(height), _Outline(height))
    for first, last, number in bars:
        start, end = max(first, low), min(last, high)  # of a bin, values may fill a part only
        top = height - max(1.5, math.log1p(number) / tallest * (height - 4))
        for left, right, beyond in _cut(start, end, limits) if number and start <= end else ():
            outlines[beyond].add(place(left), place(right), top)
    return HistogramChart(
        width=width,
        height=height,
        inside=outlines[0].path(),
        outside=outlines[1].path(),
        band=None if limits is None else (place(limits[0]), place(limits[1])),
        low=low,
        high=high,
    )


class _Outline:
    """An SVG path around bars from left to right; bars that touch share an outline."""

    def __init__(self, bottom: float) -> None:
        self._bottom = f"{bottom:g}"
        self._parts: list[str] = []
        self._end = ""

    def add(self, left: float, right: float, top: float) -> None:
        """A bar, at least as wide as a hair."""
        if right - left < _HAIR:
            left = max(0.0, (left + right - _HAIR) / 2)
            right = left + _HAIR
        if f"{left:.1f}" != self._end:
            self._close()
            self._parts.append(f"M{left:.1f} {self._bottom}")
        self._end = f"{right:.1f}"
        self._parts.append(f"V{top:.1f}H{self._end}")

    def path(self) -> str:
        """Of all bars so far."""
        self._close()
        return "".join(self._parts)

    def _close(self) -> None:
        if self._end:
            self._parts.append(f"V{self._bottom}Z")
            self._end = ""


def _cut(
    start: float, end: float, limits: tuple[float, float] | None
) -> Iterator[tuple[float, float, bool]]:
    """The pieces of a bar within ``limits`` and beyond them."""
    low, high = (start, end) if limits is None else limits
    inner, outer = min(max(start, low), high), max(min(end, high), low)
    if start < low:
        yield start, min(end, low), True
    if inner < outer or start == end:
        yield inner, outer, False
    if end > high:
        yield max(start, high), end, True


def _bars(histogram: Histogram) -> list[tuple[float, float, int]]:
    """Start, end and count of neighbouring bins together, few enough to see."""
    bins = len(histogram.counts)
    size = math.ceil(bins / _MOST_BARS)
    width = (histogram.high - histogram.low) / max(1, bins)
    return [
        (
            histogram.low + first * width,
            histogram.low + min(first + size, bins) * width,
            sum(histogram.counts[first : first + size]),
        )
        for first in range(0, bins, size or 1)
    ]


@dataclass(frozen=True)
class ColumnChart:
    """Series of values over columns of equal width; the first column begins at ``left``.

    Attributes:
        ticks: Of the value axis, positions from the top.
        series: For each series the place of the mark in each column, ``None`` for no value.
        labels: Of the column axis, positions from the left.
    """

    width: float
    height: float
    left: float
    column: float
    ticks: tuple[Tick, ...]
    labels: tuple[Tick, ...]
    series: tuple[tuple[float | None, ...], ...]

    def centre(self, index: int) -> float:
        """The middle of a column."""
        return self.left + (index + 0.5) * self.column

    def line(self, series: int) -> str:
        """An SVG path through the marks, with gaps where there is none."""
        parts, pen = [], "M"
        for index, top in enumerate(self.series[series]):
            if top is None:
                pen = "M"
                continue
            parts.append(f"{pen}{self.centre(index):.1f} {top:.1f}")
            pen = "L"
        return "".join(parts)


def column_chart(
    series: Sequence[Sequence[float | None]], low: float, high: float, unit: str
) -> ColumnChart:
    """A chart from ``low`` to ``high``; values beyond them, and infinite ones, stand at the edge.

    Args:
        series: Values by column; as many in each. NaN counts as ``None``.
        low: Smallest value on the axis, or smaller.
        high: Largest value, or larger.
        unit: Of the values.
    """
    ticks = nice_ticks(low, high)
    low, high = ticks[0], ticks[-1]
    columns = len(series[0])
    column = min(_WIDEST_COLUMN, max(_NARROWEST_COLUMN, (_WIDTH - _AXIS) / columns))

    def place(value: float | None) -> float | None:
        if value is None or math.isnan(value):
            return None
        return _CHART_HEIGHT * (1 - (min(max(value, low), high) - low) / (high - low))

    step = next(step for step in (1, 5, 10, 20, 50, 100, 200, 500) if columns / step <= 40)
    return ColumnChart(
        width=_AXIS + columns * column,
        height=_CHART_HEIGHT,
        left=_AXIS,
        column=column,
        ticks=tuple(
            Tick(_CHART_HEIGHT * (1 - (tick - low) / (high - low)), f"{tick:g} {unit}")
            for tick in ticks
        ),
        labels=tuple(
            Tick(_AXIS + (number - 0.5) * column, str(number))
            for number in range(1, columns + 1)
            if number == 1 or number % step == 0
        ),
        series=tuple(tuple(map(place, values)) for values in series),
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """Three to eight multiples of 1, 2 or 5 times a power of ten around ``low`` to ``high``."""
    if not high - low > 1e-9 * max(abs(low), abs(high), 1.0):
        high = low + 1
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 12) for index in range(first, last + 1)]


def finite(values: Iterable[float | None]) -> list[float]:
    """The values that an axis can show."""
    return [value for value in values if value is not None and math.isfinite(value)]
