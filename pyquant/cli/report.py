"""``pyquant report``: what became of a model in int8, layer by layer, as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyquant.cli.console import decibels, megabytes, show, stage
from pyquant.cli.image_options import image_options, preprocessing, sizes
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
@click.option(
    "--input-shape", callback=sizes, metavar="NxCxHxW", help="For random data; sizes images too."
)
@click.option("--samples", type=click.IntRange(1), default=32, show_default=True)
@image_options
@click.option("--weights", type=click.Choice(["default", "none"]), default="default")
def report(
    model: str,
    targets: tuple[Path, ...],
    calib: str,
    data: str | None,
    output: Path,
    own: bool,
    title: str | None,
    input_shape: tuple[int, ...] | None,
    samples: int,
    preprocess: str | None,
    resize: int | None,
    crop: tuple[int, ...] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    weights: str,
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
    from pyquant.cli.models import load_model
    from pyquant.cli.samples import load_samples
    from pyquant.mobile.quiet import quiet

    check_file(output)
    preparation = preprocessing(preprocess, resize, crop, mean, std, input_shape)
    with stage(f"Loading {model}"):
        loaded = load_model(model, pretrained=weights == "default")
    shape = input_shape
    if shape is None and loaded.example_inputs is not None:
        shape = tuple(loaded.example_inputs[0].shape)
    calibration = load_samples(calib, samples, shape, preparation)
    judged = calibration if data is None else load_samples(data, samples, shape, preparation)
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
