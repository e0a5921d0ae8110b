"""Makes a bundle: every target's file, checked against the quantized model before it is kept."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyquant.errors import ExportError
from pyquant.ir.program import Program
from pyquant.mobile import compare, golden
from pyquant.mobile.manifest import (
    FILE_NAME,
    Manifest,
    Preprocessing,
    TensorRecord,
    preprocessing_from,
)
from pyquant.mobile.runtimes import as_list, why_not_run
from pyquant.mobile.staging import staged_folder
from pyquant.mobile.target_writer import TARGETS, ExportableModel, TargetWriter
from pyquant.mobile.verify import check_file
from pyquant.version import __version__

#: What a bundle holds unless it is told otherwise.
DEFAULT_TARGETS = ("executorch", "torchscript")

#: What writes a target's file, beside torch.
_WRITERS = {"executorch": ("executorch",), "coreml": ("executorch", "coremltools")}


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk."""

    path: Path
    manifest: Manifest


def export_bundle(
    model: ExportableModel,
    output: str | os.PathLike[str],
    targets: Sequence[str] = DEFAULT_TARGETS,
    example_inputs: Tensor | Sequence[Tensor] | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    largest_batch: int | None = None,
    progress: bool = True,
) -> Bundle:
    """Writes ``output``, a folder with the model for every target; see :mod:`pyquant.mobile`.

    Args:
        model: What ``pyquant.lower`` or ``pyquant.quantize`` returned.
        output: The folder. It may be absent, empty, or an older bundle, which is replaced.
        targets: ``"executorch"``, ``"torchscript"``, ``"libtorch"`` for a full TorchScript file,
            and ``"coreml"`` for a second ``.pte`` file, which needs coremltools, and a phone or a
            Mac to be checked on.
        example_inputs: float32, NCHW if rank 4; a real sample makes the best golden input (its
            values are rounded to the model's input steps). The ``.pte`` file takes exactly these
            shapes. Seeded random data if ``None``.
        preprocessing: For the app, copied into the manifest.
        class_names: One per output class, copied into the manifest.
        largest_batch: The ``.pte`` file takes any batch up to this instead of the example's.
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
        name = model.program.name if model.program else type(model).__name__
        writer = TargetWriter(
            folder, model, inputs, largest_batch, _constants(name, described), progress
        )
        records = [] if model.program is None else [writer.program()]
        records += [TARGETS[target](writer) for target in targets]
        for position, record in enumerate(records):
            reason = why_not_run(record.target)
            if reason is not None:
                writer.say(f"{record.name} is not checked: {reason}")
                note = f"built, but never run: {reason}"
                records[position] = replace(record, notes=(*record.notes, note))
                continue
            writer.say(f"checking {record.name}")
            difference = check_file(
                folder / record.name, record.target, inputs, outputs, steps, tolerance
            )
            records[position] = replace(record, difference=difference)
        records.append(writer.file("golden_input.bin", "golden", golden.to_bytes(inputs)))
        records.append(writer.file("golden_output.bin", "golden", golden.to_bytes(outputs)))
        manifest = Manifest(
            model_name=name,
            created_by=f"pyquant {__version__}",
            inputs=_describe("input", inputs, input_steps),
            outputs=_describe("output", outputs, steps),
            files=tuple(records),
            tolerance=tolerance,
            preprocessing=described,
            class_names=None if class_names is None else tuple(class_names),
            float_operators=tuple(map(str, model.float_operators)),
            libraries={library: _version(library) for library in _libraries(targets)},
        )
        writer.write(FILE_NAME, manifest.to_json().encode())
    writer.say(f"wrote {output}")
    return Bundle(Path(output), manifest)


def _example_inputs(
    program: Program | None, example_inputs: Tensor | Sequence[Tensor] | None
) -> tuple[Tensor, ...]:
    if example_inputs is not None:
        given = [value.detach().to("cpu").contiguous() for value in as_list(example_inputs)]
        return golden.on_grid(program, given)
    if program is None:
        raise ExportError("a model that is not one Program needs example_inputs")
    return golden.random_inputs(program)


def _constants(name: str, preprocessing: Preprocessing | None) -> dict[str, Any]:
    """What a ``.pte`` file tells an app without the manifest."""
    constants: dict[str, Any] = {
        "get_model_name": name,
        "get_created_by": f"pyquant {__version__}",
    }
    if preprocessing is not None:
        fields = dataclasses.asdict(preprocessing)
        constants |= {f"get_{k}": v for k, v in fields.items() if v is not None}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in constants.items()}


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


def _libraries(targets: Sequence[str]) -> list[str]:
    used = [library for target in targets for library in _WRITERS.get(target, ())]
    return list(dict.fromkeys(["torch", *used]))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
