"""Where the time of a Program's runs goes, step by step."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pyquant.ir.cost import multiply_adds
from pyquant.ir.program import Program

#: What the core says about a step: nodes, their output shapes, seconds.
_StepRecord: TypeAlias = tuple[list[int], list[tuple[int, ...]], float]


@dataclass(frozen=True)
class ProfiledStep:
    """One node, or several that the runtime runs as one. Views take no step.

    Attributes:
        names: Of the nodes, in the Program's order.
        kinds: The names of their operators.
        engine: That runs them.
        output_shape: Of the last node; uint8 activations are NHWC.
        multiply_adds: Of convolutions and linear layers.
        seconds: In each run.
    """

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    engine: str
    output_shape: tuple[int, ...]
    multiply_adds: int
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Profile:
    """The steps of a Program in the order in which they ran."""

    name: str
    steps: tuple[ProfiledStep, ...]

    @staticmethod
    def of(
        program: Program, engines: Sequence[str], runs: Sequence[Sequence[_StepRecord]]
    ) -> Profile:
        """From what the core recorded in each run of one input shape.

        Args:
            program: What ran.
            engines: By node.
            runs: At least one.
        """

        def step(records: Sequence[_StepRecord]) -> ProfiledStep:
            indices, shapes, _ = records[0]
            nodes = [program.nodes[index] for index in indices]
            return ProfiledStep(
                names=tuple(node.name for node in nodes),
                kinds=tuple(type(node.op).__name__ for node in nodes),
                engine=engines[indices[0]],
                output_shape=shapes[-1],
                multiply_adds=sum(
                    multiply_adds(program, node, shape)
                    for node, shape in zip(nodes, shapes, strict=True)
                ),
                seconds=tuple(seconds for _, _, seconds in records),
            )

        return Profile(program.name, tuple(map(step, zip(*runs, strict=True))))

    @property
    def median(self) -> float:
        """Seconds of all steps of a run."""
        return statistics.median(self._totals())

    @property
    def multiply_adds(self) -> int:
        """Of all steps."""
        return sum(step.multiply_adds for step in self.steps)

    def chrome_trace(self) -> dict[str, Any]:
        """The fastest run in Chrome's trace event format, for ``json.dump``.

        Perfetto (https://ui.perfetto.dev) and chrome://tracing open the file. Format:
        https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
        """
        totals = self._totals()
        run = totals.index(min(totals))
        events: list[dict[str, Any]] = [
            {"ph": "M", "name": "process_name", "pid": 0, "tid": 0, "args": {"name": self.name}}
        ]
        start = 0.0
        for step in self.steps:
            duration = step.seconds[run] * 1e6
            events.append(
                {
                    "ph": "X",
                    "name": " + ".join(step.names),
                    "cat": " + ".join(step.kinds),
                    "pid": 0,
                    "tid": 0,
                    "ts": start,
                    "dur": duration,
                    "args": {
                        "engine": step.engine,
                        "output": list(step.output_shape),
                        "multiply_adds": step.multiply_adds,
                    },
                }
            )
            start += duration
        return {"traceEvents": events, "displayTimeUnit": "ms"}

    def _totals(self) -> list[float]:
        """Seconds of each run; a Program of views only takes none."""
        if not self.steps:
            return [0.0]
        return [sum(run) for run in zip(*(step.seconds for step in self.steps), strict=True)]
