"""Makes a bundle: every target's file, checked against the quantized model before it is kept."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pyquant.errors import ExportError
from pyquant.ir.program import Program
from pyquant.mobile import compare, executorch, golden, torchscript
from pyquant.mobile.manifest import (
    FILE_NAME,
    FileRecord,
    Manifest,
    Preprocessing,
    TensorRecord,
    preprocessing_from,
)
from pyquant.mobile.runtimes import as_list
from pyquant.mobile.staging import io_error, staged_folder
from pyquant.mobile.verify import check_file
from pyquant.version import __version__

TARGETS = ("executorch", "torchscript")


class ExportableModel(Protocol):
    """What :func:`export_bundle` needs of a model; ``pyquant.QuantizedModule`` has it."""

    @property
    def program(self) -> Program | None:
        """The whole model as a Program, or ``None`` if parts of it stayed in float."""

    @property
    def graph(self) -> torch.fx.GraphModule | None:
        """The q/dq graph it came from, or ``None`` if it was loaded from a file."""

    def __call__(self, *inputs: Tensor) -> Any:
        """Runs the model on float32 tensors."""

    def save(self, path: Any, /) -> None:
        """Writes ``model.pyq``."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk."""

    path: Path
    manifest: Manifest


def export_bundle(
    model: ExportableModel,
    output: str | os.PathLike[str],
    targets: Sequence[str] = TARGETS,
    example_inputs: Tensor | Sequence[Tensor] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    progress: bool = True,
) -> Bundle:
    """Writes ``output``, a folder with the model for every target; see :mod:`pyquant.mobile`.

    Args:
        model: What ``pyquant.lower`` or ``pyquant.quantize`` returned.
        output: The folder. It may be absent, empty, or an older bundle, which is replaced.
        targets: ``"executorch"``, ``"torchscript"`` or both.
        example_inputs: float32, NCHW if rank 4; a real sample makes the best golden input (its
            values are rounded to the model's input steps). The ``.pte`` file takes exactly these
            shapes. Seeded random data if ``None``.
        preprocessing: For the app, copied into the manifest.
        class_names: One per output class, copied into the manifest.
        progress: Says on stderr what is being done.

    Raises:
        ExportError: A target cannot express the model, its toolchain is not installed, or its file
            computes something else than the model.
        IoError: ``output`` cannot be written. Nothing is left behind in either case.
    """
    unknown = sorted(set(targets) - set(TARGETS))
    if unknown:
        raise ExportError(f"unknown target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    described = None if preprocessing is None else preprocessing_from(preprocessing)
    inputs = _example_inputs(model.program, example_inputs)

    def run(*values: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return [value.detach().clone() for value in as_list(model(*values))]

    with staged_folder(Path(output)) as folder:
        outputs = run(*inputs)
        input_steps = golden.input_steps(model.program, inputs)
        steps = golden.output_steps(model.program, outputs)
        tolerance = compare.tolerance(run, inputs, outputs, input_steps, steps)
        writer = _Writer(folder, model, inputs, progress)
        records = []
        if model.program is not None:
            records.append(writer.program())
        if "executorch" in targets:
            records.append(writer.executorch())
        if "torchscript" in targets:
            records.append(writer.torchscript())
        for position, record in enumerate(records):
            writer.say(f"checking {record.name}")
            difference = check_file(
                folder / record.name, record.target, inputs, outputs, steps, tolerance
            )
            records[position] = replace(record, difference=difference)
        records.append(writer.file("golden_input.bin", "golden", golden.to_bytes(inputs)))
        records.append(writer.file("golden_output.bin", "golden", golden.to_bytes(outputs)))
        manifest = Manifest(
            model_name=model.program.name if model.program else type(model).__name__,
            created_by=f"pyquant {__version__}",
            inputs=_describe("input", inputs, input_steps),
            outputs=_describe("output", outputs, steps),
            files=tuple(records),
            tolerance=tolerance,
            preprocessing=described,
            class_names=None if class_names is None else tuple(class_names),
            libraries={
                name: _version(name)
                for name in ("torch", *(["executorch"] if "executorch" in targets else []))
            },
        )
        writer.write(FILE_NAME, manifest.to_json().encode())
    writer.say(f"wrote {output}")
    return Bundle(Path(output), manifest)


class _Writer:
    """Writes the model files into ``folder`` and describes them."""

    def __init__(
        self, folder: Path, model: ExportableModel, inputs: tuple[Tensor, ...], progress: bool
    ) -> None:
        self.folder, self.model, self.inputs, self.progress = folder, model, inputs, progress

    def say(self, text: str) -> None:
        if self.progress:
            print(f"pyquant: {text}", file=sys.stderr, flush=True)

    def program(self) -> FileRecord:
        self.say("writing model.pyq")
        path = self.folder / "model.pyq"
        self.model.save(path)
        return self._describe(path, "program", runtime="pyquant")

    def executorch(self) -> FileRecord:
        self.say("writing model.pte (ExecuTorch takes up to a minute)")
        if self.model.graph is None:
            raise ExportError(
                "the executorch target needs the graph from pyquant.convert, which a loaded model "
                "does not have: export right after quantizing, or without this target"
            )
        content, details = executorch.to_executorch(self.model.graph, self.inputs)
        return replace(
            self.file("model.pte", "executorch", content),
            runtime="ExecuTorch with XNNPACK",
            min_version=executorch.MIN_RUNTIME,
            details=details,
        )

    def torchscript(self) -> FileRecord:
        self.say("writing model.ptl")
        if self.model.program is None:
            raise ExportError(
                "the torchscript target needs a model that is quantized as a whole; this one has "
                "operators that stayed in float: export without this target"
            )
        content, notes = torchscript.to_torchscript(self.model.program, self.inputs)
        return replace(
            self.file("model.ptl", "torchscript", content),
            runtime="PyTorch Mobile with QNNPACK",
            min_version=torchscript.MIN_RUNTIME,
            notes=tuple(notes),
        )

    def file(self, name: str, target: str, content: bytes) -> FileRecord:
        self.write(name, content)
        return self._describe(self.folder / name, target)

    def write(self, name: str, content: bytes) -> None:
        try:
            (self.folder / name).write_bytes(content)
        except OSError as error:
            raise io_error(self.folder, error) from error

    def _describe(self, path: Path, target: str, runtime: str = "") -> FileRecord:
        content = path.read_bytes()
        return FileRecord(
            name=path.name,
            target=target,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            runtime=runtime,
        )


def _example_inputs(
    program: Program | None, example_inputs: Tensor | Sequence[Tensor] | None
) -> tuple[Tensor, ...]:
    if example_inputs is not None:
        given = [value.detach().to("cpu").contiguous() for value in as_list(example_inputs)]
        return golden.on_grid(program, given)
    if program is None:
        raise ExportError("a model that is not one Program needs example_inputs")
    return golden.random_inputs(program)


def _describe(
    kind: str, tensors: Sequence[Tensor], steps: Sequence[float]
) -> tuple[TensorRecord, ...]:
    return tuple(
        TensorRecord(
            name=f"{kind}_{position}",
            shape=tuple(tensor.shape),
            dtype=str(tensor.dtype).removeprefix("torch."),
            layout="NCHW" if tensor.dim() == 4 else "row-major",
            step=step,
        )
        for position, (tensor, step) in enumerate(zip(tensors, steps, strict=True))
    )


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
