"""``pyquant demo``: a real network from float to int8 to phone files, in under a minute."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pyquant.cli.console import decibels, megabytes, milliseconds, new_table, show, stage
from pyquant.cli.output import check_executorch, check_folder

if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor, nn

    from pyquant.cli.demo_data import Photo
    from pyquant.mobile import Bundle
    from pyquant.targets import QuantizedModule

_CALIBRATION_CROPS, _HELD_OUT_CROPS = 32, 32


@click.command()
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default="bundle",
    show_default=True,
    help="The folder for the bundle.",
)
def demo(output: Path) -> None:
    """See it work: EfficientNet-Lite0 on two photos.

    Quantizes the network with its real ImageNet weights, compares it with the float model, and
    writes a bundle for phones.
    """
    import torch

    import pyquant
    from pyquant import mobile
    from pyquant.cli import demo_data

    check_folder(output)
    check_executorch()
    show(
        "[bold]pyquant demo[/]: EfficientNet-Lite0 with its ImageNet weights, calibrated on "
        f"{_CALIBRATION_CROPS} random crops\nof two photos, then compared with the float model on "
        f"{_HELD_OUT_CROPS} other crops.\n"
    )
    with stage("Loading the network and the photos"):
        network = demo_data.load_network()
        photos = demo_data.load_photos()
        names = demo_data.class_names()
        calibration = demo_data.random_crops(photos, _CALIBRATION_CROPS, seed=1)
        held_out = demo_data.random_crops(photos, _HELD_OUT_CROPS, seed=2)
    with stage("Capturing the network"):
        prepared = pyquant.prepare(network, calibration[:1])
    pyquant.calibrate(prepared, torch.split(calibration, 8))
    with stage("Lowering to int8"):
        quantized = pyquant.lower(pyquant.convert(prepared), whole=True)
        if quantized.program is not None:
            quantized.program.name = "efficientnet_lite0"
    with stage("Comparing with the float model"):
        predictions = _predictions(network, quantized, photos, names)
        comparison = _comparison(network, quantized, held_out)
    show(predictions)
    with stage("Exporting for phones, and running every file once (ExecuTorch takes a while)"):
        bundle = mobile.export(
            quantized,
            output,
            example_inputs=demo_data.centre_crop(photos[0]),
            preprocessing=mobile.Preprocessing(
                resize=(demo_data.SIZE, demo_data.SIZE),
                mean=(demo_data.MEAN,) * 3,
                std=(demo_data.STD,) * 3,
                scale=1.0,
            ),
            class_names=names,
            progress=False,
        )
    _add_sizes(comparison, network, bundle)
    show(comparison)
    show(
        f"[bold]{output}[/] holds these files, a golden input and output, and a manifest. Next:\n"
        f"  pyquant inspect {output / 'model.pyq'}\n"
        f"  pyquant bench {output / 'model.pyq'} --engine all\n"
        f"  pyquant verify {output}"
    )


def _predictions(
    network: nn.Module, quantized: QuantizedModule, photos: list[Photo], names: list[str]
) -> Table:
    import torch

    from pyquant.cli.demo_data import centre_crop

    table = new_table("Top-5 classes", "photo", "fp32", "", "int8", " ", right=("", " "))
    for photo in photos:
        image = centre_crop(photo)
        with torch.inference_mode():
            columns = [model(image).softmax(1).topk(5) for model in (network, quantized)]
        for place in range(5):
            cells = [photo.name if place == 0 else ""]
            for best in columns:
                cells.append(names[int(best.indices[0, place])])
                cells.append(f"{100 * float(best.values[0, place]):.1f} %")
            table.add_row(*cells, end_section=place == 4)
    return table


def _comparison(network: nn.Module, quantized: QuantizedModule, held_out: Tensor) -> Table:
    import torch

    from pyquant.analysis.measure import interleaved, one_thread
    from pyquant.analysis.sqnr import sqnr

    with torch.inference_mode():
        expected, found = network(held_out), quantized(held_out)
    agreement = int((expected.argmax(1) == found.argmax(1)).sum())
    one = held_out[:1].clone()
    with one_thread():
        calls = {"fp32": lambda: network(one), "int8": lambda: quantized(one)}
        timings = interleaved(calls, 50, 2.0)
    fp32, int8 = timings["fp32"].median, timings["int8"].median
    table = new_table("fp32 and int8", "", "fp32", "int8", "", right=("fp32", "int8"))
    table.add_row(
        f"same top-1 class on {len(held_out)} held-out crops",
        "",
        f"{agreement}/{len(held_out)}",
        f"{100 * agreement / len(held_out):.1f} %",
    )
    table.add_row("SQNR of the logits there", "", decibels(sqnr(expected, found)), "")
    table.add_row(
        "latency, batch 1, 1 thread, median",
        milliseconds(fp32),
        milliseconds(int8),
        f"{fp32 / int8:.1f}x faster" if fp32 >= int8 else f"{int8 / fp32:.1f}x slower",
    )
    return table


def _add_sizes(table: Table, network: nn.Module, bundle: Bundle) -> None:
    from pyquant.analysis.measure import float_bytes

    before = float_bytes(network)
    for record in bundle.manifest.files:
        if record.runtime:
            table.add_row(
                f"size of {record.name}  [dim]({record.runtime})[/]",
                megabytes(before),
                megabytes(record.size),
                f"{before / record.size:.1f}x smaller",
            )
