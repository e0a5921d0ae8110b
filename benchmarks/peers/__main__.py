"""``python -m benchmarks.peers``; see ``--help``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TextIO

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import machine
from benchmarks.networks import NETWORKS
from benchmarks.options import some_of
from benchmarks.peers import report
from benchmarks.peers.cache import default_folder
from benchmarks.peers.measure import PeerResult, Setting, measure, usable
from benchmarks.peers.registry import DISTRIBUTIONS, PEERS
from benchmarks.silence import own_stderr
from pyquant.cli.console import show, show_error, silence_libraries


def _progress(terminal: TextIO) -> Progress:
    """A bar on ``terminal``, which is not sys.stderr: that is mute while peers prepare."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(file=terminal),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


@click.command()
@some_of("--models", NETWORKS)
@some_of("--peers", PEERS)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=30, show_default=True)
@click.option("--isa", help="Instruction set for pyquant only, as PYQUANT_ISA.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Write a table.")
@click.option("--chart", type=click.Path(path_type=Path), help="Draw a PNG.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all timings.")
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=default_folder(),
    help="Where prepared files are kept [default: in the user's cache folder].",
)
def main(
    models: list[str],
    peers: list[str],
    threads: int,
    batch: int,
    rounds: int,
    isa: str | None,
    markdown: Path | None,
    chart: Path | None,
    json_file: Path | None,
    cache: Path,
) -> None:
    """Compare pyquant with other int8 runtimes: same model, calibration data, cores and process."""
    silence_libraries()
    if isa is not None:
        os.environ["PYQUANT_ISA"] = isa  # read at pyquant's first kernel
    try:
        machine.use_cores(threads)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--threads") from error
    torch.set_num_threads(threads)
    setting = Setting(threads, batch, rounds, cache)
    chosen = usable((PEERS[name] for name in peers), show_error)
    description = machine.describe(DISTRIBUTIONS)
    for label, text in description.items():
        show(f"{label}: {text}")
    show(f"{threads} thread(s), batch {batch}, {rounds} rounds\n")

    results: dict[str, list[PeerResult]] = {}
    with own_stderr() as terminal, _progress(terminal) as progress:
        bar = progress.add_task("", total=len(models) * (len(chosen) + 2))
        for network in models:

            def note(text: str, network: str = network) -> None:
                progress.update(bar, description=f"{network}: {text}")
                progress.advance(bar)

            results[network] = measure(network, chosen, setting, note)
            show(report.network_table(network, results[network]))
            if json_file is not None:  # a long run that is cut short leaves what it has
                json_file.write_text(json.dumps(report.as_json(results, description, setting)))
    show(report.summary_table(results))
    if markdown is not None:
        markdown.write_text(report.markdown(results, description, setting), encoding="utf-8")
    if chart is not None:
        from benchmarks.peers.chart import draw

        draw(results, description, setting, chart)


if __name__ == "__main__":
    main()
