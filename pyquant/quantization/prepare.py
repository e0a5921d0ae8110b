"""``prepare``: capture, fold, annotate, insert observers."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from pyquant.capture import capture
from pyquant.capture.export import allow_mode_switch
from pyquant.capture.quiet import quiet
from pyquant.errors import QuantizationError
from pyquant.quantization.bias_correction import insert_input_means
from pyquant.quantization.config import QuantizationConfig
from pyquant.quantization.equalize import equalize
from pyquant.quantization.fold_batch_norm import fold_batch_norm


def prepare(
    model: nn.Module,
    example_inputs: tuple[Any, ...] | list[Any] | torch.Tensor,
    config: QuantizationConfig | None = None,
) -> fx.GraphModule:
    """Makes an observed graph, ready for calibration, of a float model.

    The model itself is not changed.

    Args:
        model: A float32 ``nn.Module``, or a graph that ``pyquant.capture.capture`` made.
        example_inputs: The positional inputs, or one tensor; e.g. float32 ``[1, 3, 224, 224]``.
        config: Observers and weight scales; the default config if ``None``.

    Returns:
        A graph module that computes what the model computes and observes the ranges as it runs.
        ``train()`` and ``eval()`` may be called and change nothing.

    Raises:
        CaptureError: The model is no float module or cannot be exported.
        QuantizationError: It holds NaN or infinity, parameters other than float32, or nothing
            that can be quantized.
    """
    config = config or QuantizationConfig()
    module = float_graph(model, example_inputs)
    from pyquant.quantization import pt2e
    from pyquant.quantization.quantizer import PyquantQuantizer

    with quiet(streams=True):
        prepared: fx.GraphModule = pt2e.prepare_pt2e(module, PyquantQuantizer(config))
    if config.equalize:
        equalize(prepared)
    if config.bias_correction:
        insert_input_means(prepared)
    allow_mode_switch(prepared)
    return prepared


def float_graph(
    model: nn.Module, example_inputs: tuple[Any, ...] | list[Any] | torch.Tensor
) -> fx.GraphModule:
    """The float model as the quantizer sees it: captured, batch norms folded.

    Its nodes have the names that they have in the prepared and in the quantized graph.

    Args:
        model: A float32 ``nn.Module``, or a graph that ``pyquant.capture.capture`` made.
        example_inputs: The positional inputs, or one tensor.

    Raises:
        CaptureError: The model is no float module or cannot be exported.
        QuantizationError: It holds NaN or infinity, or parameters other than float32.
    """
    module = capture(model, example_inputs)
    check_parameters(module)
    fold_batch_norm(module)
    return module


def check_parameters(module: nn.Module) -> None:
    """Checks that all parameters are float32.

    Raises:
        QuantizationError: One is not.
    """
    for name, parameter in module.named_parameters():
        if parameter.is_floating_point() and parameter.dtype is not torch.float32:
            raise QuantizationError(
                f"parameter '{name}' is {str(parameter.dtype).removeprefix('torch.')}; "
                "quantization starts from float32: call model.float() first"
            )
