"""The ways to run a model, each against the float model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from pyquant.analysis.analysis import TargetComparison
from pyquant.analysis.measure import interleaved
from pyquant.analysis.sqnr import ErrorSums
from pyquant.errors import InvalidInputError, PyquantError

_ROUNDS, _BUDGET = 20, 2.0


@dataclass(frozen=True)
class Target:
    """One way to run a model.

    Attributes:
        name: For people.
        run: From the model's inputs, float32 NCHW, to its outputs: a tensor, or nested ones.
        size: Bytes of its file.
        batch_size: The one that it takes; ``None`` if it takes any.
    """

    name: str
    run: Callable[..., Any]
    size: int | None = None
    batch_size: int | None = None

    def outputs(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The output tensors for inputs of any batch size.

        Raises:
            InvalidInputError: It fails on them, or takes another number of samples at once.
        """
        size = len(inputs[0]) if self.batch_size is None else self.batch_size
        if len(inputs[0]) % size:
            raise InvalidInputError(
                f"{self.name} takes {size} samples at once; the data has {len(inputs[0])} left"
            )
        parts = zip(*(torch.split(value, size) for value in inputs), strict=True)
        try:
            with torch.no_grad():
                results = [pytree.tree_leaves(self.run(*part)) for part in parts]
        except PyquantError:
            raise
        except Exception as error:  # other runtimes raise of all sorts
            raise InvalidInputError(f"{self.name} does not run: {error}") from error
        if len(results) == 1:
            return results[0]
        return [torch.cat(values) for values in zip(*results, strict=True)]


class Comparison:
    """Compares a target with the float model, batch by batch."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._errors = ErrorSums()
        self._same = self._judged = 0

    def add(self, expected: Sequence[Tensor], found: Sequence[Tensor]) -> None:
        """Takes the outputs for one more batch. Those of other shapes are infinitely wrong."""
        if [value.shape for value in found] != [value.shape for value in expected]:
            found = [torch.full_like(value, torch.nan) for value in expected]
        for truth, value in zip(expected, found, strict=True):
            self._errors.add(truth, value)
            if truth.dim() == 2 and truth.shape[1] > 1:
                # argmax takes NaN for the largest.
                same = (truth.argmax(1) == value.argmax(1)) & value.isfinite().all(1)
                self._same += int(same.sum())
                self._judged += len(truth)

    def result(self, seconds: float | None) -> TargetComparison:
        """Of all batches so far."""
        return TargetComparison(
            name=self.target.name,
            sqnr=self._errors.sqnr,
            cosine=self._errors.cosine,
            largest_error=self._errors.largest,
            agreement=self._same / self._judged if self._judged else None,
            size=self.target.size,
            milliseconds=None if seconds is None else seconds * 1e3,
        )


def latencies(targets: Sequence[Target], sample: Sequence[Tensor]) -> Mapping[str, float]:
    """The median of each target's runs in seconds, taken in turns.

    Args:
        targets: With different names.
        sample: Inputs of one sample, or as many as the targets' batch size.
    """

    def runner(target: Target) -> Callable[[], object]:
        return lambda: target.run(*sample)

    calls = {target.name: runner(target) for target in targets}
    return {name: timing.median for name, timing in interleaved(calls, _ROUNDS, _BUDGET).items()}
