"""The ways to run one network that are compared: torch in float, torch in int8, pyquant."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import pyquant

Call = Callable[[], object]
CALIBRATION_SAMPLES = 16
TORCH_INT8 = "torch int8 FX"


@dataclass(frozen=True)
class Peer:
    """One way to run the network; ``best_of`` joins variants of which the fastest counts."""

    name: str
    call: Call
    best_of: str | None = None


def torch_float(model: nn.Module, x: Tensor) -> list[Peer]:
    """Eager float32, in both memory formats."""
    nhwc = copy.deepcopy(model).to(memory_format=torch.channels_last)
    x_nhwc = x.to(memory_format=torch.channels_last)
    return [
        Peer("torch fp32", lambda: model(x)),
        Peer("torch fp32 channels_last", lambda: nhwc(x_nhwc)),
    ]


def torch_int8(model: nn.Module, x: Tensor, engine: str) -> list[Peer]:
    """FX graph mode quantization with torch's ``engine``, eager and as frozen TorchScript."""
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and still what most people run
        torch.backends.quantized.engine = engine
        mapping = get_default_qconfig_mapping(engine)
        fx: Any = quantize_fx
        prepared = fx.prepare_fx(copy.deepcopy(model), mapping, (x,))
        prepared(_calibration(x))
        quantized = fx.convert_fx(prepared)
        trace: Any = torch.jit.trace
        frozen = torch.jit.freeze(trace(quantized, x).eval())
        for _ in range(3):
            frozen(x)  # the profiling executor optimizes after the first runs
    name = f"{TORCH_INT8} {engine}"
    return [
        Peer(f"{name} eager", lambda: quantized(x), name),
        Peer(f"{name} frozen", lambda: frozen(x), name),
    ]


def pyquant_int8(model: nn.Module, x: Tensor, engines: list[str]) -> list[Peer]:
    """pyquant on each of ``engines``."""
    prepared = pyquant.prepare(model, x)
    pyquant.calibrate(prepared, torch.split(_calibration(x), 8), progress=False)
    converted = pyquant.convert(prepared)

    def peer(engine: str) -> Peer:
        quantized = pyquant.lower(converted, engine=engine)
        return Peer(f"pyquant {engine}", lambda: quantized(x))

    return [peer(engine) for engine in engines]


def _calibration(x: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(CALIBRATION_SAMPLES, *x.shape[1:], generator=generator)
