"""Observers against those of torch, torchao and ONNX Runtime, and calibration against inference.

    python -m benchmarks.observers --models mobilenet_v2,resnet50

The first table observes one activation; the second calibrates whole networks, in units of the float
model's own forward pass on the same images. All variants take turns, one call each in a round, and
ratios are those of the fastest calls, which a busy machine disturbs least.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import click
import torch

import pyquant
from benchmarks.networks import NETWORKS, build, samples
from benchmarks.options import some_of
from benchmarks.silence import silence
from pyquant.analysis.measure import Timing
from pyquant.cli.console import milliseconds, new_table, show, silence_libraries, stage
from pyquant.quantization.convert import observers

_SHAPE = (1, 96, 112, 112)
_CALIBRATION_IMAGES = 32  # that the choice of ranges is spread over
_COLUMNS = ("observer", "by", "observe", "median", "choose range", "pyquant is", "at choosing")


@dataclass(frozen=True)
class Variant:
    """Somebody's observer: what sees a tensor, and what gives scale and zero point then."""

    observe: Callable[[torch.Tensor], object]
    choose: Callable[[], object] | None = None


@click.command()
@some_of("--models", NETWORKS)
@click.option("--rounds", type=click.IntRange(3), default=20, show_default=True)
@click.option("--batch", type=click.IntRange(1), default=8, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(models: list[str], rounds: int, batch: int, threads: int) -> None:
    """Measure observers by themselves, and in the calibration of networks."""
    silence_libraries()
    torch.set_num_threads(threads)
    _show_observers(torch.randn(_SHAPE), rounds)
    columns = ("network", "observer", "forward", "calibrate", "ratio", "ranges", "with ranges")
    table = new_table(
        f"Calibration in batches of {batch}; with ranges: of {_CALIBRATION_IMAGES} images",
        *columns,
        right=columns[2:],
        whole=columns[:2],
    )
    for name in models:
        with stage(f"Calibrating {name}"), silence():
            rows = _calibration_rows(name, rounds, batch)
        for row in rows:
            table.add_row(name, *row)
    show(table)


def _show_observers(x: torch.Tensor, rounds: int) -> None:
    shape = "x".join(str(size) for size in x.shape)
    title = f"Observing float32 {shape}, {torch.get_num_threads()} thread(s)"
    table = new_table(title, *_COLUMNS, right=_COLUMNS[2:], whole=_COLUMNS[:2])
    for name, variants in _variants().items():
        with stage(f"Observing: {name}"), silence():
            for variant in variants.values():
                variant.observe(x)
            observe = in_turns({by: _bind(v.observe, x) for by, v in variants.items()}, rounds)
            choices = {by: v.choose for by, v in variants.items() if v.choose is not None}
            choose = in_turns(choices, max(rounds // 4, 3))
        own = next(iter(variants))
        for by, timing in observe.items():
            chosen = choose.get(by)
            table.add_row(
                name if by == own else "",
                by,
                milliseconds(timing.minimum),
                milliseconds(timing.median),
                milliseconds(chosen.minimum) if chosen else "",
                _times_as_fast(timing, observe[own]) if by != own else "",
                _times_as_fast(chosen, choose[own]) if chosen and by != own else "",
            )
    show(table)


def _times_as_fast(other: Timing, own: Timing) -> str:
    return f"{other.minimum / own.minimum:.1f}x"


def _variants() -> dict[str, dict[str, Variant]]:
    """For every kind of observer pyquant's, first, and others'."""
    from torchao.quantization.pt2e import observer as torchao

    from pyquant.quantization.observers import ACTIVATION_OBSERVERS

    options = {"dtype": torch.int8, "quant_min": -128, "quant_max": 127}
    others: dict[str, dict[str, Variant]] = {
        "minmax": {
            "torch.aminmax": Variant(torch.aminmax),
            "torchao": _of_module(torchao.MinMaxObserver(**options)),
        },
        "moving_average": {"torchao": _of_module(torchao.MovingAverageMinMaxObserver(**options))},
        "histogram": {"torchao": _of_module(torchao.HistogramObserver(**options))},
        "entropy": _of_onnxruntime("entropy"),
        "percentile": _of_onnxruntime("percentile"),
    }
    return {
        name: {"pyquant": _of_module(ACTIVATION_OBSERVERS[name](**options)), **peers}  # type: ignore[index]
        for name, peers in others.items()
    }


def _of_module(observer: Any) -> Variant:
    return Variant(observer, observer.calculate_qparams)


def _of_onnxruntime(method: str) -> dict[str, Variant]:
    """ONNX Runtime's collector with its calibrators' defaults; nothing if it is not installed."""
    try:
        from onnxruntime.quantization import calibrate
    except ImportError:
        return {}
    bins = {"entropy": 128, "percentile": 2048}[method]
    collector = calibrate.HistogramCollector(method, False, bins, 128, 99.999, "same")
    return {
        "ONNX Runtime": Variant(
            lambda x: collector.collect({"x": x.numpy()}), collector.compute_collection_result
        )
    }


def _calibration_rows(name: str, rounds: int, batch: int) -> list[list[str]]:
    model = build(name)
    x = samples(name, batch, seed=1)
    graphs = {
        observer: pyquant.prepare(model, x[:1], pyquant.QuantizationConfig(observer=observer))
        for observer in ("minmax", "moving_average", "histogram", "entropy", "percentile")
    }
    calls: dict[str, Callable[[], object]] = {"forward": torch.no_grad()(_bind(model, x))}
    for observer, graph in graphs.items():
        calls[observer] = _calibration(graph, x)
    for call in calls.values():
        call()
    timings = in_turns(calls, max(rounds // 4, 3))
    forward = timings["forward"].minimum
    rows = []
    for observer, graph in graphs.items():
        taken = timings[observer].minimum
        # Each is asked once when a graph is converted. Weights are not part of calibration.
        distinct = {id(seen): seen for node, seen in observers(graph) if _is_activation(node)}
        start = time.perf_counter()
        for seen in distinct.values():
            seen.calculate_qparams()
        ranges = time.perf_counter() - start
        batches = _CALIBRATION_IMAGES / batch
        rows.append(
            [
                observer,
                milliseconds(forward),
                milliseconds(taken),
                f"{taken / forward:.2f}",
                milliseconds(ranges),
                f"{(taken * batches + ranges) / (forward * batches):.2f}",
            ]
        )
    return rows


def _calibration(graph: torch.fx.GraphModule, x: torch.Tensor) -> Callable[[], object]:
    return lambda: pyquant.calibrate(graph, [x], progress=False)


def _is_activation(node: torch.fx.Node) -> bool:
    return node.all_input_nodes[0].op != "get_attr"


def _bind(call: Callable[[torch.Tensor], object], x: torch.Tensor) -> Callable[[], object]:
    return lambda: call(x)


def in_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Each call once in every round."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(seconds)) for name, seconds in taken.items()}


if __name__ == "__main__":
    main()
