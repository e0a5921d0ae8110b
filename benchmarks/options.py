"""Command line options that the benchmarks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click


def some_of(option: str, known: Iterable[str]) -> Callable[[Any], Any]:
    """An option that takes names out of ``known``, separated by commas; all by default."""
    names = tuple(known)

    def parse(_context: click.Context, _option: click.Parameter, value: str) -> list[str]:
        chosen = value.split(",")
        for name in chosen:
            if name not in names:
                raise click.BadParameter(f"{name!r} is none of {', '.join(names)}")
        return chosen

    return click.option(option, callback=parse, default=",".join(names), show_default=True)
