"""Latency, error and size: the numbers that the commands report."""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

#: A call that has taken this long in all is not measured any further.
BUDGET_SECONDS = 5.0
_WARM_UP_SECONDS = 0.2
_FEWEST_RUNS = 3


@dataclass(frozen=True)
class Timing:
    """Seconds of one call."""

    median: float
    minimum: float
    p90: float
    runs: int


def interleaved(
    calls: Mapping[str, Callable[[], object]], runs: int, budget: float = BUDGET_SECONDS
) -> dict[str, Timing]:
    """Times every call, one after the other in each of ``runs`` rounds.

    Taking turns makes the ratios fair on a machine whose speed changes. A call that has used up
    ``budget`` seconds drops out after at least three runs.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for call in calls.values():
            _warm_up(call)
        for _ in range(runs):
            for name, call in calls.items():
                spent = seconds[name]
                if len(spent) >= _FEWEST_RUNS and sum(spent) > budget:
                    continue
                start = time.perf_counter()
                call()
                spent.append(time.perf_counter() - start)
    return {name: _timing(values) for name, values in seconds.items()}


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Runs on one thread: on a busy machine, threads that wait for each other tell nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _warm_up(call: Callable[[], object]) -> None:
    end = time.perf_counter() + _WARM_UP_SECONDS
    call()
    while time.perf_counter() < end:
        call()


def _timing(seconds: list[float]) -> Timing:
    ordered = sorted(seconds)
    return Timing(
        median=statistics.median(ordered),
        minimum=ordered[0],
        p90=ordered[math.ceil(0.9 * len(ordered)) - 1],
        runs=len(ordered),
    )


def sqnr(reference: Any, actual: Any) -> float:
    """Signal to quantization noise in decibels over all output tensors; infinite if equal."""
    signal = noise = 0.0
    pairs = zip(pytree.tree_leaves(reference), pytree.tree_leaves(actual), strict=True)
    for expected, found in pairs:
        if isinstance(expected, Tensor):
            signal += float(expected.double().square().sum())
            noise += float((expected.double() - found.double()).square().sum())
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal else -math.inf


def float_bytes(model: nn.Module) -> int:
    """The size of a model's parameters and buffers, as a state dict holds them."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
