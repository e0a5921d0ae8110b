"""Runs model files inside of the emulator. It stands by itself: torch and ExecuTorch, no pyquant.

    python guest.py JOBS.json

``JOBS.json`` is a list of objects: ``target``, ``file``, ``inputs`` and ``outputs`` (files of raw
float32) and ``shapes`` (of one run's inputs). ``inputs`` holds any number of runs one behind the
other, as ``outputs`` will. On stdout, lines of JSON: first the CPU; then for each
job, in order, ``{"seconds": s}`` (of its first run) or ``{"error": text}``.
"""

from __future__ import annotations

import ctypes
import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

AT_HWCAP, HWCAP_ASIMDDP = 16, 1 << 20


def load_torchscript(path: str) -> Callable[[list[Any]], Sequence[Any]]:
    """A ``.ptl`` in the lite interpreter, with QNNPACK."""
    import torch
    from torch.jit import mobile
    from torch.utils._pytree import tree_flatten

    torch.backends.quantized.engine = "qnnpack"  # the default on ARM64 is oneDNN
    load: Any = mobile._load_for_lite_interpreter
    module = load(path)

    def run(inputs: list[Any]) -> Sequence[Any]:
        leaves: list[Any] = tree_flatten(module(*inputs))[0]
        return leaves

    return run


def load_executorch(path: str) -> Callable[[list[Any]], Sequence[Any]]:
    """A ``.pte`` with XNNPACK."""
    # executorch.runtime needs more packages.
    from executorch.extension.pybindings._portable_lib import _load_for_executorch

    method = _load_for_executorch(path)
    forward: Callable[[list[Any]], Sequence[Any]] = method.forward
    return forward


LOADERS = {"torchscript": load_torchscript, "executorch": load_executorch}


def run(job: dict[str, Any]) -> float:
    """Runs one job; returns the seconds of its first run."""
    import torch

    content = bytearray(Path(job["inputs"]).read_bytes())
    counts = [math.prod(shape) for shape in job["shapes"]]
    runs = torch.frombuffer(content, dtype=torch.float32).reshape(-1, sum(counts))
    forward = LOADERS[job["target"]](job["file"])
    seconds = 0.0
    with torch.no_grad(), Path(job["outputs"]).open("wb") as file:
        for values in runs:
            inputs = list(map(torch.Tensor.reshape, values.split(counts), job["shapes"]))
            start = time.perf_counter()
            outputs = forward(inputs)
            seconds = seconds or time.perf_counter() - start
            for output in outputs:
                dense = output.contiguous()
                if dense.dtype != torch.float32:
                    raise TypeError(f"an output is {dense.dtype} instead of float32")
                # Without NumPy, which torch needs for .numpy().
                file.write(ctypes.string_at(dense.data_ptr(), 4 * dense.numel()))
    return seconds


def answer(fields: dict[str, Any]) -> None:
    """One line on stdout."""
    print(json.dumps(fields), flush=True)


def main() -> None:
    """Runs all jobs; a failed one does not keep the others from running."""
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    features = ctypes.CDLL(None).getauxval(ctypes.c_ulong(AT_HWCAP))
    answer({"torch": torch.__version__, "dot_product": bool(features & HWCAP_ASIMDDP)})
    for job in json.loads(Path(sys.argv[1]).read_text()):
        try:
            answer({"seconds": run(job)})
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
