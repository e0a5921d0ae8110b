"""``convert``: observers become quantize/dequantize pairs."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import fx, nn

from pyquant.capture.export import allow_mode_switch
from pyquant.capture.node import get_constant
from pyquant.capture.quiet import quiet
from pyquant.errors import CalibrationError, QuantizationError
from pyquant.quantization.bias_correction import correct_biases
from pyquant.quantization.end_training import end_training
from pyquant.quantization.round_bias import round_biases

#: What torch.compile and DistributedDataParallel call the module inside of them.
_WRAPPED = ("_orig_mod", "module")


def convert(prepared: nn.Module) -> fx.GraphModule:
    """Turns a calibrated graph into the quantized graph (PT2E, q/dq form).

    Args:
        prepared: What ``prepare`` returned, after calibration, or ``prepare_qat``, after training;
            also inside of ``DistributedDataParallel`` or ``torch.compile``. It stays usable.

    Returns:
        A new graph of ``quantized_decomposed`` calls around float ATen calls; weights are int8,
        biases float32, corrected if the config says so, on the grid of their int32 form.

    Raises:
        CalibrationError: An observer has seen no data; the message names what it observes.
        QuantizationError: ``prepared`` holds no observers, or a scale is not finite and positive.
    """
    from pyquant.quantization import pt2e

    prepared = check_prepared(prepared)
    with quiet(streams=True):
        observed = copy.deepcopy(prepared)
    end_training(observed)
    check_calibrated(observed)
    _show_weights(observed)
    with quiet(streams=True):
        correct_biases(observed)
        module: fx.GraphModule = pt2e.convert_pt2e(observed, fold_quantize=True)
    round_biases(module)
    allow_mode_switch(module)
    _check_scales(module)
    return module


def check_prepared(prepared: object) -> fx.GraphModule:
    """``prepared``, if it is an observed graph, or the one that it wraps.

    Raises:
        QuantizationError: It holds no observers.
    """
    graph = _unwrapped(prepared)
    if not isinstance(graph, fx.GraphModule):
        raise QuantizationError(
            f"expected the graph that prepare() returned, got {type(prepared).__name__}"
        )
    if not observers(graph):
        raise QuantizationError("the graph holds no observers: call prepare() first")
    return graph


def _unwrapped(module: object) -> object:
    while isinstance(module, nn.Module) and not isinstance(module, fx.GraphModule):
        inner = [module._modules[name] for name in _WRAPPED if name in module._modules]
        if not inner:
            break
        module = inner[0]
    return module


def check_calibrated(prepared: object) -> None:
    """Checks that ``prepared`` is an observed graph whose observers have seen data.

    Raises:
        CalibrationError: One has not; the message names what it observes.
        QuantizationError: It holds no observers.
    """
    found = observers(check_prepared(prepared))
    sources = [node.all_input_nodes[0] for node, observer in found if not _has_data(observer)]
    empty = [node.name for node in sorted(sources, key=lambda node: node.op == "get_attr")]
    if empty:
        raise CalibrationError(
            f"the model is not calibrated: no data reached '{empty[0]}'"
            + (f" and {len(empty) - 1} more" if len(empty) > 1 else "")
            + "; run calibrate(), or the prepared model itself, on real inputs first"
        )


def _show_weights(prepared: fx.GraphModule) -> None:
    """Observers of weights need no calibration, but the weights as they are now."""
    from pyquant.quantization.fake_quantize import WeightFakeQuantize
    from pyquant.quantization.observers import WeightObserver

    for node, observer in observers(prepared):
        weight = get_constant(prepared, node.all_input_nodes[0])
        if weight is not None and isinstance(observer, (WeightObserver, WeightFakeQuantize)):
            observer(weight)


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
        if "quantize_per_tensor" not in str(node.target):
            continue
        scale = node.args[1]
        if isinstance(scale, float) and not (math.isfinite(scale) and scale > 0):
            raise QuantizationError(f"'{node.args[0]}' got the scale {scale}")
