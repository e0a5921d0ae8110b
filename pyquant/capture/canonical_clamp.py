"""One spelling for clamps: ``relu``, or ``hardtanh`` with both bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from pyquant.capture.node import arguments, is_float

_aten = torch.ops.aten
_Bounds = tuple[object, object]

#: operator: its arguments by name -> (lower bound or None, upper bound or None)
_BOUNDS: dict[OpOverload, Callable[[dict[str, Any]], _Bounds]] = {
    _aten.relu6.default: lambda a: (0.0, 6.0),
    _aten.hardtanh.default: lambda a: (a["min_val"], a["max_val"]),
    _aten.clamp.default: lambda a: (a["min"], a["max"]),
    _aten.clip.default: lambda a: (a["min"], a["max"]),
    _aten.clamp_min.default: lambda a: (a["min"], None),
    _aten.clamp_max.default: lambda a: (None, a["max"]),
    _aten.threshold.default: lambda a: (
        (0.0, None) if a["threshold"] == a["value"] == 0 else (None, None)
    ),
}


def canonicalize_clamp(module: fx.GraphModule) -> None:
    """Rewrites clamps of float32 tensors by constants, in place.

    ``[0, inf)`` becomes ``aten.relu(x)``; two finite bounds become ``aten.hardtanh(x, low, high)``
    with explicit floats (relu6 is ``hardtanh(x, 0.0, 6.0)``). Other clamps stay.

    Args:
        module: A functional graph of ATen calls.
    """
    for node in module.graph.nodes:
        if node.op != "call_function" or node.target not in _BOUNDS or not is_float(node):
            continue
        low, high = _BOUNDS[node.target](arguments(node))
        if isinstance(low, (int, float)) and isinstance(high, (int, float)) and low <= high:
            node.target = _aten.hardtanh.default
            node.args, node.kwargs = (node.args[0], float(low), float(high)), {}
        elif low == 0 and high is None:
            node.target = _aten.relu.default
            node.args, node.kwargs = (node.args[0],), {}
