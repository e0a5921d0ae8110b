"""The progress bar of calibration and of learning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


def tracked(items: Iterable[_T], title: str, total: int | None, progress: bool) -> Iterator[_T]:
    """The items, with a progress bar if it is wanted and stderr is a terminal.

    Args:
        items: What to iterate over.
        title: What stands before the bar.
        total: How many items there are; ``None`` if that is unknown.
        progress: Whether a bar is wanted.
    """
    if not progress:
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from items
        return
    with Progress(console=console, transient=True) as bar:
        yield from bar.track(items, total=total, description=title)


def length(items: object) -> int | None:
    """How many items there are; ``None`` if they do not know."""
    try:
        return len(items)  # type: ignore[arg-type]
    except TypeError:
        return None
