"""Files that are there whole, or as they were before."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pyquant.errors import IoError


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes ``data`` to ``path`` atomically.

    Raises:
        IoError: The file cannot be written.
    """
    target = Path(path)
    temporary: str | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise IoError(f"cannot write {target}: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
