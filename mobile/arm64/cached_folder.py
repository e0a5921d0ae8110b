"""Folders of downloads: complete, or not there; and not used when they are damaged."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pyquant.errors import IoError

#: Written last, beside the folder's content.
STAMP = "complete.json"


def default_cache() -> Path:
    """Where they are kept unless told otherwise: ``~/.cache/pyquant/arm64``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pyquant" / "arm64"


def cached_folder(cache: Path, name: str, key: Any, make: Callable[[Path], None]) -> Path:
    """A folder in ``cache`` that ``make`` fills, unless it has been made before.

    Args:
        name: Begins the folder's name.
        key: Of JSON types: all that the content depends on. Another key is another folder.
        make: Fills the empty folder that it is given. If it raises, nothing is kept; if the process
            is killed, the next call clears what is left. One process at a time makes one.

    Raises :class:`IoError` if the folder is there but not as it was made, or cannot be written.
    """
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
    folder = cache / f"{name}-{digest}"
    if not folder.exists():
        with _alone_in(cache):
            if not folder.exists():  # nobody has made it while this process waited
                _make(folder, key, make)
    _check(folder)
    return folder


@contextlib.contextmanager
def _alone_in(cache: Path) -> Iterator[None]:
    """Waits until no other process makes a folder in ``cache``; a dead one does not count."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(cache, os.O_RDONLY)
    except OSError as error:
        raise IoError(f"the cache {cache} cannot be written: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make(folder: Path, key: Any, make: Callable[[Path], None]) -> None:
    for left in folder.parent.glob(f"{_unfinished(folder)}*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        made = Path(tempfile.mkdtemp(prefix=_unfinished(folder), dir=folder.parent))
    except OSError as error:
        raise IoError(f"the cache {folder.parent} cannot be written: {error}") from error
    try:
        make(made)
        stamp = {"key": key, "content": _content(made)}
        (made / STAMP).write_text(json.dumps(stamp, indent=2) + "\n")
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _unfinished(folder: Path) -> str:
    return f".{folder.name}."


def _check(folder: Path) -> None:
    try:
        recorded = json.loads((folder / STAMP).read_text())["content"]
        found = _content(folder)
        reason = "" if recorded == found else f"it holds {found} instead of {recorded}"
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{STAMP} cannot be read: {error!r}"
    if reason:
        raise IoError(f"{folder} is damaged ({reason}). To make it anew: rm -r {folder}")


def _content(folder: Path) -> dict[str, int]:
    """Count and bytes of the files: a lost, cut or foreign one shows, and it takes no second."""
    sizes = [
        (Path(parent) / name).lstat().st_size
        for parent, _, names in os.walk(folder)
        for name in names
        if name != STAMP
    ]
    return {"files": len(sizes), "bytes": sum(sizes)}
