"""What pyquant costs before the first inference, and what its files cost.

    python -m benchmarks.startup

Import time over torch's own, lowering and kernel preparation of a network, and the size of a
``model.pyq`` against the float state dict.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch

import pyquant
from benchmarks.networks import build
from pyquant.analysis.measure import float_bytes
from pyquant.cli.console import (
    console,
    megabytes,
    milliseconds,
    new_table,
    silence_libraries,
    stage,
)


@click.command()
@click.option("--model", default="resnet50", show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
def main(model: str, repeats: int) -> None:
    """Measure import, lowering, loading and file size."""
    silence_libraries()
    with stage("Importing in new processes"):
        torch_seconds, both_seconds = _import_seconds(repeats)
    with stage(f"Quantizing {model}"):
        network = build(model)
        example = torch.randn(1, 3, 224, 224)
        prepared = pyquant.prepare(network, example)
        pyquant.calibrate(prepared, torch.randn(8, 3, 224, 224), progress=False)
        converted = pyquant.convert(prepared)
        quantized = pyquant.lower(converted, whole=True)
    with stage("Measuring"), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pyq"
        lower = _median(lambda: pyquant.lower(converted), repeats)
        save = _median(lambda: quantized.save(path), repeats)
        load = _median(lambda: pyquant.load(path)(example), repeats)
        size = path.stat().st_size
    table = new_table(f"Start-up, {model}", "", "median", right=("median",))
    table.add_row("import torch", milliseconds(torch_seconds))
    table.add_row("import pyquant, over import torch", milliseconds(both_seconds - torch_seconds))
    table.add_row("lower the q/dq graph and prepare the kernels", milliseconds(lower))
    table.add_row("save model.pyq", milliseconds(save))
    table.add_row("load model.pyq, prepare the kernels and run once", milliseconds(load))
    table.add_row("float state dict", megabytes(float_bytes(network)))
    table.add_row("model.pyq", megabytes(size))
    table.add_row("size ratio", f"{float_bytes(network) / size:.2f}x")
    console().print(table)


def _import_seconds(repeats: int) -> tuple[float, float]:
    """Medians of ``import torch`` and ``import torch, pyquant``, in turns, without start-up."""
    seconds: dict[str, list[float]] = {"torch": [], "torch, pyquant": []}
    for round_ in range(repeats + 1):
        for modules, measured in seconds.items():
            code = (
                "import time; start = time.perf_counter()\n"
                f"import {modules}\n"
                "print(time.perf_counter() - start)"
            )
            # Not from the source folder, which may hold no compiled module.
            with tempfile.TemporaryDirectory() as folder:
                result = subprocess.run(
                    [sys.executable, "-c", code],
                    cwd=folder,
                    check=True,
                    capture_output=True,
                    text=True,
                )
            if round_:  # the first round fills the disk cache
                measured.append(float(result.stdout))
    return statistics.median(seconds["torch"]), statistics.median(seconds["torch, pyquant"])


def _median(call: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
