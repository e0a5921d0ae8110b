"""Whole networks: pyquant against torch, in one process, taking turns run by run.

python -m benchmarks.models --threads 1
"""

from __future__ import annotations

import warnings

import click
import torch
from rich.table import Table

from benchmarks.peers import TORCH_INT8, Peer, pyquant_int8, torch_float, torch_int8
from benchmarks.torchvision_models import build
from pyquant.cli.console import console, new_table, show_error, silence_libraries, stage
from pyquant.cli.measure import Timing, interleaved

MODELS = ("resnet18", "resnet50", "mobilenet_v2", "efficientnet_lite0")


@click.command()
@click.option("--models", default=",".join(MODELS), show_default=True)
@click.option("--engines", default="auto,fbgemm,native", show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(3), default=40, show_default=True)
@click.option("--markdown", is_flag=True, help="For pasting into a document.")
def main(models: str, engines: str, threads: int, batch: int, rounds: int, markdown: bool) -> None:
    """Compare latencies at 224x224."""
    silence_libraries()
    warnings.simplefilter("ignore")
    torch.set_num_threads(threads)
    for name in models.split(","):
        with stage(f"{name}: preparing"):
            try:
                model = build(name)
            except ValueError as error:
                show_error(str(error))
                raise SystemExit(1) from error
            x = torch.randn(batch, 3, 224, 224)
            peers = [
                *torch_float(model, x),
                *torch_int8(model, x, "fbgemm"),
                *torch_int8(model, x, "x86"),
                *pyquant_int8(model, x, engines.split(",")),
            ]
        with stage(f"{name}: measuring"):
            timings = interleaved({peer.name: peer.call for peer in peers}, rounds, budget=30.0)
        rows = _rows(peers, timings)
        title = f"{name}, batch {batch}, {threads} thread(s), milliseconds"
        if markdown:
            _print_markdown(title, rows)
        else:
            console().print(_table(title, rows))


def _rows(peers: list[Peer], timings: dict[str, Timing]) -> list[list[str]]:
    """Name, median, minimum, and the ratios of both to the best of torch's int8."""
    best: dict[str, Timing] = {}
    for peer in peers:
        name, timing = peer.best_of or peer.name, timings[peer.name]
        if name not in best or timing.median < best[name].median:
            best[name] = timing
    torch_medians = [best[name].median for name in best if name.startswith(TORCH_INT8)]
    torch_minima = [best[name].minimum for name in best if name.startswith(TORCH_INT8)]
    return [
        [
            name,
            f"{timing.median * 1e3:.2f}",
            f"{timing.minimum * 1e3:.2f}",
            f"{min(torch_medians) / timing.median:.2f}x",
            f"{min(torch_minima) / timing.minimum:.2f}x",
        ]
        for name, timing in best.items()
    ]


_COLUMNS = ("", "median", "min", "speed by median", "speed by min")


def _table(title: str, rows: list[list[str]]) -> Table:
    table = new_table(title, *_COLUMNS, right=_COLUMNS[1:])
    for row in rows:
        table.add_row(*row)
    return table


def _print_markdown(title: str, rows: list[list[str]]) -> None:
    print(f"**{title}** (speed: the best {TORCH_INT8} = 1)\n")
    print("| " + " | ".join(_COLUMNS) + " |")
    print("|---" + "|---:" * (len(_COLUMNS) - 1) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


if __name__ == "__main__":
    main()
