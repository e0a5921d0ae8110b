"""What the phone files of the networks are like, beside ExecuTorch's own recipe.

    python -m benchmarks.mobile --networks mobilenet_v2

For each network: pyquant's files, and the ``.pte`` of the plain recipe (XNNPACK's quantizer and
partitioner): size, delegate calls, operators outside of the delegates, latency on this machine in
turns, SQNR against float, and how far the outputs are from the Program's, in steps of its output.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

import pyquant
from benchmarks.networks import NETWORKS, build, samples
from benchmarks.options import some_of
from benchmarks.peers.cache import Cache, default_folder
from benchmarks.peers.executorch_xnnpack import plain_recipe
from benchmarks.peers.peer import Task
from benchmarks.silence import silence
from pyquant import mobile
from pyquant.analysis.measure import Timing, interleaved
from pyquant.analysis.sqnr import sqnr
from pyquant.cli.console import (
    megabytes,
    milliseconds,
    new_table,
    show,
    silence_libraries,
    stage,
)
from pyquant.mobile.runtimes import LOADERS

_CALIBRATION = 32  # as in benchmarks.peers, so that the plain recipe's files are shared
_PLAIN = "plain recipe"
_COLUMNS = ("size", "delegates", "outside", "median", "to plain", "SQNR dB", "steps max", "mean")


@dataclass(frozen=True)
class _File:
    """One file, ready to run. ``delegation`` and ``difference`` only where they are known."""

    size: int
    run: Callable[[], list[Tensor]]
    delegation: dict[str, Any]
    difference: mobile.Difference | None


@click.command()
@some_of("--networks", NETWORKS)
@click.option("--rounds", type=click.IntRange(1), default=10, show_default=True)
def main(networks: list[str], rounds: int) -> None:
    """Compare the phone files of the networks, batch 1, one thread."""
    silence_libraries()
    torch.set_num_threads(1)
    for name in networks:
        _compare(name, rounds)


def _compare(name: str, rounds: int) -> None:
    with stage(f"Quantizing {name}"), silence():
        model = build(name)
        x, calibration = samples(name, 1, seed=2), samples(name, _CALIBRATION, seed=1)
        quantized = pyquant.quantize(model, x, calibration, progress=False)
    with tempfile.TemporaryDirectory() as folder:
        with stage(f"Exporting {name}, and running every file once"), silence():
            start = time.perf_counter()
            bundle = mobile.export(quantized, Path(folder) / "bundle", example_inputs=x)
            seconds = time.perf_counter() - start
        with stage(f"Exporting {name} by the plain recipe"), silence():
            files = {_PLAIN: _plain(name, model, x, calibration)} | _ours(bundle, x)
        with stage(f"Measuring {name}"), silence(), torch.inference_mode():
            expected = model(x)
            error = {label: sqnr(expected, file.run()[0]) for label, file in files.items()}
            timings = interleaved({label: file.run for label, file in files.items()}, rounds)
    table = new_table(
        f"{name}: exported and checked in {seconds:.0f} s", "", *_COLUMNS, right=_COLUMNS
    )
    for label, file in files.items():
        table.add_row(label, *_cells(file, timings[label], timings[_PLAIN], error[label]))
    show(table)


def _plain(name: str, model: nn.Module, x: Tensor, calibration: Tensor) -> _File:
    cache = Cache(default_folder(), name, 1, len(calibration))
    task = Task(name, model, x, list(torch.split(calibration, 1)), 1, cache)
    folder = plain_recipe(task)
    path = folder / "model.pte"
    delegation = json.loads((folder / "delegation.json").read_text())
    loaded = LOADERS["executorch"](path)
    return _File(path.stat().st_size, lambda: loaded.run([x]), delegation, None)


def _ours(bundle: mobile.Bundle, x: Tensor) -> dict[str, _File]:
    def file(record: mobile.FileRecord) -> _File:
        loaded = LOADERS[record.target](bundle.path / record.name)
        return _File(record.size, lambda: loaded.run([x]), record.details, record.difference)

    return {
        record.name: file(record) for record in bundle.manifest.files if record.target in LOADERS
    }


def _cells(file: _File, timing: Timing, plain: Timing, error: float) -> list[str]:
    outside = file.delegation.get("undelegated", {})
    difference = file.difference
    return [
        megabytes(file.size),
        str(file.delegation.get("delegates", "")),
        str(sum(outside.values())) if file.delegation else "",
        milliseconds(timing.median),
        f"{timing.median / plain.median:.2f}",
        f"{error:.1f}",
        "" if difference is None else f"{difference.max_steps:.0f}",
        "" if difference is None else f"{difference.mean_steps:.2f}",
    ]


if __name__ == "__main__":
    main()
