"""``pyquant arm64``: does every file of a bundle compute the same on an ARM CPU?"""

from __future__ import annotations

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyquant.cli.console import new_table, show, stage

if TYPE_CHECKING:
    from rich.table import Table

    from pyquant.mobile.arm64 import Comparison, Result

#: Differences in steps of the output, and how often the best class is the same.
_COLUMNS = ("file", "on", "to Program: max", "mean", "top-1", "to x86: max", "mean ", "top-1 ")


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--torch", "versions", default="2.10.0", show_default=True, help="2.10.0, 2.1.2, 1.13.1."
)
@click.option(
    "--core",
    type=click.Path(path_type=Path),
    help="A build of the CMake preset arm64: runs model.pyq, too.",
)
@click.option(
    "--samples", metavar="DATA", help="Further inputs for all BUNDLES: a .npy, .npz or .pt file."
)
@click.option("--count", type=click.IntRange(1), default=32, show_default=True, help="Of them.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the results.")
@click.option("--cache", type=click.Path(path_type=Path), help="[default: ~/.cache/pyquant/arm64]")
@click.pass_context
def arm64(
    ctx: click.Context,
    bundles: tuple[Path, ...],
    versions: str,
    core: Path | None,
    samples: str | None,
    count: int,
    json_path: Path | None,
    cache: Path | None,
) -> None:
    """Run the files of BUNDLES on an emulated ARM64 CPU, and compare.

    QEMU runs every .ptl with QNNPACK, on each of the torch versions, and every .pte with XNNPACK.
    Their outputs for the golden input must be within the bundle's tolerance. What runs in QEMU is
    fetched from Debian and PyPI the first time (about 200 MB for each torch version).
    """
    from pyquant.cli.samples import ImagePreprocessing, load_samples
    from pyquant.mobile.arm64 import core_runtimes, prove, torch_runtimes
    from pyquant.write_file import write_file

    inputs = None
    if samples is not None:
        (inputs,) = load_samples(samples, count, None, ImagePreprocessing())
    with stage("Preparing the emulated Debian") as status:
        # A spinner where there is a terminal, else a line each.
        say = status.update if sys.stderr.isatty() else partial(click.echo, err=True)
        runtimes = torch_runtimes([v.strip() for v in versions.split(",")], cache, say)
        runtimes += [] if core is None else core_runtimes(core)
        results = list(prove(bundles, runtimes, inputs, say))
    for bundle in bundles:
        show(_table(bundle, [result for result in results if result.bundle == str(bundle)]))
    if json_path is not None:
        fields = [dataclasses.asdict(result) for result in results]
        write_file(json_path, (json.dumps(fields, indent=2) + "\n").encode())
    failed = [result for result in results if result.error is not None]
    for result in failed:
        show(f"[red]{result.bundle}/{result.file} on {result.runtime}:[/] {result.error}")
    ctx.exit(1 if failed else 0)


def _table(bundle: Path, results: list[Result]) -> Table:
    table = new_table(f"{bundle}, differences in steps", *_COLUMNS, right=_COLUMNS[2:])
    for result in results:
        numbers = _cells(result.from_program, result.inputs)
        numbers += _cells(result.from_here, result.inputs)
        table.add_row(result.file, result.runtime, *numbers)
    return table


def _cells(comparison: Comparison | None, inputs: int) -> list[str]:
    if comparison is None:
        return ["", "", ""]
    same_class = f"{comparison.same_class}/{inputs}"
    if comparison.identical:
        return ["same bits", "0", same_class]
    difference = comparison.difference
    return [f"{difference.max_steps:.1f}", f"{difference.mean_steps:.4f}", same_class]
