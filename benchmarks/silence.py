"""Keeps other libraries' chatter off the terminal while they prepare a network."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from pyquant.capture.quiet import quiet


def own_stderr() -> TextIO:
    """The terminal, for text that is to be seen while :func:`silence` holds."""
    return os.fdopen(os.dup(2), "w", encoding="utf-8")


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Mutes warnings, and all that is written to stdout and stderr, by C++ code too."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        with quiet(streams=True):
            yield
    finally:
        for descriptor, original in zip((1, 2), saved, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
        os.close(nowhere)
