"""What ``pyquant bench --profile`` shows: where the time goes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from pyquant.cli.console import new_table
from pyquant.errors import IoError

if TYPE_CHECKING:
    from rich.table import Table

    from pyquant.targets.profile import Profile, ProfiledStep

_COLUMNS = ("node", "operator", "output", "engine", "us", "share", "M MAC", "GMAC/s", "of peak")


def profile_table(profile: Profile, peak: float | None, threads: int) -> Table:
    """A row per step and one for all; medians.

    Args:
        profile: Of a Program.
        peak: Multiply-adds per second of one core at most, if known.
        threads: That the runs used.
    """
    limit = None if peak is None else peak * threads
    title = "Steps"
    if limit is not None:
        title += f"; the peak measured is {limit / 1e9:.0f} GMAC/s"
    table = new_table(title, *_COLUMNS, right=_COLUMNS[4:], whole=("output", "engine"))
    total = sum(step.median for step in profile.steps)
    for step in profile.steps:
        table.add_row(
            escape(" + ".join(step.names)),
            " + ".join(step.kinds),
            "x".join(map(str, step.output_shape)),
            step.engine,
            f"{step.median * 1e6:.1f}",
            f"{step.median / total:.1%}",
            *_rates(step, step.median, limit),
        )
    table.add_section()
    table.add_row("all", "", "", "", f"{total * 1e6:.1f}", "", *_rates(profile, total, limit))
    return table


def write_trace(profile: Profile, path: Path) -> None:
    """Writes the fastest run as Chrome trace JSON.

    Raises:
        IoError: The file cannot be written.
    """
    try:
        path.write_text(json.dumps(profile.chrome_trace()), encoding="utf-8")
    except OSError as error:
        raise IoError(f"cannot write {path}: {error.strerror or error}") from error


def _rates(work: Profile | ProfiledStep, seconds: float, limit: float | None) -> tuple[str, ...]:
    """The cells of M MAC, GMAC/s and the share of the peak."""
    if not work.multiply_adds:
        return "", "", ""
    rate = work.multiply_adds / seconds
    share = "" if limit is None else f"{rate / limit:.0%}"
    return f"{work.multiply_adds / 1e6:.2f}", f"{rate / 1e9:.1f}", share
