"""Checks that come before the work, which takes minutes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pyquant.errors import ExportError, IoError


def check_folder(output: Path) -> None:
    """Raises :class:`IoError` if ``output`` cannot become a folder."""
    existing = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise IoError(f"cannot write to {output}: {existing} is not a folder")


def check_file(output: Path) -> None:
    """Raises :class:`IoError` if ``output`` cannot become a file."""
    if output.is_dir():
        raise IoError(f"cannot write {output}: it is a folder")
    if not output.absolute().parent.is_dir():
        raise IoError(f"cannot write {output}: there is no folder {output.parent}")


def check_executorch() -> None:
    """Raises :class:`ExportError` if ExecuTorch is not installed."""
    if importlib.util.find_spec("executorch") is None:
        raise ExportError(
            "the executorch target needs ExecuTorch: pip install 'pyquant[mobile]' (or quantize "
            "with --targets torchscript,pyq)"
        )
