"""``pyquant report``: what became of a model in int8, layer by layer, as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyquant.cli.console import decibels, megabytes, show, stage
from pyquant.cli.input_options import InputOptions, input_options
from pyquant.cli.output import check_file

if TYPE_CHECKING:
    from torch import Tensor

_BATCH = 8


@click.command()
@click.argument("model")
@click.argument("targets", nargs=-1, type=click.Path(path_type=Path))
@click.option("--calib", required=True, metavar="DATA", help="Typical inputs; see above.")
@click.option("--data", metavar="DATA", help="Other inputs to compare on [default: the same].")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="An .html file.")
@click.option("--own/--no-own", default=True, help="Also quantize one layer at a time.")
@click.option("--title", help="Of the page.")
@input_options(samples=32)
def report(
    model: str,
    targets: tuple[Path, ...],
    calib: str,
    data: str | None,
    output: Path,
    own: bool,
    title: str | None,
    options: InputOptions,
) -> None:
    """Quantize MODEL and write what became of it as one HTML page.

    \b
    MODEL    torchvision:NAME, timm:NAME, package.module:factory, or an exported FILE.pt2
    TARGETS  bundles, or .pyq, .pte and .ptl files of the same model, to compare as well
    DATA     a folder of images; a .npy, .npz or .pt file with samples in the first dimension;
             or "random"
    """
    import pyquant
    from pyquant import mobile
    from pyquant.mobile.quiet import quiet

    check_file(output)
    loaded = options.load_model(model)
    calibration = options.load_samples(calib, loaded)
    judged = calibration if data is None else options.load_samples(data, loaded)
    examples = tuple(value[:1].contiguous() for value in calibration)
    with quiet():
        others = mobile.targets(*targets)
    with stage("Quantizing"):
        quantized = pyquant.quantize(loaded.model, examples, _batches(calibration), progress=False)
    analysis = pyquant.analyze(
        loaded.model, quantized, _batches(judged), own=own, targets=others, name=loaded.name
    )
    profile = None
    if quantized.program is not None:
        with stage("Profiling"):
            profile = quantized.programs[0].profile(*examples)
    pyquant.write_report(analysis, output, profile=profile, title=title)
    show(
        f"wrote {output}  [dim]{megabytes(output.stat().st_size)}[/]: {len(analysis.layers)} "
        f"layers, {decibels(analysis.targets[-1 - len(others)].sqnr)} on {analysis.samples} samples"
    )


def _batches(inputs: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    import torch

    return list(zip(*(torch.split(value, _BATCH) for value in inputs), strict=True))
