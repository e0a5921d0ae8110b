"""pyquant, as ``pyquant.quantize`` gives it. Never from the cache: it is what is developed here."""

from __future__ import annotations

import pyquant
from benchmarks.peers.peer import Peer, Task, Variant


def _prepare(task: Task) -> list[Variant]:
    quantized = pyquant.quantize(task.model, task.x, task.calibration, progress=False)
    return [Variant("auto", lambda: quantized(task.x))]


PEER = Peer("pyquant", "pyquant", _prepare, ours=True)
