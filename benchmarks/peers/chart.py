"""The results as a picture: how many times longer than pyquant each peer takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.peers.compare import Results, ours
from benchmarks.peers.measure import Setting
from pyquant.errors import PyquantError

_OURS = "#d1495b"
_TICKS = (0.25, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)
#: One colour and shape per peer, in the order of the tables.
_MARKERS = (
    ("#7a7a7a", "o"),
    ("#3b6ea5", "s"),
    ("#8d6cab", "D"),
    ("#b5b5b5", "^"),
    ("#e08e45", "^"),
    ("#2f9c95", "v"),
    ("#7aa23f", "P"),
)


def draw(results: Results, machine: Mapping[str, str], setting: Setting, target: Path) -> None:
    """Writes a PNG: a line per network, a mark per peer, pyquant's time as 1.

    Raises:
        PyquantError: matplotlib is missing.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
    except ImportError as error:
        raise PyquantError('the chart needs matplotlib: pip install "pyquant[peers]"') from error
    networks = {name: mine for name, one in results.items() if (mine := ours(one)) is not None}
    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.55 * len(networks)), dpi=160)
    labels = [result.peer.label for result in next(iter(results.values())) if not result.peer.ours]
    styles = dict(zip(labels, _MARKERS, strict=False))
    for row, (name, mine) in enumerate(networks.items()):
        measured = [one for one in results[name] if not one.peer.ours and one.timings]
        factors = {one.peer.label: one.median / mine.median for one in measured}
        ends = [1.0, *factors.values()]
        axes.plot([min(ends), max(ends)], [row, row], color="#e4e4e4", linewidth=2, zorder=1)
        for label, factor in factors.items():
            colour, marker = styles[label]
            axes.scatter(factor, row, s=52, color=colour, marker=marker, zorder=3, linewidths=0)
        axes.scatter(1.0, row, s=70, color=_OURS, zorder=4, linewidths=0)
    axes.axvline(1.0, color=_OURS, linewidth=1, zorder=2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_TICKS))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.set_yticks(
        range(len(networks)),
        [f"{name}  {mine.median * 1e3:.1f} ms" for name, mine in networks.items()],
    )
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.grid(axis="x", color="#eeeeee")
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xlabel("latency, pyquant = 1 (median; logarithmic)", color="#444444")
    axes.set_title(
        "int8 CNN inference: pyquant and its peers", loc="left", fontweight="bold", pad=34
    )
    _legend(axes, pyplot, styles)
    figure.text(
        0.01,
        0.01,
        f"{machine['CPU']} · {setting.threads} thread(s), batch {setting.batch}, 224x224",
        fontsize=7,
        color="#777777",
    )
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(target, facecolor="white")
    pyplot.close(figure)


def _legend(axes: Any, pyplot: Any, styles: Mapping[str, tuple[str, str]]) -> None:
    marks = {"pyquant": (_OURS, "o"), **styles}
    handles = [
        pyplot.Line2D([], [], color=colour, marker=marker, linestyle="", label=label)
        for label, (colour, marker) in marks.items()
    ]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=4,
        frameon=False,
        fontsize=8,
        handletextpad=0.2,
        columnspacing=1.2,
    )
