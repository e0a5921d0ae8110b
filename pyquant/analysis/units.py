"""Numbers as text, with their units: the commands and the report write them alike."""

from __future__ import annotations

import math


def megabytes(size: int) -> str:
    """``4808512`` as ``4.81 MB``; below 100 kB in kB, below 1 kB in bytes."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1e6:.2f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def milliseconds(seconds: float) -> str:
    """With three significant digits or two decimals."""
    value = seconds * 1e3
    return f"{value:.3f} ms" if value < 1 else f"{value:.2f} ms"


def decibels(value: float) -> str:
    """An SQNR; exact equality is infinite."""
    return "exact" if value == math.inf else f"{value:.1f} dB"


def percent(share: float) -> str:
    """``0.0123`` as ``1.23 %``; what is not zero never looks like zero."""
    if share == 0:
        return "0 %"
    if share < 0.0001:
        return "< 0.01 %"
    return f"{100 * share:.2f} %" if share < 0.1 else f"{100 * share:.1f} %"


def quantity(value: float) -> str:
    """Three significant digits, without an exponent from 0.001 to 100 000."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2e}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def shape(sizes: tuple[int, ...]) -> str:
    """``1x32x112x112``."""
    return "x".join(map(str, sizes)) or "scalar"
