"""Runs a bundle's files the way a phone does: each through its own runtime, from the file."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.jit.mobile
from torch import Tensor
from torch.utils import _pytree as pytree

from pyquant.errors import ExportError
from pyquant.mobile.quiet import quiet
from pyquant.mobile.torchscript import qnnpack_engine


@dataclass(frozen=True)
class LoadedFile:
    """A model file in its runtime.

    Attributes:
        run: From inputs (float32) to outputs (float32).
        batch_size: The one that it takes; ``None`` if it takes any.
    """

    run: Callable[[Sequence[Tensor]], list[Tensor]]
    batch_size: int | None = None


def load_program(path: Path) -> LoadedFile:
    """``model.pyq`` through :func:`pyquant.load`."""
    from pyquant import load

    model = load(path)
    return LoadedFile(lambda inputs: as_list(model(*inputs)))


def load_torchscript(path: Path) -> LoadedFile:
    """A ``.ptl`` through PyTorch's lite interpreter with the QNNPACK engine."""
    loader: Any = torch.jit.mobile._load_for_lite_interpreter
    with qnnpack_engine(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = loader(str(path))

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        with qnnpack_engine(), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return as_list(module(*inputs))

    return LoadedFile(run)


def load_libtorch(path: Path) -> LoadedFile:
    """A TorchScript ``.pt`` through ``torch.jit.load`` with the process's quantized engine."""
    loader: Any = torch.jit.load
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = loader(str(path))

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return as_list(module(*inputs))

    return LoadedFile(run)


def load_executorch(path: Path) -> LoadedFile:
    """A ``.pte`` through ExecuTorch's runtime with the XNNPACK or the Core ML backend."""
    with quiet():
        try:
            runtime = importlib.import_module("executorch.runtime").Runtime.get()
        except ImportError as error:
            raise ExportError(
                "checking a .pte file needs ExecuTorch: pip install pyquant[mobile]"
            ) from error
        method = runtime.load_program(path).load_method("forward")
        if method is None:
            raise ExportError(f"{path.name} has no method 'forward'")
        sizes = method.metadata.input_tensor_meta(0).sizes()

    def run(inputs: Sequence[Tensor]) -> list[Tensor]:
        with quiet():
            # The outputs are views of the method's own memory.
            return [output.clone() for output in method.execute([x.contiguous() for x in inputs])]

    return LoadedFile(run, sizes[0] if sizes else None)


#: How each target's file is loaded.
LOADERS: dict[str, Callable[[Path], LoadedFile]] = {
    "program": load_program,
    "executorch": load_executorch,
    "torchscript": load_torchscript,
    "libtorch": load_libtorch,
    "coreml": load_executorch,
}


def why_not_run(target: str) -> str | None:
    """Why ``target``'s file cannot run on this machine at all; ``None`` if it can."""
    if target != "coreml":
        return None
    with quiet(), contextlib.suppress(ImportError):
        runtime = importlib.import_module("executorch.runtime").Runtime.get()
        if runtime.backend_registry.is_available("CoreMLBackend"):
            return None
    return "Core ML runs on Apple's systems only"


def run(target: str, path: Path, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Loads ``path`` as ``target``'s file and runs it once.

    Raises :class:`ExportError` that names the target if its runtime refuses the file.
    """
    try:
        return LOADERS[target](path).run(inputs)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"the {target} file {path.name} does not run: {error}") from error


def as_list(outputs: Any) -> list[Tensor]:
    """The tensors of a module's result, which may be nested, in order."""
    return list(pytree.tree_leaves(outputs))
