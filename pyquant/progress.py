"""Progress bars: on stderr, and only where that is a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


def tracked(
    items: Iterable[_Item], description: str, *, total: int | None = None, show: bool = True
) -> Iterator[_Item]:
    """The items, with a progress bar while they are taken.

    Args:
        items: Anything.
        description: What stands before the bar.
        total: How many there are; a bar without it only moves.
        show: Whether to draw a bar at all.
    """
    if not show:
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not console.is_terminal:
        yield from items
        return
    with Progress(console=console, transient=True) as bar:
        yield from bar.track(items, total=total, description=description)
