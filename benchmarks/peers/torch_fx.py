"""torch's FX graph mode quantization: every x86 engine, eager and as frozen TorchScript."""

from __future__ import annotations

import copy
from typing import Any

import torch

from benchmarks.peers.peer import Peer, Task, Variant

_ENGINES = ("x86", "onednn", "fbgemm")
# The profiling executor specializes in the first runs.
_TORCHSCRIPT_WARM_UP = 3


def _prepare(task: Task) -> list[Variant]:
    return [variant for engine in _ENGINES for variant in _with_engine(task, engine)]


def _with_engine(task: Task, engine: str) -> list[Variant]:
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

    fx: Any = quantize_fx
    trace: Any = torch.jit.trace
    torch.backends.quantized.engine = engine
    prepared = fx.prepare_fx(
        copy.deepcopy(task.model), get_default_qconfig_mapping(engine), (task.x,)
    )
    for x in task.calibration:
        prepared(x)
    quantized = fx.convert_fx(prepared)
    frozen = torch.jit.freeze(trace(quantized, task.x).eval())
    for _ in range(_TORCHSCRIPT_WARM_UP):
        frozen(task.x)
    return [
        Variant(f"{engine} eager", lambda: quantized(task.x)),
        Variant(f"{engine} frozen", lambda: frozen(task.x)),
    ]


PEER = Peer("torch_fx", "torch FX int8", _prepare)
