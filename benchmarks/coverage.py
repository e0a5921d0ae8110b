"""How much of each torchvision network runs in int8, inside pyquant's Programs.

python -m benchmarks.coverage --models 'resnet*,*shufflenet*'
"""

from __future__ import annotations

import fnmatch
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import pyquant
from benchmarks.networks import import_torchvision
from pyquant.capture.quiet import quiet
from pyquant.cli.console import console, new_table, silence_libraries
from pyquant.ir.cost import multiply_adds
from pyquant.targets import QuantizedModule

#: Image sizes to try, smallest first: networks with position embeddings take one size only.
SIZES = (64, 128, 160, 224, 320)
MILLION = 1_000_000


@dataclass(frozen=True)
class Coverage:
    """What became of one network.

    Attributes:
        size: Height and width of the images.
        programs: Number of Programs; 1 without float operators is a whole network.
        share: Of the float network's multiply-adds, those inside Programs, 0 to 1.
        floats: How often each ATen operator stayed float.
    """

    size: int
    programs: int
    share: float
    floats: Counter[str]


Builder = Callable[[], nn.Module]


def networks() -> dict[str, Builder]:
    """torchvision's classification and segmentation networks and detection backbones by name."""
    models: Any = import_torchvision()
    found: dict[str, Builder] = {}

    def registered(module: Any, prefix: str, **options: Any) -> None:
        for name in models.list_models(module=module):
            found[prefix + name] = lambda name=name: models.get_model(name, weights=None, **options)

    registered(models, "")
    registered(models.segmentation, "segmentation/", weights_backbone=None)
    for name in models.list_models(module=models.detection):
        found[f"detection/{name}"] = lambda name=name: (
            models.get_model(name, weights=None, weights_backbone=None).backbone
        )
    return found


def measure(model: nn.Module) -> Coverage:
    """Quantizes a network with one random image.

    Raises:
        ValueError: The network takes images of none of :data:`SIZES`.
        PyquantError: It cannot be quantized.
    """
    model = model.eval()
    image, total = _count_multiply_adds(model)
    quantized = pyquant.quantize(model, image, [image], progress=False)
    inside = sum(_program_multiply_adds(quantized))
    return Coverage(
        size=image.shape[-1],
        programs=len(quantized.programs),
        # A BatchNorm by itself is a convolution in the Program and was none in the network.
        share=min(inside / total, 1.0),
        floats=Counter(stayed.target.split(".")[-2] for stayed in quantized.float_operators),
    )


def _count_multiply_adds(model: nn.Module) -> tuple[torch.Tensor, int]:
    """An image of the smallest size that the network takes, and what it costs."""
    problem: Exception | None = None
    for size in SIZES:
        image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        try:
            # The fused attention is not counted; the one of matrix products is.
            with (
                torch.no_grad(),
                sdpa_kernel(SDPBackend.MATH),
                FlopCounterMode(display=False) as counter,
            ):
                model(image)
        except Exception as error:  # networks fail in their own ways
            problem = error
        else:
            return image, counter.get_total_flops() // 2
    raise ValueError(f"it takes no image of {', '.join(map(str, SIZES))}: {problem}")


def _program_multiply_adds(quantized: QuantizedModule) -> list[int]:
    return [
        multiply_adds(part.program, node)
        for part in quantized.programs
        for node in part.program.nodes
    ]


def _parameters(build: Builder) -> int:
    try:
        with torch.device("meta"):
            model = build()
    except NotImplementedError:  # RegNets read tensors while they are built
        model = build()
    return sum(parameter.numel() for parameter in model.parameters())


def _row(name: str, build: Builder, limit: int) -> list[str]:
    """The network's line of the table; whatever goes wrong is its last column."""
    try:
        with quiet(streams=True):
            count = _parameters(build)
            if count > limit * MILLION:
                return [name, "", "", "", f"left out: {count // MILLION} million parameters"]
            torch.manual_seed(0)
            found = measure(build())
    except Exception as error:  # one network's failure is a line of the table
        reason = str(error).strip().splitlines() or [type(error).__name__]
        return [name, "", "", "", f"{type(error).__name__}: {reason[0][:160]}"]
    floats = ", ".join(f"{target} x{count}" for target, count in found.floats.most_common())
    return [name, str(found.size), str(found.programs), f"{found.share:.1%}", floats or "-"]


@click.command()
@click.option("--models", default="*", show_default=True, help="Names or patterns, by comma.")
@click.option(
    "--max-parameters",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="In millions; larger networks are left out.",
)
@click.option("--markdown", is_flag=True, help="For pasting into a document.")
def main(models: str, max_parameters: int, markdown: bool) -> None:
    """Show what stays float of torchvision's networks."""
    silence_libraries()
    torch.backends.mha.set_fastpath_enabled(False)  # its multiply-adds are not counted
    wanted = models.split(",")
    chosen = {
        name: build
        for name, build in networks().items()
        if any(fnmatch.fnmatch(name, pattern) for pattern in wanted)
    }
    columns = ("network", "image", "Programs", "MACs in int8", "stayed float")
    rows = []
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*bar, console=Console(file=sys.__stderr__), transient=True) as progress:
        task = progress.add_task("", total=len(chosen))
        for name, build in chosen.items():
            progress.update(task, description=name)
            rows.append(_row(name, build, max_parameters))
            progress.advance(task)
    whole = sum(row[2] == "1" and row[4] == "-" for row in rows)
    title = f"{whole} of {len(rows)} networks are one Program"
    if markdown:
        print(f"**{title}**\n\n| " + " | ".join(columns) + " |\n|---|---:|---:|---:|---|")
        print("\n".join("| " + " | ".join(row) + " |" for row in rows))
        return
    table = new_table(title, *columns, right=columns[1:4], whole=columns[:1])
    for row in rows:
        table.add_row(*row)
    console().print(table)


if __name__ == "__main__":
    main()
