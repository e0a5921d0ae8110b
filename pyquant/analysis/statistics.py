"""Statistics of a tensor, summed over batches in constant memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyquant.analysis.analysis import Histogram, TensorStatistics
from pyquant.analysis.values import Grid

#: At most so many; at least half of it once two values differ.
BINS = 128
_SMALLEST_EXPONENT = -126
_LARGEST_INDEX = 2**24  # up to here float32 holds an index exactly


class GrowingHistogram:
    """Counts in bins whose width is a power of two and whose edges are multiples of it.

    When values fall outside, the range grows; when that takes too many bins, pairs of them become
    one. So counts are exact whatever the order of the data.
    """

    def __init__(self) -> None:
        self._exponent = _SMALLEST_EXPONENT
        self._first = 0
        self._counts = torch.zeros(0, dtype=torch.int64)

    def add(self, values: Tensor, low: float, high: float) -> None:
        """Takes float32 values of any shape, which lie between ``low`` and ``high``."""
        self._cover(low, high)
        # In float32 the smallest negative numbers would underflow into the bin above zero.
        indices = (values.flatten().double() * 2.0**-self._exponent).floor_().long() - self._first
        self._counts += torch.bincount(indices, minlength=self._counts.numel())

    def _cover(self, low: float, high: float) -> None:
        if self._counts.numel():
            low = min(low, math.ldexp(self._first, self._exponent))
            last = self._first + self._counts.numel() - 1
            high = max(high, math.ldexp(last, self._exponent))
        else:  # near where the loop below ends
            span, size = (_exponent(value) for value in (high - low, max(-low, high)))
            self._exponent = max(_SMALLEST_EXPONENT, span - 8, size - 25)
        while self._indices(low, high) is None:
            self._halve()
        indices = self._indices(low, high)
        assert indices is not None
        first, last = indices
        grown = torch.zeros(last - first + 1, dtype=torch.int64)
        if self._counts.numel():
            start = self._first - first
            grown[start : start + self._counts.numel()] = self._counts
        self._first, self._counts = first, grown

    def _indices(self, low: float, high: float) -> tuple[int, int] | None:
        """The bins of two values; ``None`` if there are too many between them."""
        first, last = (math.floor(math.ldexp(value, -self._exponent)) for value in (low, high))
        fits = last - first < BINS and max(abs(first), abs(last)) <= _LARGEST_INDEX
        return (first, last) if fits else None

    def _halve(self) -> None:
        """Makes pairs of bins one."""
        self._exponent += 1
        if self._counts.numel():
            before = self._first % 2
            after = (before + self._counts.numel()) % 2
            padded = torch.nn.functional.pad(self._counts, (before, after))
            self._counts = padded.reshape(-1, 2).sum(1)
        self._first //= 2

    def result(self) -> Histogram:
        """Of all values so far; empty bins at the ends are cut off."""
        filled = self._counts.nonzero().flatten().tolist()
        if not filled:
            return Histogram(0.0, 0.0, ())
        counts = self._counts[filled[0] : filled[-1] + 1]
        low = math.ldexp(self._first + filled[0], self._exponent)
        high = low + math.ldexp(counts.numel(), self._exponent)
        return Histogram(low, high, tuple(counts.tolist()))


def _exponent(value: float) -> int:
    """The least for which ``value``, not negative, is below two to its power."""
    return math.frexp(value)[1] if value else _SMALLEST_EXPONENT


class ActivationStatistics:
    """Of one activation, float32 ``[N, C, ...]``.

    Args:
        grid: That its values are rounded to; ``None`` if they stay float32.
    """

    def __init__(self, grid: Grid | None) -> None:
        self._grid = grid
        self._histogram = GrowingHistogram()
        self._lowest: Tensor | None = None
        self._highest: Tensor | None = None
        self._clipped = self._count = 0

    def add(self, values: Tensor) -> None:
        """Takes one more batch."""
        by_channel = values.detach().float()
        by_channel = by_channel.transpose(0, 1).flatten(1) if values.dim() > 1 else by_channel[None]
        if not by_channel.numel():
            return
        low, high = torch.aminmax(by_channel, dim=1)
        self._lowest = low if self._lowest is None else torch.minimum(self._lowest, low)
        self._highest = high if self._highest is None else torch.maximum(self._highest, high)
        self._histogram.add(by_channel, float(low.min()), float(high.max()))
        self._count += by_channel.numel()
        if self._grid is not None:
            self._clipped += _outside(by_channel, *self._grid.bounds, self._grid.scale)

    def result(self) -> TensorStatistics:
        """Of all batches so far."""
        assert self._lowest is not None and self._highest is not None
        low, high = float(self._lowest.min()), float(self._highest.max())
        return TensorStatistics(
            minimum=low,
            maximum=high,
            histogram=self._histogram.result(),
            scales=() if self._grid is None else (self._grid.scale,),
            zero_point=0 if self._grid is None else self._grid.zero_point,
            representable=(low, high) if self._grid is None else self._grid.bounds,
            clipped=self._clipped / self._count,
            dead_channels=int((self._lowest == self._highest).sum()),
            channels=self._lowest.numel(),
        )


def weight_statistics(rows: Tensor, scales: Sequence[float]) -> TensorStatistics:
    """Of a weight.

    Args:
        rows: float32 ``[O, ...]``, output channels first.
        scales: Of int8 -127..127; one, one per output channel, one for each output channel of a
            group, or none for a float32 weight.
    """
    by_channel = rows.detach().float().flatten(1)
    low, high = (float(bound) for bound in torch.aminmax(by_channel))
    histogram = GrowingHistogram()
    histogram.add(by_channel, low, high)
    clipped = 0
    if scales:
        steps = torch.tensor(scales).repeat(by_channel.shape[0] // len(scales))[:, None]
        clipped = _outside(by_channel / steps, -127.0, 127.0, 1.0)
    widest = 127.0 * max(scales, default=0.0)
    return TensorStatistics(
        minimum=low,
        maximum=high,
        histogram=histogram.result(),
        scales=tuple(scales),
        zero_point=0,
        representable=(-widest, widest) if scales else (low, high),
        clipped=clipped / by_channel.numel(),
        dead_channels=int((by_channel == 0).all(1).sum()),
        channels=by_channel.shape[0],
    )


def _outside(values: Tensor, low: float, high: float, step: float) -> int:
    """How many do not round to a number between the bounds; up to half a step beyond, they do."""
    return int(((values < low - step / 2) | (values > high + step / 2)).sum())
