"""``pyquant bench``: how fast a model.pyq runs here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click

from pyquant.cli.console import milliseconds, new_table, show, stage
from pyquant.errors import InvalidProgramError


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(1), help="Threads in one run [default: torch's].")
@click.option("--engine", default="auto", show_default=True, help="An engine, or all.")
@click.option("--batch", type=click.IntRange(1), help="Batch size [default: the example's].")
@click.option("--runs", type=click.IntRange(1), default=50, show_default=True)
def bench(file: Path, threads: int | None, engine: str, batch: int | None, runs: int) -> None:
    """Measure the latency of FILE (.pyq) on random inputs.

    With --engine all, the engines take turns run by run, so that their ratios hold on a busy
    machine too. A slow engine makes fewer runs.
    """
    import torch

    import pyquant
    from pyquant.cli import program_stats
    from pyquant.cli.measure import interleaved
    from pyquant.cli.samples import program_inputs

    names = ["auto", *pyquant.engines()] if engine == "all" else [engine]
    if threads is not None:
        torch.set_num_threads(threads)
    with stage("Preparing kernels"):
        models = {name: pyquant.load(file, engine=name) for name in names}
    program = models[names[0]].program
    if program is None:
        raise InvalidProgramError(f"{file} holds no whole Program")
    example_batch = program_stats.batch_size(program)
    inputs = program_inputs(program, batch)
    work = sum(program_stats.multiply_adds(program, node) for node in program.nodes)
    work = work * (batch or example_batch) // example_batch

    def runner(name: str) -> Callable[[], object]:
        return lambda: models[name](*inputs)

    with stage("Measuring"):
        timings = interleaved({name: runner(name) for name in names}, runs)
    table = new_table(
        f"{program.name}: batch {batch or example_batch}, {torch.get_num_threads()} thread(s), "
        f"{work / 1e9:.2f} GMAC",
        "engine",
        "nodes run by",
        "median",
        "min",
        "p90",
        "GMAC/s",
        "runs",
        right=("median", "min", "p90", "GMAC/s", "runs"),
    )
    for name, timing in timings.items():
        used = Counter(found for module in models[name].programs for found in module.node_engines)
        table.add_row(
            name,
            ", ".join(f"{found} {count}" for found, count in used.most_common()),
            milliseconds(timing.median),
            milliseconds(timing.minimum),
            milliseconds(timing.p90),
            f"{work / timing.median / 1e9:.1f}",
            str(timing.runs),
        )
    show(table)
