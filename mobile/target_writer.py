"""Writes the model files of a bundle, one for each target, and describes them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pyquant.errors import ExportError, UnsupportedError
from pyquant.ir.program import Program
from pyquant.mobile import coreml, executorch, lite_file, torchscript
from pyquant.mobile.executorch import Backend
from pyquant.mobile.manifest import FileRecord
from pyquant.mobile.qdq_module import QdqModule
from pyquant.mobile.staging import io_error
from pyquant.mobile.xnnpack import DelegatedModule


class ExportableModel(Protocol):
    """What an export needs of a model; ``pyquant.QuantizedModule`` has it."""

    @property
    def program(self) -> Program | None:
        """The whole model as a Program, or ``None`` if parts of it stayed in float."""

    @property
    def graph(self) -> torch.fx.GraphModule | None:
        """The q/dq graph it came from, or ``None`` if it was loaded from a file."""

    @property
    def float_operators(self) -> Sequence[object]:
        """What stayed in float, and why."""

    def __call__(self, *inputs: Tensor) -> Any:
        """Runs the model on float32 tensors."""

    def save(self, path: Any, /) -> None:
        """Writes ``model.pyq``."""


@dataclass(frozen=True)
class TargetWriter:
    """Writes one model's files into ``folder``.

    Attributes:
        folder: An existing folder.
        model: What is written.
        inputs: float32, NCHW if rank 4: the shapes that a ``.pte`` file takes.
        largest_batch: A ``.pte`` file takes any batch up to this instead; ``None`` for the inputs'.
        constants: What a ``.pte`` file's methods without arguments return.
        progress: Says on stderr what is being done.
    """

    folder: Path
    model: ExportableModel
    inputs: tuple[Tensor, ...]
    largest_batch: int | None = None
    constants: Mapping[str, Any] | None = None
    progress: bool = True

    def say(self, text: str) -> None:
        """Tells the user on stderr, if that is wanted."""
        if self.progress:
            print(f"pyquant: {text}", file=sys.stderr, flush=True)

    def program(self) -> FileRecord:
        """``model.pyq``."""
        self.say("writing model.pyq")
        path = self.folder / "model.pyq"
        self.model.save(path)
        return self._describe(path, "program", runtime="pyquant")

    def executorch(self) -> FileRecord:
        """``model.pte``."""
        self.say("writing model.pte")
        module, backend = self._for_xnnpack()
        content, details = executorch.to_executorch(
            module,
            self.inputs,
            backend=backend,
            largest_batch=self.largest_batch,
            constants=self.constants,
        )
        return replace(
            self.file("model.pte", "executorch", content),
            runtime="ExecuTorch with XNNPACK",
            min_version=executorch.MIN_RUNTIME,
            details=details,
        )

    def coreml(self) -> FileRecord:
        """``model.coreml.pte``."""
        self.say("writing model.coreml.pte (coremltools takes up to a minute)")
        if self.largest_batch is not None:
            self.say("model.coreml.pte takes the batch of the example inputs only")
        content, details = coreml.to_coreml(self._qdq(), self.inputs, constants=self.constants)
        return replace(
            self.file("model.coreml.pte", "coreml", content),
            runtime="ExecuTorch with Core ML",
            min_version=coreml.MIN_RUNTIME,
            details=details,
        )

    def torchscript(self) -> FileRecord:
        """``model.ptl``."""
        return self._scripted(
            "model.ptl", "torchscript", "PyTorch Mobile with QNNPACK", torchscript.to_torchscript
        )

    def libtorch(self) -> FileRecord:
        """``model.pt``."""
        return self._scripted("model.pt", "libtorch", "LibTorch", torchscript.to_libtorch)

    def file(self, name: str, target: str, content: bytes) -> FileRecord:
        """Writes ``content`` as it is."""
        self.write(name, content)
        return self._describe(self.folder / name, target)

    def write(self, name: str, content: bytes) -> None:
        """Writes a file that no record describes; raises :class:`IoError` if that fails."""
        try:
            (self.folder / name).write_bytes(content)
        except OSError as error:
            raise io_error(self.folder, error) from error

    def _for_xnnpack(self) -> tuple[nn.Module, Backend]:
        """As one delegate if XNNPACK has all of the operators; else by ExecuTorch's partitioner."""
        if self.model.program is not None:
            try:
                module = DelegatedModule(self.model.program, self.inputs, self.largest_batch)
            except UnsupportedError as error:
                self.say(f"model.pte gets several parts, which takes up to a minute: {error}")
            else:
                return module, executorch.DELEGATED
        return self._qdq(), executorch.XNNPACK

    def _qdq(self) -> nn.Module:
        if self.model.program is not None:
            return QdqModule(self.model.program).eval()
        if self.largest_batch is not None:
            raise ExportError(
                "only a model that is quantized as a whole can be exported for several batch sizes"
            )
        if self.model.graph is None:
            raise ExportError("the model has neither a Program nor the graph from pyquant.convert")
        return self.model.graph

    def _scripted(
        self,
        name: str,
        target: str,
        runtime: str,
        script: Callable[[Program, tuple[Tensor, ...]], tuple[bytes, list[str]]],
    ) -> FileRecord:
        self.say(f"writing {name}")
        if self.model.program is None:
            raise ExportError(
                f"the {target} target needs a model that is quantized as a whole; this one has "
                "operators that stayed in float: export without this target"
            )
        content, notes = script(self.model.program, self.inputs)
        return replace(
            self.file(name, target, content),
            runtime=runtime,
            min_version=lite_file.OLDEST_RELEASE,
            notes=tuple(notes),
        )

    def _describe(self, path: Path, target: str, runtime: str = "") -> FileRecord:
        content = path.read_bytes()
        return FileRecord(
            name=path.name,
            target=target,
            size=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            runtime=runtime,
        )


#: How each target's file is written.
TARGETS: dict[str, Callable[[TargetWriter], FileRecord]] = {
    "executorch": TargetWriter.executorch,
    "torchscript": TargetWriter.torchscript,
    "libtorch": TargetWriter.libtorch,
    "coreml": TargetWriter.coreml,
}
