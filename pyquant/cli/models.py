"""MODEL arguments: ``torchvision:NAME``, ``timm:NAME``, ``package.module:factory``, a ``.pt2``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from pyquant.errors import CaptureError, IoError


@dataclass(frozen=True)
class LoadedModel:
    """A float model in eval mode; ``example_inputs`` only if its file says them."""

    name: str
    model: nn.Module
    example_inputs: tuple[Tensor, ...] | None = None


def load_model(spec: str, pretrained: bool) -> LoadedModel:
    """Loads the model that ``spec`` names.

    Args:
        spec: See the module.
        pretrained: For torchvision and timm: their default weights instead of random ones.

    Raises:
        click.BadParameter: ``spec`` has none of the forms.
        CaptureError: A package or name is missing, or making the model fails.
        IoError: The file cannot be read.
    """
    if spec.endswith(".pt2"):
        return _from_export(Path(spec))
    source, colon, name = spec.partition(":")
    if not colon or not source or not name:
        raise click.BadParameter(
            f"{spec!r} is not torchvision:NAME, timm:NAME, package.module:factory or FILE.pt2"
        )
    if source == "torchvision":
        make = _torchvision(name, pretrained)
    elif source == "timm":
        make = _timm(name, pretrained)
    else:
        make = _factory(source, name)
    try:
        model = make()
    except Exception as error:  # other people's code: anything may come
        raise CaptureError(f"making the model {spec} failed: {_reason(error)}") from error
    if not isinstance(model, nn.Module):
        raise CaptureError(f"{spec} gave {type(model).__name__}, not a torch.nn.Module")
    return LoadedModel(name.rpartition(".")[2], model.eval())


def _torchvision(name: str, pretrained: bool) -> Callable[[], Any]:
    models = _import("torchvision.models", "pip install torchvision (the build for your torch)")
    if name not in models.list_models():
        raise CaptureError(f"torchvision has no model {name!r}")
    return lambda: models.get_model(name, weights="DEFAULT" if pretrained else None)


def _timm(name: str, pretrained: bool) -> Callable[[], Any]:
    timm = _import("timm", "pip install timm")
    return lambda: timm.create_model(name, pretrained=pretrained)


def _factory(module: str, name: str) -> Callable[[], Any]:
    if str(Path.cwd()) not in sys.path:  # a console script does not look there by itself
        sys.path.append(str(Path.cwd()))
    value: Any = _import(module, f"is it installed, or a file in {Path.cwd()}?")
    for part in name.split("."):
        if not hasattr(value, part):
            raise CaptureError(f"{module} has no {name!r}")
        value = getattr(value, part)
    if isinstance(value, nn.Module):
        return lambda: value
    if not callable(value):
        raise CaptureError(f"{module}:{name} is neither a model nor a function that makes one")
    made: Callable[[], Any] = value
    return made


def _import(module: str, hint: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:  # a package that does not fit its torch raises RuntimeError
        raise CaptureError(f"cannot import {module}: {_reason(error)}\n{hint}") from error


def _from_export(path: Path) -> LoadedModel:
    program = exported_program(path)
    examples = program.example_inputs
    inputs = examples[0] if examples is not None and not examples[1] else None
    return LoadedModel(path.stem, program.module(), inputs or None)


def exported_program(path: Path) -> torch.export.ExportedProgram:
    """What ``torch.export.save`` wrote.

    Raises:
        CaptureError: It is no such file.
        IoError: There is none.
    """
    if not path.is_file():
        raise IoError(f"there is no file {path}")
    try:
        return torch.export.load(path)
    except Exception as error:  # zip, pickle and JSON errors alike
        raise CaptureError(f"{path} is no exported program: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
