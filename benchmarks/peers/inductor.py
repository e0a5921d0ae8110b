"""PT2E with X86InductorQuantizer, compiled by Inductor with frozen weights."""

from __future__ import annotations

import copy
from typing import Any

import torch

from benchmarks.peers.peer import Peer, Task, Variant


def _prepare(task: Task) -> list[Variant]:
    import torch._inductor.config as inductor
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer

    x86: Any = x86_inductor_quantizer
    exported = torch.export.export(copy.deepcopy(task.model), (task.x,)).module()
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared: Any = prepare_pt2e(exported, quantizer)
    for x in task.calibration:
        prepared(x)
    converted: Any = convert_pt2e(prepared)
    dynamo: Any = torch._dynamo
    dynamo.reset()
    inductor.freezing = True  # packs the weights; off by default
    compiled: Any = torch.compile(converted)
    compiled(task.x)
    return [Variant("frozen", lambda: compiled(task.x))]


PEER = Peer("inductor", "PT2E + Inductor int8", _prepare)
