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
@click.option("--profile", is_flag=True, help="Show the time of every step.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path),
    help="Write the steps of the fastest run as Chrome trace JSON, for ui.perfetto.dev.",
)
def bench(
    file: Path,
    threads: int | None,
    engine: str,
    batch: int | None,
    runs: int,
    profile: bool,
    trace: Path | None,
) -> None:
    """Measure the latency of FILE (.pyq) on random inputs.

    With --engine all, the engines take turns run by run, so that their ratios hold on a busy
    machine too; --profile and --trace then look at auto. A slow engine makes fewer runs.
    """
    import torch

    import pyquant
    from pyquant import _C
    from pyquant.analysis.measure import interleaved
    from pyquant.cli import program_stats
    from pyquant.cli.profile import profile_table, write_trace
    from pyquant.cli.samples import program_inputs
    from pyquant.ir.cost import multiply_adds

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
    work = sum(multiply_adds(program, node) for node in program.nodes)
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
        used = Counter(models[name].programs[0].node_engines)
        table.add_row(
            name,
            ", ".join(f"{other} {count}" for other, count in used.most_common()),
            milliseconds(timing.median),
            milliseconds(timing.minimum),
            milliseconds(timing.p90),
            f"{work / timing.median / 1e9:.1f}",
            str(timing.runs),
        )
    show(table)
    if profile or trace is not None:
        with stage("Profiling"):
            found = models[names[0]].programs[0].profile(*inputs, runs=runs)
            peak = _C.measure_peak()
        if profile:
            show(profile_table(found, peak, torch.get_num_threads()))
        if trace is not None:
            write_trace(found, trace)
