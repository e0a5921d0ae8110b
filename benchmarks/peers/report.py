"""Results as tables for the terminal, Markdown and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from benchmarks.peers.compare import STATISTICS, Results, best_peer, geometric_mean, ours, ratio
from benchmarks.peers.measure import PeerResult, Setting
from pyquant.cli.console import decibels, new_table


def network_table(network: str, results: list[PeerResult]) -> Table:
    """One network: a row per peer."""
    columns = ("ms", "median", "min", "ours/median", "ours/min", "SQNR", "prepared", "best variant")
    table = new_table(network, *columns, right=columns[1:7], whole=("ms",))
    mine = ours(results)
    for result in results:
        if result.failure is not None:
            table.add_row(result.peer.label, "failed")
            continue
        relative = [
            "" if mine is None else f"{statistic(mine) / statistic(result):.2f}"
            for statistic in STATISTICS.values()
        ]
        table.add_row(
            result.peer.label,
            f"{result.median * 1e3:.2f}",
            f"{result.minimum * 1e3:.2f}",
            *relative,
            decibels(result.sqnr[result.variant]),
            f"{result.preparation:.0f} s",
            result.variant,
            style="bold" if result.peer.ours else None,
        )
    failures = [f"{one.peer.label}: {one.failure}" for one in results if one.failure is not None]
    if failures:
        table.caption = escape("\n".join(failures))
        table.caption_justify = "left"
    return table


def summary_table(results: Results) -> Table:
    """pyquant's time over the best peer's, network by network."""
    table = new_table(
        "pyquant / best peer", "", "median", "min", "best peer", right=("median", "min")
    )
    for network, one in results.items():
        best = best_peer(one, STATISTICS["median"])
        cells = [_number(ratio(one, statistic)) for statistic in STATISTICS.values()]
        table.add_row(network, *cells, "" if best is None else best.peer.label)
    means = [_number(geometric_mean(results, statistic)) for statistic in STATISTICS.values()]
    table.add_row("geometric mean", *means, "", style="bold")
    return table


def markdown(results: Results, machine: Mapping[str, str], setting: Setting) -> str:
    """Peers by networks: milliseconds, median / minimum, and the ratios below."""
    lines = [f"- {label}: {text}" for label, text in machine.items()]
    lines += [
        "",
        f"Milliseconds, median / minimum; {setting.threads} thread(s), batch {setting.batch}, "
        f"{setting.rounds} interleaved rounds.",
        "",
        "| | " + " | ".join(results) + " | geometric mean |",
        "|---" + "|---:" * (len(results) + 1) + "|",
    ]
    labels = {result.peer.label: result.peer.ours for one in results.values() for result in one}
    for label, bold in labels.items():
        cells = [_cell(one, label) for one in results.values()]
        lines.append(_row(label, [*cells, ""], bold))
    for name, statistic in STATISTICS.items():
        ratios = [_number(ratio(one, statistic)) for one in results.values()]
        ratios.append(_number(geometric_mean(results, statistic)))
        lines.append(_row(f"pyquant / best peer, {name}", ratios, bold=False))
    failures = {
        f"{result.peer.label} on {network}: {result.failure}"
        for network, one in results.items()
        for result in one
        if result.failure is not None
    }
    if failures:
        lines += ["", "Failed:", "", *(f"- {text}" for text in sorted(failures))]
    return "\n".join(lines) + "\n"


def as_json(results: Results, machine: Mapping[str, str], setting: Setting) -> dict[str, Any]:
    """Every timed call, in seconds, for other evaluations."""
    return {
        "machine": dict(machine),
        "threads": setting.threads,
        "batch": setting.batch,
        "rounds": setting.rounds,
        "networks": {
            network: {
                result.peer.name: {
                    "failure": result.failure,
                    "preparation": result.preparation,
                    "variants": {
                        name: {
                            "median": timing.median,
                            "min": timing.minimum,
                            "sqnr": result.sqnr[name],
                            "seconds": timing.seconds,
                        }
                        for name, timing in result.timings.items()
                    },
                }
                for result in one
            }
            for network, one in results.items()
        },
    }


def _cell(results: Any, label: str) -> str:
    for result in results:
        if result.peer.label == label and result.timings:
            return f"{result.median * 1e3:.2f} / {result.minimum * 1e3:.2f}"
    return "-"


def _row(label: str, cells: list[str], bold: bool) -> str:
    texts = [f"**{text}**" if bold and text else text for text in (label, *cells)]
    return "| " + " | ".join(texts) + " |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
