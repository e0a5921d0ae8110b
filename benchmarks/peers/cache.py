"""Files that take long to prepare, kept from one run of the benchmark to the next."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.machine import versions


def default_folder() -> Path:
    """The user's cache folder for this benchmark."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pyquant" / "peers"


class Cache:
    """Folders of files, named after what they depend on.

    Args:
        root: Where they are kept; made when needed.
        key: What every file depends on, such as the network and the batch size.
    """

    def __init__(self, root: Path, *key: object) -> None:
        self._root = root
        self._key = key

    def folder(self, name: str, distributions: Iterable[str], make: Callable[[Path], None]) -> Path:
        """A folder that ``make`` fills, unless it was made before by the same versions.

        Args:
            name: What the files are; it begins the folder's name.
            distributions: The packages whose versions they depend on, besides torch.
            make: Fills the folder that it is given. If it raises, nothing is kept.
        """
        key = (self._key, sorted(versions(["torch", "torchvision", *distributions]).items()))
        folder = self._root / f"{name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}"
        if folder.is_dir():
            return folder
        self._root.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._root))
        try:
            make(unfinished)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return folder
