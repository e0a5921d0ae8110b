"""Latency and size."""

from __future__ import annotations

import contextlib
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

#: A call that has taken this long in all is not measured any further.
BUDGET_SECONDS = 5.0
_WARM_UP_SECONDS = 0.2
_FEWEST_RUNS = 3
# OpenMP threads spin for some milliseconds after a parallel region.
_PAUSE_SECONDS = 0.01


@dataclass(frozen=True)
class Timing:
    """Seconds of each timed call, in the order of the calls."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """What a user sees."""
        return statistics.median(self.seconds)

    @property
    def minimum(self) -> float:
        """What the code can do on a quiet machine."""
        return min(self.seconds)

    @property
    def p90(self) -> float:
        """Nine of ten calls take at most this."""
        return sorted(self.seconds)[math.ceil(0.9 * self.runs) - 1]

    @property
    def runs(self) -> int:
        """How many calls were timed."""
        return len(self.seconds)


def interleaved(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    budget: float = BUDGET_SECONDS,
    turn: int = 1,
) -> dict[str, Timing]:
    """Times the calls in turns, in a new random order in each of ``rounds`` rounds.

    Taking turns makes the ratios fair on a machine whose speed changes. A call that has used up
    ``budget`` seconds drops out after at least three runs.

    Args:
        calls: What to time, by name.
        rounds: How many turns each call has.
        budget: Seconds.
        turn: Timed calls in a turn. With more than one, a pause lets the threads of the call
            before go to sleep, and an untimed call fills the caches, as when one model serves.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order = list(calls)
    shuffle = random.Random(0).shuffle
    with torch.inference_mode():
        for call in calls.values():
            _warm_up(call)
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                call, spent = calls[name], seconds[name]
                if len(spent) >= _FEWEST_RUNS and sum(spent) > budget:
                    continue
                if turn > 1:
                    time.sleep(_PAUSE_SECONDS)
                    call()
                for _ in range(turn):
                    start = time.perf_counter()
                    call()
                    spent.append(time.perf_counter() - start)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


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


def float_bytes(model: nn.Module) -> int:
    """The size of a model's parameters and buffers, as a state dict holds them."""
    tensors = [*model.parameters(), *model.buffers()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
