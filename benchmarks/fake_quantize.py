"""Fake quantization, forward and backward, against torchao's fused one and plain PyTorch's.

    python -m benchmarks.fake_quantize

All variants take turns, one call each in a round; ratios are those of the fastest calls, which a
busy machine disturbs least.
"""

from __future__ import annotations

from collections.abc import Callable

import click
import torch
from torch import nn

from benchmarks.observers import in_turns
from benchmarks.silence import silence
from pyquant.cli.console import milliseconds, new_table, show, silence_libraries, stage

_SHAPES = ((1, 96, 112, 112), (32, 64, 28, 28), (1, 32, 14, 14))
_GRID = {"dtype": torch.int8, "quant_min": -128, "quant_max": 127}


@click.command()
@click.option("--rounds", type=click.IntRange(3), default=50, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(rounds: int, threads: int) -> None:
    """Measure observing, rounding and their gradient."""
    silence_libraries()
    torch.set_num_threads(threads)
    columns = ("float32", "by", "fwd", "median", "fwd+bwd", "median", "pyquant")
    table = new_table(
        f"Fake quantization, {threads} thread(s)", *columns, right=columns[2:], whole=columns[:2]
    )
    for shape in _SHAPES:
        name = "x".join(str(size) for size in shape)
        with stage(f"Fake quantization of {name}"), silence():
            variants = _variants()
            x = torch.randn(shape)
            forward = in_turns({by: _forward(v, x) for by, v in variants.items()}, rounds)
            both = in_turns({by: _both(v, x) for by, v in variants.items()}, rounds)
        own = next(iter(variants))
        for by in variants:
            ratios = [t[by].minimum / t[own].minimum for t in (forward, both)]
            table.add_row(
                name if by == own else "",
                by,
                milliseconds(forward[by].minimum),
                milliseconds(forward[by].median),
                milliseconds(both[by].minimum),
                milliseconds(both[by].median),
                "" if by == own else " / ".join(f"{ratio:.1f}x" for ratio in ratios),
            )
    show(table)


def _variants() -> dict[str, nn.Module]:
    """pyquant's, first, and others'; all with a moving average of the extremes."""
    from torchao.quantization.pt2e import (
        FusedMovingAvgObsFakeQuantize,
        MovingAverageMinMaxObserver,
    )

    from pyquant.quantization.fake_quantize import FakeQuantize

    observer = MovingAverageMinMaxObserver
    return {
        "pyquant": FakeQuantize(**_GRID),
        "pyquant, learned step": FakeQuantize(**_GRID, learned=True),
        "torchao, fused": FusedMovingAvgObsFakeQuantize(observer=observer, **_GRID),
    }


def _forward(module: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    return torch.no_grad()(lambda: module(x))


def _both(module: nn.Module, x: torch.Tensor) -> Callable[[], object]:
    dy = torch.randn_like(x)

    def run() -> None:
        module(x.detach().requires_grad_()).backward(dy)

    return run


if __name__ == "__main__":
    main()
