"""Dotted names of modules: what is inside of what, and what a wrong one may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


def enclosing_module(name: str, others: Collection[str]) -> str | None:
    """The outermost of ``others`` that ``name`` is inside of; none is inside of itself."""
    parts = name.split(".")
    outer = (".".join(parts[:count]) for count in range(1, len(parts)))
    return next((path for path in outer if path in others), None)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """``did you mean 'a', 'b'?``: those of ``names`` that are like ``name``; empty without any."""
    near = difflib.get_close_matches(name, list(names), n=5, cutoff=0.5)
    return f"did you mean {', '.join(map(repr, near))}?" if near else ""
