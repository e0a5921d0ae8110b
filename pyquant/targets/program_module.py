"""A Program as an ``nn.Module``: its whole graph runs in one C++ call."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn

from pyquant import _C
from pyquant.errors import InvalidInputError
from pyquant.ir.program import Program
from pyquant.ir.serialize import to_bytes
from pyquant.targets.intermediate import Intermediate
from pyquant.targets.profile import Profile


class ProgramModule(nn.Module):
    """Runs a Program on float32 (or, for uint8 inputs, uint8) tensors.

    Safe to call from several threads: each has its own session over the same packed weights. The
    threads inside one call follow ``torch.get_num_threads()``.

    Args:
        program: The Program; it is serialized and verified here.
        engine: ``"auto"``, or an engine's name (``pyquant.engines()``): it then runs every
            operator that it can, and the core's engines run the others.

    Raises:
        InvalidProgramError: The Program is inconsistent.
        UnsupportedError: There is no such engine.
    """

    def __init__(self, program: Program, engine: str = "auto") -> None:
        super().__init__()
        self.program = program
        self._engine = engine
        self._open()

    def _open(self) -> None:
        self._core = _C.Program.from_bytes(to_bytes(self.program))
        self._sessions = threading.local()
        self.node_engines = self._session().node_engines

    @property
    def engine(self) -> str:
        """The engine asked for."""
        return self._engine

    @engine.setter
    def engine(self, name: str) -> None:
        previous = self._engine
        self._engine = name
        self._sessions = threading.local()
        try:
            self.node_engines = self._session().node_engines
        except Exception:
            self._engine = previous
            raise

    def _session(self) -> _C.Session:
        threads = torch.get_num_threads()
        cached: tuple[int, _C.Session] | None = getattr(self._sessions, "cached", None)
        if cached is None or cached[0] != threads:
            cached = (threads, _C.Session(self._core, self._engine, threads))
            self._sessions.cached = cached
        return cached[1]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The Program's outputs.

        Raises:
            InvalidInputError: An input has a wrong dtype, device or shape.
        """
        return tuple(self._session().run(_dense(inputs)))

    def profile(self, *inputs: Tensor, runs: int = 20) -> Profile:
        """Runs ``runs`` times (after one to warm up) and takes the time of every step.

        Raises:
            InvalidInputError: As in a call; or ``runs`` is below 1.
        """
        if runs < 1:
            raise InvalidInputError(f"a profile needs at least one run, not {runs}")
        session, dense = self._session(), _dense(inputs)
        session.run(dense)
        return Profile.of(
            self.program, self.node_engines, [session.profile(dense) for _ in range(runs)]
        )

    def intermediates(self, *inputs: Tensor) -> tuple[Intermediate, ...]:
        """Runs once without fusing operators, and keeps the value of every node.

        The numbers are those of a call: fusing changes none. The weights are packed a second time
        for it, at the first call.

        Returns:
            One entry for each of ``program.nodes``, in their order.

        Raises:
            InvalidInputError: As in a call.
        """
        session = _C.Session(self._core, self._engine, torch.get_num_threads(), fuse=False)
        values = session.observe(_dense(inputs))
        return tuple(
            Intermediate.of(self.program, node, values[index])
            for index, node in enumerate(self.program.nodes)
        )

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in ("_core", "_sessions", "node_engines"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __deepcopy__(self, memo: dict[int, Any]) -> ProgramModule:
        return ProgramModule(self.program, self._engine)

    def extra_repr(self) -> str:
        """For ``print``."""
        return f"nodes={len(self.program.nodes)}, engine={self._engine!r}"


def _dense(inputs: tuple[Tensor, ...]) -> list[Tensor]:
    for value in inputs:
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            raise InvalidInputError(f"an input is {type(value).__name__}, not a dense tensor")
    return [value.detach().contiguous() for value in inputs]
