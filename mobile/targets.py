"""Model files as targets of :func:`pyquant.analyze`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pyquant.analysis.targets import Target
from pyquant.errors import ExportError, IoError
from pyquant.mobile.manifest import FILE_NAME, Manifest
from pyquant.mobile.runtimes import LOADERS, why_not_run

#: What each file is, for people, and its target by suffix.
_KINDS = {
    ".pte": ("executorch", "ExecuTorch"),
    ".ptl": ("torchscript", "PyTorch Mobile"),
    ".pt": ("libtorch", "LibTorch"),
    ".pyq": ("program", "pyquant"),
}


def targets(*paths: str | os.PathLike[str]) -> list[Target]:
    """The model files among ``paths``, loaded, each in its own runtime.

    Args:
        paths: ``.pte``, ``.ptl`` and ``.pyq`` files, and bundles, of which all that can run here
            are taken.

    Raises:
        ExportError: A file is of another kind, or its runtime refuses it.
        IoError: There is no such file, or a folder is no bundle.
    """
    found: list[Target] = []
    for file in model_files(*paths):
        name = f"{_KINDS[file.suffix][1]} ({file.suffix})"
        if any(target.name == name for target in found):
            name = f"{_KINDS[file.suffix][1]} ({file})"
        found.append(_load(file, name))
    return found


def _load(file: Path, name: str) -> Target:
    kind, _ = _KINDS[file.suffix]
    try:
        loaded = LOADERS[kind](file)
    except ExportError:
        raise
    except Exception as error:  # other people's runtimes
        raise ExportError(f"the {kind} file {file} cannot be loaded: {error}") from error
    return Target(name, lambda *inputs: loaded.run(inputs), file.stat().st_size, loaded.batch_size)


def model_files(*paths: str | os.PathLike[str]) -> list[Path]:
    """The files that :func:`targets` loads; raises as that does, but for files that are damaged."""
    files = [file for path in paths for file in _files(Path(path))]
    for file in files:
        if file.suffix not in _KINDS:
            raise ExportError(f"{file} is no {', '.join(_KINDS)} file and no bundle")
    return files


def _files(path: Path) -> Iterator[Path]:
    try:
        if not path.is_dir():
            path.stat()
            yield path
            return
        manifest = Manifest.from_json((path / FILE_NAME).read_text(encoding="utf-8"))
    except OSError as error:
        raise IoError(f"cannot read {error.filename}: {error.strerror}") from error
    for record in manifest.files:
        if record.target in LOADERS and why_not_run(record.target) is None:
            yield path / record.name
