"""Mixed precision: the few layers that cost too much accuracy stay float32.

As in the sensitivity analyses of HAWQ (Dong et al., 2019) and AIMET, layers are ranked by what each
does to the outputs when it alone is quantized; here by their SQNR, on data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from pyquant.analysis.measure import interleaved
from pyquant.analysis.sqnr import ErrorSums
from pyquant.analysis.targets import Target
from pyquant.api import lower
from pyquant.capture.export import as_inputs
from pyquant.errors import QuantizationError
from pyquant.progress import tracked
from pyquant.quantization import QuantizationConfig, calibrate, convert, prepare
from pyquant.targets import QuantizedModule

if TYPE_CHECKING:
    from pyquant.analysis.reference import Reference

_ROUNDS, _BUDGET = 20, 1.0

#: From a model, quantized or not, to a number that is higher for better ones.
Metric = Callable[[nn.Module], float]


@dataclass(frozen=True)
class MixedStep:
    """One model that the search tried.

    Attributes:
        kept: The layers that stayed float32.
        score: By the metric.
        milliseconds: Median of a run on the example inputs.
        slowdown: By how much more than the int8 model's, measured in turns with it.
    """

    kept: tuple[str, ...]
    score: float
    milliseconds: float
    slowdown: float


@dataclass(frozen=True)
class MixedPrecision:
    """What :func:`quantize_mixed` found; ``print`` shows the steps as a table.

    Attributes:
        model: Reaches the target. Unless nothing had to stay float32, it saves as ``.pt2``, not
            as ``.pyq``: it runs in Python and exports to ExecuTorch.
        config: With which ``quantize`` makes it again.
        target: The score that was asked for.
        float_score: The float model's.
        sensitivity: SQNR of the outputs in dB with only this layer quantized, worst first.
        steps: In the order in which they were tried; the first is the int8 model.
        chosen: The index of the model among them.
    """

    model: QuantizedModule
    config: QuantizationConfig
    target: float
    float_score: float
    sensitivity: dict[str, float]
    steps: tuple[MixedStep, ...]
    chosen: int

    def __str__(self) -> str:
        lines = [f"{'':2}{'score':>10}{'ms':>10}{'slower':>9}  float32 layers"]
        for index, step in enumerate(self.steps):
            mark = "*" if index == self.chosen else ""
            kept = ", ".join(step.kept) or "none"
            numbers = f"{step.score:10.4g}{step.milliseconds:10.3f}{step.slowdown:8.2f}x"
            lines.append(f"{mark:2}{numbers}  {kept}")
        lines.append(f"{'':2}{self.float_score:10.4g}{'':19}  all (target {self.target:.4g})")
        return "\n".join(lines)


def quantize_mixed(
    model: nn.Module,
    example_inputs: Any,
    calibration_data: Any,
    *,
    target: float,
    metric: Metric | None = None,
    evaluation_data: Any = None,
    config: QuantizationConfig | None = None,
    engine: str = "auto",
    transform: Any = None,
    progress: bool = True,
) -> MixedPrecision:
    """Quantizes all layers but the fewest that must stay float32 for ``target`` to hold.

    Ranks the layers by what each does alone, keeps as many of the worst as it takes (doubling, then
    bisecting), and then drops those again that turn out not to be needed. Each try calibrates anew.

    Args:
        model: A float32 ``nn.Module``; it is not changed.
        example_inputs: A tensor, or a tuple of the model's positional inputs.
        calibration_data: As for ``quantize``; it is held in memory.
        target: What the metric must reach.
        metric: Gives a score for a model, higher is better; e.g. the share of right answers on
            labelled data. Without it, the SQNR of the outputs against the float model's, in dB.
        evaluation_data: What sensitivity and SQNR are measured on; the calibration data if
            ``None``. It is held in memory.
        config: For what is quantized; what it keeps float stays so.
        engine: ``"auto"``, or a name of ``pyquant.engines()``.
        transform: For folders of images: from a PIL image to a tensor.
        progress: Whether to show progress bars (only on a terminal).

    Raises:
        QuantizationError: Not even the float model reaches the target, or nothing but it does.
        CaptureError, CalibrationError, LoweringError: As ``quantize`` does.
    """
    from pyquant.analysis.reference import Reference
    from pyquant.capture import capture
    from pyquant.quantization.calibration_data import CalibrationData

    examples = as_inputs(example_inputs)
    graph = capture(model, examples)
    batches = list(CalibrationData(calibration_data, graph, transform))
    base = config or QuantizationConfig()

    def keeping(kept: Sequence[str]) -> QuantizationConfig:
        return dataclasses.replace(base, keep_float=(*base.keep_float, *kept))

    def make(kept: Sequence[str]) -> QuantizedModule:
        prepared = prepare(graph, examples, keeping(kept))
        calibrate(prepared, batches, progress=False)
        return lower(convert(prepared), engine=engine)

    int8 = make(())
    assert int8.graph is not None
    reference = Reference(graph, examples, {node.name for node in int8.graph.graph.nodes})
    data = batches if evaluation_data is None else evaluation_data
    judged = list(reference.batches(data, transform))
    score = metric or _sqnr_metric(reference, judged)
    float_score = score(reference.module)
    if not float_score >= target:
        raise QuantizationError(
            f"the float model itself scores {float_score:.4g}, below the target {target:.4g}"
        )
    search = _Search(make, score, target, int8, examples)
    sensitivity: dict[str, float] = {}
    if not search.attempt(()):
        sensitivity = _sensitivity(reference, int8, judged, progress)
        for _ in tracked(search.run(list(sensitivity)), "Searching", show=progress):
            pass
    assert search.best is not None
    chosen, kept, mixed = search.best
    return MixedPrecision(
        model=mixed,
        config=keeping(kept),
        target=target,
        float_score=float_score,
        sensitivity=sensitivity,
        steps=tuple(search.steps),
        chosen=chosen,
    )


class _Search:
    """Tries models; ``best`` is the last one that reached the target: index, layers, model."""

    def __init__(
        self,
        make: Callable[[Sequence[str]], QuantizedModule],
        metric: Metric,
        target: float,
        int8: QuantizedModule,
        examples: Sequence[Tensor],
    ) -> None:
        self._make = make
        self._metric = metric
        self._target = target
        self._int8 = int8
        self._examples = examples
        self.steps: list[MixedStep] = []
        self.best: tuple[int, tuple[str, ...], QuantizedModule] | None = None

    def attempt(self, kept: Sequence[str]) -> bool:
        """Whether the target holds with these layers in float32."""
        try:
            model = self._make(kept) if kept else self._int8
        except QuantizationError:  # nothing is left to quantize: it is the float model
            return True
        score = self._metric(model)
        calls = {"int8": lambda: self._int8(*self._examples), "": lambda: model(*self._examples)}
        timings = interleaved(calls, _ROUNDS, _BUDGET)
        median = timings[""].median
        slowdown = median / timings["int8"].median if kept else 1.0
        self.steps.append(MixedStep(tuple(kept), score, 1e3 * median, slowdown))
        reached = score >= self._target
        if reached:
            self.best = (len(self.steps) - 1, tuple(kept), model)
        return reached

    def run(self, ranked: Sequence[str]) -> Iterator[None]:
        """Looks for the fewest of ``ranked``, worst first; a step for each try.

        Raises:
            QuantizationError: So many are needed that nothing would be quantized.
        """
        fails, holds = 0, len(ranked)  # with all of them it is the float model
        count = 1
        while count < holds:
            holds, fails = (count, fails) if self.attempt(ranked[:count]) else (holds, count)
            count = 2 * count
            yield
        while holds - fails > 1:
            middle = (holds + fails) // 2
            holds, fails = (middle, fails) if self.attempt(ranked[:middle]) else (holds, middle)
            yield
        if self.best is None:
            raise QuantizationError(
                f"with {fails} of its {len(ranked)} sensitive layers in float32 the model scores "
                f"{self.steps[-1].score:.4g}, below the target {self._target:.4g}: only the float "
                "model reaches it"
            )
        kept = list(ranked[:holds])
        for name in reversed(ranked[: holds - 1]):  # without the last one it was tried
            fewer = [other for other in kept if other != name]
            if self.attempt(fewer):
                kept = fewer
            yield


def _sqnr_metric(reference: Reference, batches: Sequence[tuple[Tensor, ...]]) -> Metric:
    """SQNR of a model's outputs on ``batches`` in dB."""

    def metric(model: nn.Module) -> float:
        target, errors = Target("model", model), ErrorSums()
        for inputs in batches:
            expected = reference.runner.finish(reference.runner.start(inputs))
            for truth, found in zip(expected, target.outputs(inputs), strict=True):
                errors.add(truth, found)
        return errors.sqnr

    return metric


def _sensitivity(
    reference: Reference,
    int8: QuantizedModule,
    batches: Sequence[tuple[Tensor, ...]],
    progress: bool,
) -> dict[str, float]:
    """The SQNR with each layer alone quantized, worst first. Layers that only move values or pass
    them on have no error of their own, and float32 would not help them.
    """
    from pyquant.analysis.qdq_source import QdqSource
    from pyquant.analysis.sensitivity import Sensitivity

    assert int8.graph is not None
    source = QdqSource(int8.graph)
    layers = [
        layer
        for layer in reference.layers
        if set(source.reads(layer).values()) != {source.grids.get(layer.last.name)}
    ]
    solo = Sensitivity(reference.runner, source, layers)
    steps = (step for inputs in batches for step in solo.add(inputs))
    total = len(batches) * len(solo.layers)
    for _ in tracked(steps, "Measuring layers", total=total, show=progress):
        pass
    return dict(sorted(solo.result().items(), key=lambda item: item[1]))
