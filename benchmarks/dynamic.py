"""Dynamic quantization against torch.ao's ``quantize_dynamic`` with fbgemm, and float32.

    python -m benchmarks.dynamic --batches 1,32

Two-layer LSTM(512, 512) and GRU(512, 512) over 64 steps, and eight Linear(1024, 1024), with
torch's own random weights. All variants take turns, one call each in a round; ratios are those of
the fastest calls, which a busy machine disturbs least, and of the medians.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import click
import torch
from torch import nn

import pyquant
from benchmarks.options import some_of
from benchmarks.silence import silence
from pyquant.analysis.measure import Timing
from pyquant.analysis.sqnr import sqnr
from pyquant.cli.console import milliseconds, new_table, show, silence_libraries, stage

_STEPS = 64
_COLUMNS = ("model", "batch", "by", "time", "median", "SQNR", "of torch.ao", "by medians")


def _recurrent(kind: type[nn.RNNBase]) -> nn.Module:
    # Not the model itself: torch.ao replaces nothing there.
    return nn.Sequential(kind(512, 512, 2))  # type: ignore[call-arg]


def _linears() -> nn.Module:
    return nn.Sequential(*(nn.Linear(1024, 1024) for _ in range(8)))


#: Each with what makes an input of a batch size.
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], torch.Tensor]]] = {
    "lstm": (lambda: _recurrent(nn.LSTM), lambda batch: torch.randn(_STEPS, batch, 512)),
    "gru": (lambda: _recurrent(nn.GRU), lambda batch: torch.randn(_STEPS, batch, 512)),
    "linear": (_linears, lambda batch: torch.randn(batch, 1024)),
}


@click.command()
@some_of("--models", MODELS)
@some_of("--batches", ("1", "32"))
@click.option("--rounds", type=click.IntRange(3), default=40, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(models: list[str], batches: list[str], rounds: int, threads: int) -> None:
    """Time of pyquant's dynamic quantization as a part of torch.ao's."""
    silence_libraries()
    torch.set_num_threads(threads)
    table = new_table(
        f"Dynamic quantization, {threads} thread(s)", *_COLUMNS, right=_COLUMNS[3:], whole=_COLUMNS
    )
    for name in models:
        torch.manual_seed(0)
        build, samples = MODELS[name]
        model = build().eval()
        with silence():
            variants = {
                "float32": model,
                "torch.ao": _torch_ao(model),
                "pyquant": pyquant.quantize_dynamic(model),
            }
        for batch in batches:
            with stage(f"Measuring {name} at batch {batch}"), silence():
                rows = _rows(variants, samples(int(batch)), rounds)
            for by, row in rows.items():
                table.add_row(name, batch, by, *row)
    show(table)


def _torch_ao(model: nn.Module) -> nn.Module:
    from torch.ao.quantization import quantize_dynamic

    torch.backends.quantized.engine = "fbgemm"
    kinds = {nn.LSTM, nn.GRU, nn.Linear}
    quantized: nn.Module = quantize_dynamic(model, kinds)
    return quantized


@torch.inference_mode()
def _rows(
    variants: Mapping[str, nn.Module], x: torch.Tensor, rounds: int
) -> dict[str, tuple[str, ...]]:
    outputs: dict[str, Any] = {by: _first(variant(x)) for by, variant in variants.items()}
    taken: dict[str, list[float]] = {by: [] for by in variants}
    for _ in range(rounds):
        for by, variant in variants.items():
            start = time.perf_counter()
            variant(x)
            taken[by].append(time.perf_counter() - start)
    timings = {by: Timing(tuple(seconds)) for by, seconds in taken.items()}
    peer = timings["torch.ao"]
    return {
        by: (
            milliseconds(timing.minimum),
            milliseconds(timing.median),
            "" if by == "float32" else f"{sqnr(outputs['float32'], outputs[by]):.1f} dB",
            f"{timing.minimum / peer.minimum:.2f}",
            f"{timing.median / peer.median:.2f}",
        )
        for by, timing in timings.items()
    }


def _first(output: Any) -> torch.Tensor:
    """The outputs; without the states that recurrent layers give, too."""
    value: torch.Tensor = output[0] if isinstance(output, tuple) else output
    return value


if __name__ == "__main__":
    main()
