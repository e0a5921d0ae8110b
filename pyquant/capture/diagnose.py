"""Why an export failed, in terms of the user's own code."""

from __future__ import annotations

import linecache
import re
import sysconfig
import traceback
from pathlib import Path

import torch
from torch import nn

from pyquant.capture.quiet import quiet
from pyquant.errors import CaptureError

_FOREIGN_FOLDERS = (
    str(Path(torch.__file__).parent) + "/",
    sysconfig.get_paths()["stdlib"] + "/",
    str(Path(__file__).parents[1]) + "/",
)
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_DATA_DEPENDENT = re.compile(r"data-dependent|DataDependent|dynamic control flow", re.IGNORECASE)


def explain_failure(
    model: nn.Module, inputs: tuple[object, ...], error: BaseException
) -> CaptureError:
    """Builds the error that tells the user which line failed to export and what to do about it.

    Args:
        model: The model, in eval mode.
        inputs: The example inputs.
        error: What ``torch.export`` raised.

    Returns:
        A ``CaptureError`` to raise ``from error``.
    """
    try:
        with quiet(), torch.no_grad():
            model(*inputs)
    except Exception as failure:  # the model's own error, whatever it is
        return CaptureError(
            f"{type(model).__name__} does not run on the example inputs"
            f"{_location(failure)}: {_summary(failure)}"
        )
    text = f"{type(error).__name__}: {error}"
    if _DATA_DEPENDENT.search(text):
        advice = (
            "its control flow or shapes depend on tensor values, which a graph cannot hold. "
            "Rewrite it with torch.where or torch.cond, or quantize only the submodules without it"
        )
    else:
        advice = (
            f"{_summary(error)}. Rewrite that code so that torch.export can trace it, "
            "or quantize only the submodules without it"
        )
    return CaptureError(
        f"torch.export cannot capture {type(model).__name__}{_location(error)}: {advice}"
    )


def _location(error: BaseException) -> str:
    """`` at FILE:LINE (`code`)`` for the innermost line of user code, or an empty string."""
    frames: list[tuple[str, int]] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        stack = traceback.extract_tb(current.__traceback__)
        frames += [(frame.filename, frame.lineno or 0) for frame in stack]
        frames += [(file, int(line)) for file, line in _FRAME.findall(str(current))]
        current = current.__cause__ or current.__context__
    for filename, line in reversed(frames):
        if _is_user_code(filename):
            code = linecache.getline(filename, line).strip()
            return f" at {filename}:{line}" + (f" (`{code}`)" if code else "")
    return ""


def _is_user_code(filename: str) -> bool:
    if filename.startswith("<"):
        return False
    in_site_packages = "site-packages" in filename or "dist-packages" in filename
    stdlib = filename.startswith(_FOREIGN_FOLDERS[1]) and not in_site_packages
    return not stdlib and not filename.startswith((_FOREIGN_FOLDERS[0], _FOREIGN_FOLDERS[2]))


def _summary(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
