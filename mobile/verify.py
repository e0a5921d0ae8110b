"""Checks a bundle: its files' sums, and that each of them computes the golden output."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from pyquant.errors import ExportError, IoError
from pyquant.mobile import golden
from pyquant.mobile.compare import check_outputs
from pyquant.mobile.manifest import FILE_NAME, Difference, FileRecord, Manifest, Tolerance
from pyquant.mobile.runtimes import LOADERS, run, why_not_run


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` found.

    Attributes:
        manifest: The bundle's.
        differences: Each target's, from the golden output.
        not_run: The targets that this machine cannot run, with the reasons.
    """

    manifest: Manifest
    differences: dict[str, Difference]
    not_run: dict[str, str]


def verify(bundle: str | os.PathLike[str]) -> Verification:
    """Checks every file of the bundle folder against the manifest and the golden pair.

    SHA-256 sums first (a damaged file is never loaded), then each model file runs through its own
    runtime on the golden input, if that runtime exists for this machine, and
    :mod:`pyquant.mobile.compare` judges the result. The sums detect damage; they do not prove who
    made the bundle.

    Raises :class:`ExportError` that names the file or target and the numbers, and
    :class:`IoError` if the folder or a file cannot be read.
    """
    folder = Path(bundle)
    manifest, inputs, outputs = read_bundle(folder)
    steps = [record.step for record in manifest.outputs]
    reasons = {record.target: why_not_run(record.target) for record in manifest.files}
    not_run = {target: reason for target, reason in reasons.items() if reason is not None}
    differences = {
        record.target: check_file(
            folder / record.name, record.target, inputs, outputs, steps, manifest.tolerance
        )
        for record in manifest.files
        if record.target in LOADERS and record.target not in not_run
    }
    return Verification(manifest, differences, not_run)


def read_bundle(folder: Path) -> tuple[Manifest, list[Tensor], list[Tensor]]:
    """The manifest and the golden pair of a bundle whose files have the right sums.

    Raises as :func:`verify` does.
    """
    try:
        manifest = Manifest.from_json((folder / FILE_NAME).read_text(encoding="utf-8"))
        for record in manifest.files:
            check_sum(folder / record.name, record)
        inputs = golden.read(folder / manifest.golden_input, manifest.inputs)
        outputs = golden.read(folder / manifest.golden_output, manifest.outputs)
    except UnicodeDecodeError as error:
        raise ExportError(f"{FILE_NAME} is damaged: {error}") from error
    except OSError as error:
        raise IoError(f"the bundle {folder} cannot be read: {error}") from error
    return manifest, inputs, outputs


def check_sum(path: Path, record: FileRecord) -> None:
    """Raises :class:`ExportError` if ``path`` is not the file that ``record`` describes."""
    content = path.read_bytes()
    if len(content) != record.size or hashlib.sha256(content).hexdigest() != record.sha256:
        raise ExportError(
            f"{record.name} is damaged: its size or SHA-256 sum is not the one in {FILE_NAME}"
        )


def check_file(
    path: Path,
    target: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    steps: Sequence[float],
    tolerance: Tolerance,
) -> Difference:
    """Runs one model file and compares its outputs with the golden ones."""
    return check_outputs(target, outputs, run(target, path, inputs), steps, tolerance)
