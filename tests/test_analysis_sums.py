"""The sums that an analysis is made of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from pyquant.analysis.sqnr import ErrorSums
from pyquant.analysis.statistics import BINS, GrowingHistogram

_FLOATS = st.floats(-1e6, 1e6, width=32)


@given(st.lists(st.lists(_FLOATS, min_size=1, max_size=20), min_size=1, max_size=6))
def test_the_histogram_counts_exactly_whatever_the_order(parts: list[list[float]]) -> None:
    results = []
    for batches in (parts, parts[::-1], [[value for part in parts for value in part]]):
        histogram = GrowingHistogram()
        for batch in batches:
            values = torch.tensor(batch)
            histogram.add(values, float(values.min()), float(values.max()))
        results.append(histogram.result())

    everything = np.array([value for part in parts for value in part], np.float32)
    for result in results:
        bins = len(result.counts)
        assert 1 <= bins <= BINS
        edges = np.linspace(result.low, result.high, bins + 1)
        expected, _ = np.histogram(everything, edges)
        assert sum(result.counts) == len(everything)
        # NumPy's last bin is closed; ours has no value on its upper edge.
        assert result.high > float(everything.max()) and result.low <= float(everything.min())
        np.testing.assert_array_equal(result.counts, expected)
    assert results[0] == results[1] == results[2]


def test_the_histogram_uses_at_least_half_of_its_bins() -> None:
    histogram = GrowingHistogram()
    values = torch.linspace(-3, 5, 1000)

    histogram.add(values, -3.0, 5.0)

    assert BINS / 2 <= len(histogram.result().counts) <= BINS


@given(st.integers(1, 5), st.integers(0, 2**31))
def test_error_sums_do_not_depend_on_the_batches(parts: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    expected = torch.randn(60, generator=generator)
    found = expected + 0.1 * torch.randn(60, generator=generator)
    sums = ErrorSums()
    for pair in zip(expected.chunk(parts), found.chunk(parts), strict=True):
        sums.add(*pair)

    noise = (expected - found).double().square().sum()
    assert sums.sqnr == pytest.approx(
        float(10 * torch.log10(expected.double().square().sum() / noise))
    )
    assert sums.cosine == pytest.approx(
        float(F.cosine_similarity(expected, found, dim=0)), abs=1e-6
    )
    assert sums.largest == pytest.approx(float((expected - found).abs().max()))


def test_error_sums_at_the_edges() -> None:
    zeros, ones = torch.zeros(3), torch.ones(3)
    cases = {
        "equal": (ones, ones, math.inf, 1.0, 0.0),
        "nothing": (zeros, zeros, math.inf, 1.0, 0.0),
        "no signal": (zeros, ones, -math.inf, 0.0, 1.0),
        "opposite": (ones, -ones, 10 * math.log10(0.25), -1.0, 2.0),
        "infinite": (ones, ones * math.inf, -math.inf, 0.0, math.inf),
    }
    for name, (expected, found, *numbers) in cases.items():
        sums = ErrorSums()
        sums.add(expected, found)
        assert [sums.sqnr, sums.cosine, sums.largest] == pytest.approx(numbers), name
