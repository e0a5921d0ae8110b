"""Prepares the peers of one network and times them in turns."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import networks
from benchmarks.peers.cache import Cache
from benchmarks.peers.peer import Peer, Task, Variant
from benchmarks.silence import silence
from pyquant.analysis.measure import Timing, interleaved
from pyquant.analysis.sqnr import sqnr

_CALIBRATION_SAMPLES = 32
_BUDGET_SECONDS = 60.0
_CALLS_PER_TURN = 3
# What outputs of the same power have that are not related to the network's at all.
_LEAST_SQNR = -3.0


@dataclass(frozen=True)
class PeerResult:
    """What one peer did on one network.

    Attributes:
        peer: Which.
        preparation: Seconds from the float model to a warm call; less where a file was cached.
        sqnr: Decibels of its logits against torch in float32, by variant.
        timings: By variant.
        failure: Why there is nothing else; else ``None``.
    """

    peer: Peer
    preparation: float = 0.0
    sqnr: dict[str, float] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)
    failure: str | None = None

    @property
    def variant(self) -> str:
        """The fastest variant by median."""
        return min(self.timings, key=lambda name: self.timings[name].median)

    @property
    def median(self) -> float:
        """Seconds, of the variant with the least."""
        return min(timing.median for timing in self.timings.values())

    @property
    def minimum(self) -> float:
        """Seconds, of the variant with the least."""
        return min(timing.minimum for timing in self.timings.values())


@dataclass(frozen=True)
class Setting:
    """What all peers share: see the command's options."""

    threads: int
    batch: int
    rounds: int
    cache: Path


def measure(
    network: str,
    peers: Sequence[Peer],
    setting: Setting,
    progress: Callable[[str], None],
) -> list[PeerResult]:
    """The results of ``peers`` on ``network``, in their order.

    ``progress`` is told what is going on, a few words at a time.
    """
    progress("building the network")
    task = _task(network, setting)
    with torch.inference_mode():
        expected = task.model(task.x)
    prepared: dict[str, list[Variant]] = {}
    results: dict[str, PeerResult] = {}
    for peer in peers:
        progress(f"preparing {peer.label}")
        start = time.perf_counter()
        try:
            with silence(), torch.no_grad():
                variants = peer.prepare(task)
                fidelity = {variant.name: _fidelity(variant, expected) for variant in variants}
        except Exception as error:  # other people's code: anything may come
            results[peer.name] = PeerResult(peer, failure=_reason(error))
            continue
        prepared[peer.name] = variants
        results[peer.name] = PeerResult(peer, time.perf_counter() - start, fidelity)
    progress("measuring")
    gc.collect()
    with silence():
        timings = interleaved(
            {
                f"{name}/{variant.name}": variant.call
                for name, variants in prepared.items()
                for variant in variants
            },
            setting.rounds,
            _BUDGET_SECONDS,
            _CALLS_PER_TURN,
        )
    for name, variants in prepared.items():
        results[name].timings.update(
            {variant.name: timings[f"{name}/{variant.name}"] for variant in variants}
        )
    return [results[peer.name] for peer in peers]


def usable(peers: Iterable[Peer], report: Callable[[str], None]) -> list[Peer]:
    """The peers whose packages are installed; ``report`` hears about each of the others."""
    found = []
    for peer in peers:
        missing = peer.missing_modules()
        if missing:
            report(
                f"{peer.label} is left out, without {', '.join(missing)}: "
                'pip install "pyquant[peers]"'
            )
        else:
            found.append(peer)
    return found


def _task(network: str, setting: Setting) -> Task:
    with silence():
        model = networks.build(network)
        count = max(_CALIBRATION_SAMPLES // setting.batch, 1) * setting.batch
        calibration = torch.split(networks.samples(network, count, seed=1), setting.batch)
        x = networks.samples(network, setting.batch, seed=2)
    cache = Cache(setting.cache, network, setting.batch, count)
    return Task(network, model, x, list(calibration), setting.threads, cache)


def _fidelity(variant: Variant, expected: Tensor) -> float:
    with torch.inference_mode():
        decibels = sqnr(expected, _logits(variant.call()).reshape(expected.shape))
    if not decibels > _LEAST_SQNR:
        raise RuntimeError(f"{variant.name}: the SQNR of its outputs is {decibels:.1f} dB")
    return decibels


def _logits(result: Any) -> Tensor:
    """A peer's output as a tensor of its own."""
    while isinstance(result, list | tuple):
        result = result[0]
    return torch.as_tensor(result).clone()


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:200] if lines else type(error).__name__
