"""What a bundle says about itself: the dataclasses behind ``manifest.json``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeVar

from pyquant.errors import ExportError

FORMAT = "pyquant-bundle"
SCHEMA_VERSION = 1
FILE_NAME = "manifest.json"

_Record = TypeVar("_Record")


@dataclass(frozen=True)
class Preprocessing:
    """How an app makes the model's input from an image; all fields are optional.

    Attributes:
        resize: Height and width that the image is made to cover, with its proportions kept:
            bilinear with antialiasing, as torchvision's ``Resize`` of the shorter side.
        crop: Height and width of the centre crop after that; without it, that of ``resize``.
        mean, std: Per channel, in units of the scaled pixel: ``(pixel * scale - mean) / std``.
        scale: What a pixel value 0..255 is multiplied by.
        color_order: ``"RGB"``, ``"BGR"`` or ``"GRAY"``.
    """

    resize: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    scale: float = 1 / 255
    color_order: str = "RGB"


@dataclass(frozen=True)
class TensorRecord:
    """An input or output; ``step`` is one step of its quantization."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: str = "NCHW"
    step: float = 0.0


@dataclass(frozen=True)
class Difference:
    """How far a target's outputs are from the Program's, in steps of the output's scale."""

    max_steps: float
    mean_steps: float
    cosine: float


@dataclass(frozen=True)
class Tolerance:
    """What a target's outputs may differ by at most; see :mod:`pyquant.mobile.compare`."""

    mean_steps: float
    cosine: float


@dataclass(frozen=True)
class FileRecord:
    """One file of the bundle.

    Attributes:
        name: Relative to the bundle's folder, without subfolders.
        target: ``"program"``, ``"golden"``, or a key of :data:`~.target_writer.TARGETS`.
        runtime, min_version: What loads it.
        size: In bytes.
        sha256: Of the content, in hexadecimal.
        difference: Against the golden output, as measured before the bundle was written; ``None``
            for a model file that could not be run there.
        details: E.g. ``{"delegates": 1, "undelegated": {}}``.
        notes: For people.
    """

    name: str
    target: str
    size: int
    sha256: str
    runtime: str = ""
    min_version: str = ""
    difference: Difference | None = None
    details: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """Everything that an app, or :func:`pyquant.mobile.verify`, needs to know.

    ``float_operators`` are those of the model that are not in int8, with the reasons;
    ``platform`` is ``"android"`` or ``"ios"`` for a bundle that is meant for one; ``documents`` are
    further files in the folder, for people.
    """

    model_name: str
    created_by: str
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    files: tuple[FileRecord, ...]
    tolerance: Tolerance
    golden_input: str = "golden_input.bin"
    golden_output: str = "golden_output.bin"
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] | None = None
    float_operators: tuple[str, ...] = ()
    platform: str | None = None
    documents: tuple[str, ...] = ()
    libraries: dict[str, str] = field(default_factory=dict)
    format: str = FORMAT
    schema_version: int = SCHEMA_VERSION

    def file(self, target: str) -> FileRecord | None:
        """The file of ``target``, if the bundle has one."""
        return next((record for record in self.files if record.target == target), None)

    def to_json(self) -> str:
        """The text of ``manifest.json``."""
        fields = dataclasses.asdict(self)
        return json.dumps(fields, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Reads and checks a manifest; raises :class:`ExportError` if it is none, or too new."""
        try:
            fields = json.loads(text)
            if not isinstance(fields, dict) or fields.get("format") != FORMAT:
                raise ExportError(f"{FILE_NAME} is not a pyquant bundle's manifest")
            if fields.get("schema_version") != SCHEMA_VERSION:
                raise ExportError(
                    f"{FILE_NAME} has schema version {fields.get('schema_version')!r}; this "
                    f"pyquant reads version {SCHEMA_VERSION}"
                )
            fields["tolerance"] = _record(Tolerance, fields["tolerance"])
            names = fields.get("class_names")
            preprocessing = fields.get("preprocessing")
            fields["inputs"] = tuple(_record(TensorRecord, entry) for entry in fields["inputs"])
            fields["outputs"] = tuple(_record(TensorRecord, entry) for entry in fields["outputs"])
            fields["files"] = tuple(_file(entry) for entry in fields["files"])
            fields["class_names"] = None if names is None else tuple(map(str, names))
            fields["preprocessing"] = preprocessing and preprocessing_from(preprocessing)
            manifest = _record(cls, fields)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ExportError(f"{FILE_NAME} is damaged: {error}") from error
        for name in (*(record.name for record in manifest.files), *manifest.documents):
            if PurePosixPath(name).name != name or "\\" in name or name in ("", ".."):
                raise ExportError(f"{FILE_NAME} names a file outside the bundle: {name!r}")
        return manifest


def preprocessing_from(value: Preprocessing | Mapping[str, Any]) -> Preprocessing:
    """A :class:`Preprocessing` from itself or from a mapping of its fields.

    Raises :class:`ExportError` that names a field which does not exist.
    """
    if isinstance(value, Preprocessing):
        return value
    unknown = sorted(set(value) - {field.name for field in dataclasses.fields(Preprocessing)})
    if unknown:
        raise ExportError(f"preprocessing has no field {unknown[0]!r}")
    return _record(Preprocessing, value)


def _record(kind: type[_Record], fields: Mapping[str, Any]) -> _Record:
    """Makes a dataclass of JSON fields: lists become tuples, unknown names raise TypeError."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})


def _file(fields: Mapping[str, Any]) -> FileRecord:
    difference = fields.get("difference")
    record = _record(
        FileRecord, {**fields, "difference": difference and _record(Difference, difference)}
    )
    if not (isinstance(record.name, str) and isinstance(record.sha256, str)):
        raise TypeError("a file's name and sha256 must be strings")
    return record
