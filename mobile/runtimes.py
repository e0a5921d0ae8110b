"""Runs a bundle's files the way a phone does: each through its own runtime, from the file."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.jit.mobile
from torch import Tensor
from torch.utils import _pytree as pytree

from pyquant.errors import ExportError
from pyquant.mobile.quiet import quiet
from pyquant.mobile.torchscript import qnnpack_engine


def run_program(path: Path, inputs: Sequence[Tensor]) -> list[Tensor]:
    """``model.pyq`` through :func:`pyquant.load`."""
    from pyquant import load

    return as_list(load(path)(*inputs))


def run_torchscript(path: Path, inputs: Sequence[Tensor]) -> list[Tensor]:
    """A ``.ptl`` through PyTorch's lite interpreter with the QNNPACK engine."""
    with qnnpack_engine(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load: Any = torch.jit.mobile._load_for_lite_interpreter
        return as_list(load(str(path))(*inputs))


def run_libtorch(path: Path, inputs: Sequence[Tensor]) -> list[Tensor]:
    """A TorchScript ``.pt`` through ``torch.jit.load`` with the process's quantized engine."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        load: Any = torch.jit.load
        return as_list(load(str(path))(*inputs))


def run_executorch(path: Path, inputs: Sequence[Tensor]) -> list[Tensor]:
    """A ``.pte`` through ExecuTorch's runtime with the XNNPACK backend."""
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
        # The outputs are views of the method's own memory.
        return [output.clone() for output in method.execute([x.contiguous() for x in inputs])]


#: How each target's file is run: path and inputs (float32) to outputs (float32).
RUNNERS: dict[str, Callable[[Path, Sequence[Tensor]], list[Tensor]]] = {
    "program": run_program,
    "executorch": run_executorch,
    "torchscript": run_torchscript,
    "libtorch": run_libtorch,
}


def run(target: str, path: Path, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Runs ``path`` as ``target``'s file.

    Raises :class:`ExportError` that names the target if its runtime refuses the file.
    """
    try:
        return RUNNERS[target](path, inputs)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"the {target} file {path.name} does not run: {error}") from error


def as_list(outputs: Any) -> list[Tensor]:
    """The tensors of a module's result, which may be nested, in order."""
    return list(pytree.tree_leaves(outputs))
