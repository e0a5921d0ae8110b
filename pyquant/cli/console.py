"""The terminal: where the commands print, and how they write numbers."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table

from pyquant.analysis.units import decibels, megabytes, milliseconds

__all__ = [
    "WIDTH",
    "console",
    "decibels",
    "megabytes",
    "milliseconds",
    "new_table",
    "show",
    "show_error",
    "silence_libraries",
    "stage",
]

#: Tables are laid out for this many columns; also the width where there is no terminal.
WIDTH = 100


def console() -> Console:
    """A console on stdout, at most :data:`WIDTH` columns wide."""
    return _console(sys.stdout)


def show(renderable: RenderableType) -> None:
    """Prints text or a table on stdout, with an empty line behind a table."""
    console().print(renderable, end="\n\n" if isinstance(renderable, Table) else "\n")


def show_error(message: str) -> None:
    """Prints an error on stderr, its first word in red."""
    # soft_wrap: paths and names in messages stay whole, for people who copy them.
    _console(sys.stderr).print(f"[bold red]Error:[/] {escape(message)}", soft_wrap=True)


def stage(text: str) -> Any:
    """A context manager: a spinner with ``text`` on a terminal's stderr, else nothing."""
    return _console(sys.stderr).status(text)


def new_table(
    title: str, *columns: str, right: tuple[str, ...] = (), whole: tuple[str, ...] = ()
) -> Table:
    """An empty table; the columns in ``right`` hold numbers, those in ``whole`` are not folded."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=name in right + whole,
            overflow="fold",
        )
    return table


def silence_libraries() -> None:
    """Keeps other packages' warnings and logs off the terminal, unless Python was told ``-W``."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    for name in ("torch", "torchao", "executorch", "root"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _console(file: Any) -> Console:
    found = Console(file=file, highlight=False)
    width = min(found.width, WIDTH) if found.is_terminal else WIDTH
    return Console(file=file, width=width, highlight=False)
