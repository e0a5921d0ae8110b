"""``pyquant compare``: where the error of a quantized model comes from, and who computes what."""

from __future__ import annotations

import dataclasses
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from pyquant.cli.console import decibels, megabytes, milliseconds, new_table, show
from pyquant.cli.input_options import InputOptions, input_options
from pyquant.errors import ExportError

if TYPE_CHECKING:
    from rich.table import Table

    from pyquant.analysis.analysis import Analysis

_MARKED = 3


@click.command()
@click.argument("model")
@click.argument("targets", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="DATA", help="Typical inputs; see above.")
@click.option("--own", is_flag=True, help="Also quantize one layer at a time; takes minutes.")
@input_options(samples=32)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def compare(
    model: str,
    targets: tuple[Path, ...],
    data: str,
    own: bool,
    options: InputOptions,
    as_json: bool,
) -> None:
    """Compare TARGETS with the float MODEL, layer by layer and as a whole.

    \b
    MODEL    torchvision:NAME, timm:NAME, package.module:factory, or an exported FILE.pt2
    TARGETS  bundles, or .pyq, .pte and .ptl files; the layers are those of the first .pyq
    DATA     a folder of images; a .npy, .npz or .pt file with samples in the first dimension;
             or "random"
    """
    import torch

    import pyquant
    from pyquant import mobile
    from pyquant.mobile.quiet import quiet
    from pyquant.mobile.targets import model_files

    files = model_files(*targets)
    program = next((file for file in files if file.suffix == ".pyq"), None)
    if program is None:
        raise ExportError("the layers are looked at in a .pyq file: name one, or a bundle with one")
    files.remove(program)
    loaded = options.load_model(model)
    inputs = options.load_samples(data, loaded)
    batches = list(zip(*(torch.split(value, 8) for value in inputs), strict=True))
    with quiet():
        others = mobile.targets(*files)
    analysis = pyquant.analyze(
        loaded.model, pyquant.load(program), batches, own=own, targets=others, name=loaded.name
    )
    if as_json:
        click.echo(json.dumps(_plain(dataclasses.asdict(analysis)), indent=2))
        return
    show(_layers(analysis))
    show(_targets(analysis))
    _show_largest_drop(analysis)


def _layers(analysis: Analysis) -> Table:
    """Worst first; the worst few in red."""
    columns = ["#", "layer", "operator", "output", "SQNR", "own", "range", "clipped", "dead"]
    right = ("#", "SQNR", "own", "clipped", "dead")
    table = new_table(
        f"{escape(analysis.model)}: layers on {analysis.samples} samples, worst first",
        *columns,
        right=right,
        whole=("output", "range"),
    )
    order = sorted(enumerate(analysis.layers), key=lambda item: item[1].sqnr)
    for rank, (position, layer) in enumerate(order):
        output = layer.output
        table.add_row(
            str(position),
            escape(layer.name),
            layer.operator if layer.int8 else f"{layer.operator} [dim](float)[/]",
            "x".join(map(str, layer.output_shape)),
            decibels(layer.sqnr),
            "" if layer.own_sqnr is None else decibels(layer.own_sqnr),
            f"{output.minimum:.3g} to {output.maximum:.3g}",
            f"{100 * output.clipped:.2f} %" if output.clipped else "",
            str(output.dead_channels or ""),
            style="red" if rank < _MARKED else None,
        )
    return table


def _targets(analysis: Analysis) -> Table:
    numbers = ("SQNR", "cosine", "largest error", "same class", "size", "latency")
    table = new_table("Against the float model", "target", *numbers, right=numbers)
    for target in analysis.targets:
        table.add_row(
            escape(target.name),
            decibels(target.sqnr),
            f"{target.cosine:.5f}",
            f"{target.largest_error:.4g}",
            "" if target.agreement is None else f"{100 * target.agreement:.1f} %",
            "" if target.size is None else megabytes(target.size),
            "" if target.milliseconds is None else milliseconds(target.milliseconds / 1e3),
        )
    return table


def _show_largest_drop(analysis: Analysis) -> None:
    """Errors are handed on, so the layer at which they arise stands where the SQNR falls."""
    drops = [
        (before.sqnr - layer.sqnr, before, layer)
        for before, layer in pairwise(analysis.layers)
        if math.isfinite(before.sqnr)
    ]
    if not drops:
        return
    drop, before, layer = max(drops, key=lambda entry: entry[0])
    if drop > 0:
        show(
            f"The SQNR falls most at [bold]{escape(layer.name)}[/]: from {decibels(before.sqnr)} "
            f"behind {escape(before.name)} to {decibels(layer.sqnr)}."
        )


def _plain(value: Any) -> Any:
    """JSON knows no infinity: it becomes text, which ``float()`` reads."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
