"""From an :class:`Analysis` to HTML: what the templates are given."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from pyquant.analysis import units
from pyquant.analysis.analysis import Analysis, LayerAnalysis
from pyquant.analysis.report.charts import (
    ColumnChart,
    HistogramChart,
    column_chart,
    finite,
    histogram_chart,
)
from pyquant.analysis.report.findings import findings, headlines
from pyquant.analysis.report.lanes import ROW, draw_graph
from pyquant.version import __version__
from pyquant.write_file import write_file

if TYPE_CHECKING:
    import jinja2

    from pyquant.targets.profile import Profile, ProfiledStep


@dataclass(frozen=True)
class _LayerRow:
    """A layer as the table shows it; ``seconds`` of the steps that begin with one of its nodes."""

    number: int
    layer: LayerAnalysis
    seconds: float | None
    output: HistogramChart
    weight: HistogramChart | None


@dataclass(frozen=True)
class _StepRow:
    """A step of the profile; ``number`` is that of the layer that it begins with."""

    step: ProfiledStep
    name: str
    share: float
    number: int | None


def write_report(
    analysis: Analysis,
    path: str | os.PathLike[str],
    *,
    profile: Profile | None = None,
    title: str | None = None,
) -> None:
    """Writes an analysis as one HTML page that loads nothing from anywhere.

    Args:
        analysis: What to show.
        path: The file; it appears complete, or stays as it was.
        profile: Adds the latency of every step (``ProgramModule.profile``).
        title: The default names the model.

    Raises:
        IoError: The file cannot be written.
    """
    write_file(
        path, render_report(analysis, profile=profile, title=title).encode("utf-8", "replace")
    )


def render_report(
    analysis: Analysis, *, profile: Profile | None = None, title: str | None = None
) -> str:
    """The page that :func:`write_report` writes."""
    environment = _environment()
    script = _source("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    seconds = {} if profile is None else _seconds_of_layers(analysis.layers, profile)
    return environment.get_template("report.html").render(
        title=title or f"{analysis.model}: quantization report",
        version=__version__,
        style=Markup(_source("report.css")),
        script=Markup(script),
        script_digest=digest,
        analysis=analysis,
        headlines=list(headlines(analysis)),
        findings=list(findings(analysis)),
        number_of={layer.name: number for number, layer in enumerate(analysis.layers, 1)},
        rows=[
            _LayerRow(
                number,
                layer,
                seconds.get(layer.name),
                histogram_chart(layer.output),
                None if layer.weight is None else histogram_chart(layer.weight),
            )
            for number, layer in enumerate(analysis.layers, 1)
        ],
        sqnr_chart=_sqnr_chart(analysis.layers),
        profile=profile,
        timed=bool(seconds),
        steps=[] if profile is None else _steps(analysis.layers, profile),
        latency_chart=None if profile is None or not profile.steps else _latency_chart(profile),
        graph=draw_graph(analysis.layers),
        graph_row=ROW,
    )


@cache
def _environment() -> jinja2.Environment:
    import jinja2  # not before it is needed: every `import pyquant` comes through here

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pyquant.analysis.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "breakable": _breakable,
        "decibels": units.decibels,
        "megabytes": units.megabytes,
        "milliseconds": units.milliseconds,
        "percent": units.percent,
        "quantity": units.quantity,
        "shape": units.shape,
        "sort_key": _sort_key,
    }
    return environment


def _source(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _breakable(name: str) -> Markup:
    """Escaped, with places where a long name may go on in the next line."""
    return Markup(re.sub(r"([._/])", r"\1<wbr>", str(escape(name))))


def _sort_key(value: float | None) -> str:
    """As JavaScript's ``Number`` reads it; nothing for what has no place in an order."""
    if value is None or math.isnan(value):
        return ""
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return f"{value:.6g}"


def _sqnr_chart(layers: Sequence[LayerAnalysis]) -> ColumnChart | None:
    series: list[list[float | None]] = [
        [layer.sqnr for layer in layers],
        [layer.own_sqnr for layer in layers],
    ]
    known = finite(chain(*series))
    if not known:
        return None
    return column_chart(series, min(known), max(known), "dB")


def _latency_chart(profile: Profile) -> ColumnChart:
    microseconds = [step.median * 1e6 for step in profile.steps]
    return column_chart([microseconds], 0.0, max(microseconds), "µs")


def _layer_of_node(layers: Sequence[LayerAnalysis]) -> dict[str, int]:
    """The index of the layer that each node of the graph belongs to."""
    return {node: index for index, layer in enumerate(layers) for node in layer.nodes}


def _seconds_of_layers(layers: Sequence[LayerAnalysis], profile: Profile) -> dict[str, float]:
    """A step that runs several layers as one counts for the first of them."""
    layer_of = _layer_of_node(layers)
    found: dict[str, float] = {}
    for step in profile.steps:
        index = next((layer_of[name] for name in step.names if name in layer_of), None)
        if index is not None:
            name = layers[index].name
            found[name] = found.get(name, 0.0) + step.median
    return found


def _steps(layers: Sequence[LayerAnalysis], profile: Profile) -> list[_StepRow]:
    layer_of = _layer_of_node(layers)
    total = sum(step.median for step in profile.steps) or 1.0

    def row(step: ProfiledStep) -> _StepRow:
        indices = list(dict.fromkeys(layer_of[name] for name in step.names if name in layer_of))
        names = [layers[index].name for index in indices] or list(step.names)
        return _StepRow(
            step, " + ".join(names), step.median / total, indices[0] + 1 if indices else None
        )

    return [row(step) for step in profile.steps]
