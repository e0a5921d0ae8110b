"""Writes a bundle's folder in one piece: it appears complete, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pyquant.errors import ExportError, IoError
from pyquant.mobile.manifest import FILE_NAME, Manifest


@contextlib.contextmanager
def staged_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside ``output`` that takes its place when the body ends well.

    ``output`` may be absent, an empty folder, or an older bundle, which is replaced as a whole; if
    the body raises, it stays as it was. Missing parent folders are made.

    Raises :class:`IoError` before the body runs if ``output`` is anything else or cannot be
    written.
    """
    output = Path(os.path.realpath(output))
    try:
        check_replaceable(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise io_error(output, error) from error
    try:
        yield staging
        try:
            _swap(staging, output)
        except OSError as error:
            raise io_error(output, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_replaceable(output: Path) -> None:
    """Raises :class:`IoError` if ``output`` holds anything but a bundle's own files."""
    if not os.path.lexists(output):
        return
    if not output.is_dir():
        raise IoError(f"{output} exists and is not a folder")
    names = {entry.name for entry in output.iterdir()}
    if not names:
        return
    known: set[str] = set()
    with contextlib.suppress(OSError, ExportError, UnicodeDecodeError):
        manifest = Manifest.from_json((output / FILE_NAME).read_text(encoding="utf-8"))
        known = {FILE_NAME, *(record.name for record in manifest.files), *manifest.documents}
    strangers = sorted(names - known)
    if strangers:
        raise IoError(
            f"{output} is not replaced: it holds {strangers[0]}, which is not part of a pyquant "
            "bundle"
        )


def _swap(staging: Path, output: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    staging.chmod(0o777 & ~umask)
    if not output.exists():
        staging.rename(output)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        output.rename(aside / "old")
        try:
            staging.rename(output)
        except OSError:
            (aside / "old").rename(output)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def io_error(output: Path, error: OSError) -> IoError:
    """``error`` as an :class:`IoError` that names the bundle; one that is stays as it is."""
    if isinstance(error, IoError):
        return error
    return IoError(f"the bundle cannot be written to {output}: {error}")
