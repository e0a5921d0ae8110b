"""``convert``: observers become quantize/dequantize pairs."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import fx

from pyquant.capture.export import allow_mode_switch
from pyquant.capture.quiet import quiet
from pyquant.errors import CalibrationError, QuantizationError


def convert(prepared: fx.GraphModule) -> fx.GraphModule:
    """Turns a calibrated graph into the quantized graph (PT2E, q/dq form).

    Args:
        prepared: What ``prepare`` returned, after calibration. It stays usable.

    Returns:
        A new graph of ``quantized_decomposed`` calls around float ATen calls; weights are int8.

    Raises:
        CalibrationError: An observer has seen no data; the message names what it observes.
        QuantizationError: ``prepared`` holds no observers, or a scale is not finite and positive.
    """
    from pyquant.quantization import pt2e

    _check_calibrated(prepared)
    with quiet(streams=True):
        module: fx.GraphModule = pt2e.convert_pt2e(copy.deepcopy(prepared), fold_quantize=True)
    allow_mode_switch(module)
    _check_scales(module)
    return module


def _check_calibrated(prepared: object) -> None:
    if not isinstance(prepared, fx.GraphModule):
        raise QuantizationError(
            f"expected the graph that prepare() returned, got {type(prepared).__name__}"
        )
    empty: list[str] = []
    count = 0
    for node, observer in observers(prepared):
        count += 1
        if not _has_data(observer):
            empty.append(str(node.args[0]))
    if not count:
        raise QuantizationError("the graph holds no observers: call prepare() first")
    if empty:
        raise CalibrationError(
            f"the model is not calibrated: no data reached '{empty[0]}'"
            + (f" and {len(empty) - 1} more" if len(empty) > 1 else "")
            + "; run calibrate(), or the prepared model itself, on real inputs first"
        )


def observers(prepared: fx.GraphModule) -> list[tuple[fx.Node, Any]]:
    """Every observed place of a prepared graph: the observer's node and the observer module."""
    found = []
    for node in prepared.graph.nodes:
        if node.op == "call_module":
            module: Any = prepared.get_submodule(str(node.target))
            module = getattr(module, "activation_post_process", module)  # inside a FakeQuantize
            if isinstance(getattr(module, "min_val", None), torch.Tensor):
                found.append((node, module))
    return found


def _has_data(observer: Any) -> bool:
    low, high = observer.min_val, observer.max_val
    return bool(low.numel() and high.numel() and (low <= high).all())


def _check_scales(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        if "quantize_per_tensor" in str(node.target) and isinstance(node.args[1], float):
            if not (math.isfinite(node.args[1]) and node.args[1] > 0):
                raise QuantizationError(f"'{node.args[0]}' got the scale {node.args[1]}")
