"""Ratios: pyquant against the best of the others."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from benchmarks.peers.measure import PeerResult

#: The results of each network, by its name.
Results: TypeAlias = Mapping[str, Sequence[PeerResult]]
#: Median or minimum, in seconds.
Statistic: TypeAlias = Callable[[PeerResult], float]

STATISTICS: dict[str, Statistic] = {
    "median": lambda result: result.median,
    "min": lambda result: result.minimum,
}


def ours(results: Iterable[PeerResult]) -> PeerResult | None:
    """pyquant's result, if it was measured."""
    return next((result for result in results if result.peer.ours and result.timings), None)


def best_peer(results: Iterable[PeerResult], statistic: Statistic) -> PeerResult | None:
    """The fastest of the others, if any was measured."""
    others = [result for result in results if not result.peer.ours and result.timings]
    return min(others, key=statistic, default=None)


def ratio(results: Sequence[PeerResult], statistic: Statistic) -> float | None:
    """pyquant's time over the best peer's: below 1, pyquant is faster."""
    mine, best = ours(results), best_peer(results, statistic)
    return None if mine is None or best is None else statistic(mine) / statistic(best)


def geometric_mean(results: Results, statistic: Statistic) -> float | None:
    """Of the ratios of all networks that have one."""
    ratios = [found for one in results.values() if (found := ratio(one, statistic)) is not None]
    return statistics.geometric_mean(ratios) if ratios else None
