"""How far tensors are from what they should be, summed over batches."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.utils import _pytree as pytree


class ErrorSums:
    """What SQNR, cosine and the largest error of any number of tensor pairs need."""

    def __init__(self) -> None:
        self._signal = self._noise = self._product = self._energy = 0.0
        self._largest = 0.0
        self._finite = True

    def add(self, expected: Tensor, actual: Tensor) -> None:
        """Takes one more pair of one shape; NaN and infinity in ``actual`` are infinite errors."""
        a, b = expected.detach().flatten().double(), actual.detach().flatten().double()
        difference = b - a
        if not a.numel():
            return
        noise = float(difference.dot(difference))
        if not math.isfinite(noise):  # a quick look: squares of float32 fit float64
            self._finite = False
            return
        self._signal += float(a.dot(a))
        self._energy += float(b.dot(b))
        self._product += float(a.dot(b))
        self._noise += noise
        self._largest = max(self._largest, float(difference.abs().max()))

    @property
    def sqnr(self) -> float:
        """Signal to quantization noise, ``10 log10(sum a^2 / sum (a - b)^2)``, in dB; ``inf`` for
        equal tensors, ``-inf`` without signal or for values that are not finite.
        """
        if not self._finite:
            return -math.inf
        if self._noise == 0.0:
            return math.inf
        return 10.0 * math.log10(self._signal / self._noise) if self._signal else -math.inf

    @property
    def cosine(self) -> float:
        """Similarity, -1..1; 1 for two tensors of zeros, 0 for values that are not finite."""
        if not self._finite:
            return 0.0
        norms = math.sqrt(self._signal) * math.sqrt(self._energy)
        if norms == 0.0:
            return float(self._signal == self._energy)
        return max(-1.0, min(self._product / norms, 1.0))

    @property
    def largest(self) -> float:
        """The largest absolute difference."""
        return self._largest if self._finite else math.inf


def sqnr(reference: Any, actual: Any) -> float:
    """Signal to quantization noise in decibels over all output tensors; infinite if equal."""
    sums = ErrorSums()
    pairs = zip(pytree.tree_leaves(reference), pytree.tree_leaves(actual), strict=True)
    for expected, found in pairs:
        if isinstance(expected, Tensor):
            sums.add(expected, found)
    return sums.sqnr
