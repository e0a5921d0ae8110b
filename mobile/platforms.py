"""Bundles for apps: a folder, and a zip of it, for each phone platform."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pyquant.errors import ExportError
from pyquant.mobile import coreml
from pyquant.mobile.bundle import DEFAULT_TARGETS, Bundle, export_bundle
from pyquant.mobile.manifest import FILE_NAME, FileRecord, Manifest
from pyquant.mobile.staging import io_error, staged_folder
from pyquant.mobile.target_writer import ExportableModel

README = "README.md"
SCHEMA = "manifest.schema.json"


@dataclass(frozen=True)
class Platform:
    """One kind of phone.

    Attributes:
        name: Of the folder, of the zip, and of the README's template.
        targets: Whose files its apps can load.
    """

    name: str
    targets: tuple[str, ...]


PLATFORMS: dict[str, Platform] = {
    platform.name: platform
    for platform in (
        Platform("android", ("executorch", "torchscript")),
        Platform("ios", ("executorch", "torchscript", "coreml")),
    )
}


def export_platforms(
    model: ExportableModel,
    output: str | os.PathLike[str],
    platforms: Sequence[str] = tuple(PLATFORMS),
    targets: Sequence[str] | None = None,
    **options: Any,
) -> dict[str, Bundle]:
    """Writes ``OUTPUT/PLATFORM/`` and ``OUTPUT/PLATFORM.zip`` for each of ``platforms``.

    Each folder is a bundle that :func:`pyquant.mobile.verify` takes, with the model files that the
    platform's apps can load, a README for the app's developer and the manifest's JSON schema.

    Args:
        model: What ``pyquant.lower``, ``quantize`` or ``load`` returned.
        output: A folder; it is made if it is missing.
        platforms: ``"android"``, ``"ios"`` or both.
        targets: As for :func:`pyquant.mobile.export`; those that a platform has no use for are left
            out there. If ``None``, ``"executorch"`` and ``"torchscript"``, and for iOS ``"coreml"``
            if coremltools is installed.
        options: The others of :func:`pyquant.mobile.export`.

    Raises:
        ExportError: As :func:`pyquant.mobile.export`; or there is no such platform.
        IoError: The folders cannot be written. Those that were complete before stay.
    """
    unknown = sorted(set(platforms) - set(PLATFORMS))
    if unknown:
        raise ExportError(f"unknown platform {unknown[0]!r}; there are {', '.join(PLATFORMS)}")
    if targets is None:
        coreml_too = "ios" in platforms and coreml.available()
        targets = (*DEFAULT_TARGETS, "coreml") if coreml_too else DEFAULT_TARGETS
    with tempfile.TemporaryDirectory() as folder:
        whole = export_bundle(model, Path(folder) / "bundle", targets, **options)
        return {name: _assemble(whole, PLATFORMS[name], Path(output)) for name in platforms}


def _assemble(whole: Bundle, platform: Platform, output: Path) -> Bundle:
    """The part of ``whole`` that concerns ``platform``, as a bundle of its own."""
    files = tuple(
        record
        for record in whole.manifest.files
        if record.target == "golden" or record.target in platform.targets
    )
    manifest = dataclasses.replace(
        whole.manifest, platform=platform.name, files=files, documents=(README, SCHEMA)
    )
    with staged_folder(output / platform.name) as folder:
        for record in files:
            shutil.copyfile(whole.path / record.name, folder / record.name)
        (folder / FILE_NAME).write_text(manifest.to_json(), encoding="utf-8")
        (folder / README).write_text(_readme(manifest, files), encoding="utf-8")
        (folder / SCHEMA).write_text(_schema(), encoding="utf-8")
        with _replacing(output / f"{platform.name}.zip") as archive:
            _zip(folder, platform.name, archive)
    return Bundle(output / platform.name, manifest)


def _readme(manifest: Manifest, files: Sequence[FileRecord]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(f"{manifest.platform}.md").render(
        manifest=manifest, files=files
    )


def _schema() -> str:
    return resources.files(__package__).joinpath(SCHEMA).read_text(encoding="utf-8")


def _zip(folder: Path, name: str, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as target:
        for path in sorted(folder.iterdir()):
            target.write(path, f"{name}/{path.name}")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary file that takes ``path``'s place when the body ends well."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(descriptor)
        temporary = Path(name)
        try:
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise io_error(path, error) from error
