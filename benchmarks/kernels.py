"""Every layer of the seven networks by itself: GMAC/s, and the share of what the core can do.

    python -m benchmarks.kernels --models resnet50 --isa avx512_vnni

The times are those of calls from Python, which cost some microseconds more than the kernel's own.
"""

from __future__ import annotations

import os
import time
from collections import Counter

import click
import torch

from benchmarks.layers import Layer, layers_of
from benchmarks.networks import NETWORKS, build, samples
from benchmarks.options import some_of
from benchmarks.silence import silence
from pyquant import _C
from pyquant.analysis.measure import Timing
from pyquant.cli.console import new_table, show, silence_libraries, stage
from pyquant.errors import UnsupportedError

_WARM_UP_CALLS = 3
_FEWEST_CALLS = 10
_COLUMNS = ("kind", "layer", "times", "engine", "min us", "median us", "GMAC/s", "of peak")


@click.command()
@some_of("--models", NETWORKS)
@click.option("--isa", help="Instruction set [default: the CPU's best], as PYQUANT_ISA.")
@click.option("--engine", default="auto", show_default=True)
@click.option("--seconds", type=click.FloatRange(0.001), default=0.1, help="For each layer.")
def main(models: list[str], isa: str | None, engine: str, seconds: float) -> None:
    """Measure the layers of the networks, batch 1, one thread."""
    silence_libraries()
    torch.set_num_threads(1)
    if isa is not None:
        os.environ["PYQUANT_ISA"] = isa  # read at the first kernel
    networks: dict[str, Counter[Layer]] = {}
    for name in models:
        with stage(f"Reading the layers of {name}"), silence():
            networks[name] = layers_of(build(name), samples(name, 1, seed=1))
    layers = sorted(
        {layer for found in networks.values() for layer in found},
        key=lambda layer: (layer.kind, -layer.height, layer.inputs, layer.outputs, str(layer)),
    )
    timings: dict[Layer, Timing] = {}
    engines: dict[Layer, str] = {}
    peak = 0.0
    for position, layer in enumerate(layers):
        with stage(f"Measuring {position + 1} of {len(layers)}: {layer}"):
            # Between the layers: on a busy machine some moments are better than others.
            peak = max(peak, _C.measure_peak(seconds / 4) or 0.0)
            try:
                engines[layer], timings[layer] = _measure(layer, engine, seconds)
            except UnsupportedError as error:
                engines[layer] = str(error)

    title = f"{_C.isa()}, one thread"
    if peak:
        title += f"; the peak measured is {peak / 1e9:.0f} GMAC/s"
    table = new_table(title, *_COLUMNS, right=("times", *_COLUMNS[4:]), whole=("layer",))
    for layer in layers:
        times = str(sum(found[layer] for found in networks.values()))
        row = [layer.kind, str(layer), times, engines[layer]]
        table.add_row(*row, *(_cells(layer, timings[layer], peak) if layer in timings else ()))
    show(table)
    totals = new_table("All layers of a network", "", "min ms", "GMAC/s", "of peak", right=_COLUMNS)
    for name, found in networks.items():
        if all(layer in timings for layer in found):
            total = sum(timings[layer].minimum * count for layer, count in found.items())
            work = sum(layer.multiply_adds * count for layer, count in found.items())
            totals.add_row(name, f"{total * 1e3:.2f}", *_rate(work, total, peak))
    show(totals)


def _measure(layer: Layer, engine: str, seconds: float) -> tuple[str, Timing]:
    """The engine that runs the layer, and its times."""
    kernel, x = layer.kernel(engine)
    for _ in range(_WARM_UP_CALLS):
        kernel(x)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while len(taken) < _FEWEST_CALLS or time.perf_counter() < end:
        start = time.perf_counter()
        kernel(x)
        taken.append(time.perf_counter() - start)
    return kernel.engine, Timing(tuple(taken))


def _cells(layer: Layer, timing: Timing, peak: float) -> list[str]:
    return [
        f"{timing.minimum * 1e6:.1f}",
        f"{timing.median * 1e6:.1f}",
        *_rate(layer.multiply_adds, timing.minimum, peak),
    ]


def _rate(work: int, seconds: float, peak: float) -> list[str]:
    share = f"{work / seconds / peak:.0%}" if peak else ""
    return [f"{work / seconds / 1e9:.1f}", share]


if __name__ == "__main__":
    main()
