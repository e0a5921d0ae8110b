"""torch in float32: eager, in both memory formats."""

from __future__ import annotations

import copy
from typing import Any

import torch

from benchmarks.peers.peer import Peer, Task, Variant


def _prepare(task: Task) -> list[Variant]:
    model: Any = copy.deepcopy(task.model)
    nhwc = model.to(memory_format=torch.channels_last)
    x_nhwc = task.x.to(memory_format=torch.channels_last)
    return [
        Variant("contiguous", lambda: task.model(task.x)),
        Variant("channels_last", lambda: nhwc(x_nhwc)),
    ]


PEER = Peer("torch", "torch fp32", _prepare)
