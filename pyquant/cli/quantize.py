"""``pyquant quantize``: from a float model to a bundle, with a report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyquant.cli.console import decibels, megabytes, milliseconds, new_table, show, stage
from pyquant.cli.input_options import InputOptions, input_options
from pyquant.cli.output import check_executorch, check_folder
from pyquant.errors import IoError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pyquant.cli.samples import ImagePreprocessing
    from pyquant.targets import QuantizedModule

TARGETS = ("executorch", "torchscript", "pyq")
_JUDGED_SAMPLES = 16


def _targets(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    names = tuple(value.split(","))
    unknown = [name for name in names if name not in TARGETS]
    if unknown:
        raise click.BadParameter(f"no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    return names


@click.command()
@click.argument("model")
@click.option("--calib", "data", required=True, metavar="DATA", help="Typical inputs; see above.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="A folder.")
@click.option("--targets", callback=_targets, default=",".join(TARGETS), show_default=True)
@input_options(samples=64)
@click.option("--engine", default="auto", show_default=True, help="Measured in the report.")
@click.option("--adaround", is_flag=True, help="Learn how to round the weights; takes minutes.")
def quantize(
    model: str,
    data: str,
    output: Path,
    targets: tuple[str, ...],
    options: InputOptions,
    engine: str,
    adaround: bool,
) -> None:
    """Quantize MODEL to int8 and write a bundle.

    \b
    MODEL   torchvision:NAME, timm:NAME, package.module:factory, or an exported FILE.pt2
    DATA    a folder of images; a .npy, .npz or .pt file with samples in the first dimension;
            or "random", which is good for measuring speed only
    """
    import torch

    import pyquant

    check_folder(output)
    if "executorch" in targets:
        check_executorch()
    loaded = options.load_model(model)
    inputs = options.load_samples(data, loaded)
    if data == "random":
        show("[yellow]Calibrated on random numbers: for speed tests only, not for use.[/]")
    examples = tuple(value[:1] for value in inputs)
    with stage("Capturing the model"):
        prepared = pyquant.prepare(loaded.model, examples)
    batches = list(zip(*(torch.split(value, 8) for value in inputs), strict=True))
    pyquant.calibrate(prepared, batches)
    if adaround:
        pyquant.adaround(prepared, batches)
    with stage("Lowering to int8"):
        quantized = pyquant.lower(pyquant.convert(prepared), engine=engine)
    if quantized.program is not None:
        quantized.program.name = loaded.name
    _report(loaded.name, loaded.model, quantized, inputs)
    images = options.preprocessing if Path(data).is_dir() else None
    _write(quantized, output, targets, examples, images)


def _report(
    name: str, model: nn.Module, quantized: QuantizedModule, inputs: tuple[Tensor, ...]
) -> None:
    import torch

    from pyquant.analysis.measure import float_bytes, interleaved, one_thread
    from pyquant.analysis.sqnr import sqnr
    from pyquant.ir.serialize import to_bytes

    judged = tuple(value[:_JUDGED_SAMPLES] for value in inputs)
    examples = tuple(value[:1] for value in inputs)
    with stage("Comparing with the float model"), torch.inference_mode():
        # One by one: an exported model may be bound to its batch size.
        pairs = [
            (model(*sample), quantized(*sample))
            for sample in zip(*(torch.split(value, 1) for value in judged), strict=True)
        ]
        error = sqnr([pair[0] for pair in pairs], [pair[1] for pair in pairs])
        calls = {"fp32": lambda: model(*examples), "int8": lambda: quantized(*examples)}
        with one_thread():
            timings = interleaved(calls, 30, 3.0)
    size = sum(len(to_bytes(module.program)) for module in quantized.programs)
    nodes = sum(len(module.program.nodes) for module in quantized.programs)
    before = float_bytes(model)
    fp32, int8 = timings["fp32"].median, timings["int8"].median
    table = new_table(name, "", "fp32", "int8", "int8 is", right=("fp32", "int8", "int8 is"))
    table.add_row("size", megabytes(before), megabytes(size), f"{before / size:.1f}x smaller")
    table.add_row(
        "latency, batch 1, 1 thread, median",
        milliseconds(fp32),
        milliseconds(int8),
        f"{fp32 / int8:.1f}x faster" if fp32 >= int8 else f"{int8 / fp32:.1f}x slower",
    )
    table.add_row(f"SQNR on {len(judged[0])} samples", "", decibels(error), "")
    table.add_row("int8 operators", "", str(nodes), "")
    table.add_row("operators left in float", "", str(len(quantized.float_operators)), "")
    show(table)
    if quantized.float_operators:
        left = new_table("Left in float", "node", "operator", "why")
        for operator in quantized.float_operators:
            left.add_row(operator.name, operator.target, operator.why)
        show(left)


def _write(
    quantized: QuantizedModule,
    output: Path,
    targets: tuple[str, ...],
    examples: tuple[Tensor, ...],
    preparation: ImagePreprocessing | None,
) -> None:
    from pyquant import mobile

    phones = tuple(target for target in targets if target != "pyq")
    if not phones:
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise IoError(f"cannot write to {output}: {error.strerror or error}") from error
        path = output / ("model.pyq" if quantized.program is not None else "model.pt2")
        quantized.save(path)
        show(f"wrote {path}")
        return
    with stage(f"Exporting to {', '.join(phones)}, and running every file once"):
        bundle = mobile.export(
            quantized,
            output,
            targets=phones,
            example_inputs=examples,
            preprocessing=None if preparation is None else preparation.for_apps(),
            progress=False,
        )
    for record in bundle.manifest.files:
        show(f"wrote {output / record.name}  [dim]{megabytes(record.size)}[/]")
