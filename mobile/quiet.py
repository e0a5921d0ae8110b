"""Keeps other libraries' chatter off the user's terminal while a bundle is made."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides warnings, log records and whatever is written to file descriptor 2.

    ExecuTorch and the libraries that it imports log from Python and from C++ alike, so the
    descriptor itself is redirected. It belongs to the process: other threads' messages on stderr
    are hidden too. If the body raises, the last lines that were hidden are added to the exception
    as a note.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as hidden:
        saved = os.dup(2)
        disabled = logging.root.manager.disable
        try:
            os.dup2(hidden.fileno(), 2)
            logging.disable(logging.CRITICAL)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as error:
            sys.stderr.flush()
            size = hidden.seek(0, os.SEEK_END)
            hidden.seek(max(0, size - 2000))
            tail = hidden.read().decode(errors="replace").strip()
            if tail and hasattr(error, "add_note"):  # Python 3.11
                error.add_note(f"Messages hidden before this: {tail}")
            raise
        finally:
            sys.stderr.flush()
            logging.disable(disabled)
            os.dup2(saved, 2)
            os.close(saved)
