"""What a peer is: one way to run a network, prepared from the same model and data as the others."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from benchmarks.peers.cache import Cache


@dataclass(frozen=True)
class Task:
    """A network to prepare.

    Attributes:
        network: Its name.
        model: float32, in eval mode; a peer copies it before changing it.
        x: The input that is timed, ``[batch, 3, 224, 224]``, contiguous NCHW.
        calibration: Inputs of the same shape.
        threads: Threads inside one run.
        cache: Where files that take long to make are kept.
    """

    network: str
    model: nn.Module
    x: Tensor
    calibration: list[Tensor]
    threads: int
    cache: Cache


@dataclass(frozen=True)
class Variant:
    """A prepared peer, or one of its settings of which the fastest counts.

    ``call`` runs ``Task.x`` and returns the logits, as a tensor, an array or a list of one.
    """

    name: str
    call: Callable[[], Any]


@dataclass(frozen=True)
class Peer:
    """One way to run a network.

    Attributes:
        name: On the command line.
        label: In tables.
        prepare: May raise anything: the reason is then shown in the table.
        modules: What it imports that pyquant does not.
        ours: Whether it is pyquant, which the others are compared with.
    """

    name: str
    label: str
    prepare: Callable[[Task], list[Variant]]
    modules: tuple[str, ...] = ()
    ours: bool = False

    def missing_modules(self) -> list[str]:
        """Those of :attr:`modules` that are not installed."""
        return [name for name in self.modules if importlib.util.find_spec(name) is None]
