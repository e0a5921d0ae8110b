"""Silence for the libraries under pyquant, around our own calls into them and nowhere else."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

_NOISY_ROOTS = ("torch", "torchao")


def _noisy_loggers() -> list[logging.Logger]:
    """The loggers whose own level decides what torch and torchao print."""
    names = list(logging.Logger.manager.loggerDict)
    return [logging.getLogger(root) for root in _NOISY_ROOTS] + [
        logger
        for name in names
        if name.startswith(tuple(root + "." for root in _NOISY_ROOTS))
        and isinstance(logger := logging.Logger.manager.loggerDict.get(name), logging.Logger)
        and logger.level not in (logging.NOTSET, logging.CRITICAL)
    ]


@contextlib.contextmanager
def quiet(*, streams: bool = False) -> Iterator[None]:
    """Mutes warnings and the logs of torch and torchao while the block runs.

    Filters and levels are put back afterwards, whatever happens. Other libraries' loggers are not
    touched. Like :func:`warnings.catch_warnings`, this changes process-wide state for a while.

    Args:
        streams: Also swallow what the block prints to ``sys.stdout`` and ``sys.stderr``; only for
            blocks that run no code of the user.
    """
    loggers = [(logger, logger.level) for logger in _noisy_loggers()]
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if streams:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        try:
            for logger, _ in loggers:
                logger.setLevel(logging.CRITICAL + 1)
            yield
        finally:
            for logger, level in loggers:
                logger.setLevel(level)
