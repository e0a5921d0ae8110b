"""What a reader should know first, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pyquant.analysis.analysis import Analysis, LayerAnalysis, TargetComparison
from pyquant.analysis.units import decibels, megabytes, milliseconds, percent

_WORST = 3
#: Of a layer's values; less is what a good range choice does on purpose.
_MUCH_CLIPPED = 0.01


@dataclass(frozen=True)
class Headline:
    """One number in large type; ``note`` says what it is compared with."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class Finding:
    """A sentence about ``layer``, whose name stands before it; or about several, or all."""

    layer: LayerAnalysis | None
    text: str


def main_target(analysis: Analysis) -> TargetComparison | None:
    """What one would run: the fastest of the quantized targets; if none was timed, the smallest."""

    def cost(target: TargetComparison) -> tuple[float, float]:
        return target.milliseconds or math.inf, target.size or math.inf

    return min(analysis.targets[1:], key=cost, default=None)


def headlines(analysis: Analysis) -> Iterator[Headline]:
    """Accuracy, size, latency and coverage, as far as they are known."""
    target = main_target(analysis)
    if target is not None:
        yield Headline("SQNR of the outputs", decibels(target.sqnr), f"{target.name} against float")
        if target.agreement is not None:
            yield Headline(
                "Same top-1 as float", percent(target.agreement), f"of {analysis.samples} samples"
            )
        yield from _ratio_headlines(analysis, target)
    int8 = sum(layer.int8 for layer in analysis.layers)
    work = sum(layer.multiply_adds for layer in analysis.layers)
    inside = sum(layer.multiply_adds for layer in analysis.layers if layer.int8)
    note = f"{percent(inside / work)} of the multiply-adds" if work else "no multiply-adds"
    yield Headline("Layers in int8", f"{int8} of {len(analysis.layers)}", note)


def _ratio_headlines(analysis: Analysis, target: TargetComparison) -> Iterator[Headline]:
    base = analysis.targets[0]
    before = base.size or sum(layer.parameter_bytes for layer in analysis.layers)
    sized = target if target.size else next((t for t in analysis.targets[1:] if t.size), None)
    if sized is not None and sized.size and before:
        yield Headline(
            "Size",
            f"{before / sized.size:.2f}x smaller",
            f"{megabytes(before)} to {megabytes(sized.size)} ({sized.name})",
        )
    if target.milliseconds and base.milliseconds:
        ratio = base.milliseconds / target.milliseconds
        yield Headline(
            "Latency",
            f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x slower",
            f"{milliseconds(base.milliseconds / 1e3)} to "
            f"{milliseconds(target.milliseconds / 1e3)} ({target.name})",
        )


def findings(analysis: Analysis) -> Iterator[Finding]:
    """The layers that cost most, one sentence each, then what else stands out."""
    yield from _worst_layers(analysis)
    floats = [layer for layer in analysis.layers if not layer.int8]
    if floats:
        yield Finding(
            None,
            f"{_layers(len(floats), 'stays', 'stay')} in float32: {_names(floats)}.",
        )
    clipped = [layer for layer in analysis.layers if layer.output.clipped > _MUCH_CLIPPED]
    if clipped:
        most = max(clipped, key=lambda layer: layer.output.clipped)
        yield Finding(
            None,
            f"{_layers(len(clipped), 'clips', 'clip')} more than {100 * _MUCH_CLIPPED:g} % of the "
            f"values; most in {most.name}, {percent(most.output.clipped)}.",
        )
    dead = [layer for layer in analysis.layers if layer.output.dead_channels]
    if dead:
        channels = sum(layer.output.dead_channels for layer in dead)
        yield Finding(
            None,
            f"{channels} dead {'channel' if channels == 1 else 'channels'} in "
            f"{len(dead)} {'layer' if len(dead) == 1 else 'layers'}: {_names(dead)}.",
        )


def _worst_layers(analysis: Analysis) -> Iterator[Finding]:
    alone = [
        (layer.own_sqnr, layer)
        for layer in analysis.layers
        if layer.own_sqnr is not None and layer.own_sqnr < math.inf
    ]
    for own, layer in sorted(alone, key=lambda pair: pair[0])[:_WORST]:
        yield Finding(
            layer,
            f"with only this layer in int8, the outputs have {decibels(own)}{_hint(layer)}.",
        )
    if alone:
        return
    drops = [(drop, layer) for drop, layer in _drops(analysis) if drop > 0]
    for drop, layer in sorted(drops, key=lambda pair: -pair[0])[:_WORST]:
        yield Finding(
            layer,
            f"SQNR falls by {decibels(drop)} to {decibels(layer.sqnr)}{_hint(layer)}.",
        )


def _drops(analysis: Analysis) -> Iterator[tuple[float, LayerAnalysis]]:
    """How much worse each layer's output is than its worst input (or the layer before)."""
    sqnr_of = {layer.name: layer.sqnr for layer in analysis.layers}
    before: float | None = None
    for layer in analysis.layers:
        inputs = [sqnr_of[name] for name in layer.inputs if name in sqnr_of]
        reference = min(inputs) if inputs else before
        if reference is not None and math.isfinite(reference) and math.isfinite(layer.sqnr):
            yield reference - layer.sqnr, layer
        before = layer.sqnr


def _hint(layer: LayerAnalysis) -> str:
    if layer.output.clipped > _MUCH_CLIPPED:
        return f"; {percent(layer.output.clipped)} of its outputs are clipped"
    if layer.weight is not None and layer.weight.clipped > _MUCH_CLIPPED:
        return f"; {percent(layer.weight.clipped)} of its weights are clipped"
    return ""


def _layers(number: int, one: str, several: str) -> str:
    return f"1 layer {one}" if number == 1 else f"{number} layers {several}"


def _names(layers: list[LayerAnalysis]) -> str:
    shown = ", ".join(layer.name for layer in layers[:_WORST])
    rest = len(layers) - _WORST
    return f"{shown} and {rest} more" if rest > 0 else shown
