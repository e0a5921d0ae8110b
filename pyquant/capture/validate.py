"""What a model must be before it is worth exporting."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from pyquant.errors import CaptureError, QuantizationError

_QUANTIZED_PACKAGES = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
    "torch.ao.nn.qat",
    "torch.ao.nn.intrinsic.qat",
    "torch.ao.quantization.fake_quantize",
    "torch.ao.quantization.observer",
    "torch.nn.quantized",
    "torchao.",
)
#: Stand-ins in a float model; they compute in float until they are converted.
_FLOAT_STAND_INS = ("FloatFunctional", "FXFloatFunctional")


def check_float_model(model: object) -> nn.Module:
    """Checks that ``model`` is a float module that can be captured.

    Args:
        model: What the user passed.

    Returns:
        The model itself.

    Raises:
        CaptureError: It is no ``nn.Module``, a TorchScript module, holds no floating-point
            parameter or buffer, or holds quantized modules or tensors (the message names one).
        QuantizationError: A parameter or buffer holds NaN or infinity (the message names it).
            A buffer of only 0 and -inf, an attention mask, is fine.
    """
    if not isinstance(model, nn.Module):
        raise CaptureError(f"expected a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise CaptureError(
            "the model is a TorchScript module, which torch.export does not take; "
            "pass the original nn.Module"
        )
    for name, module in model.named_modules():
        if _is_quantized(module):
            raise CaptureError(
                f"module '{name or '(root)'}' of type {type(module).__name__} is quantized or "
                "prepared for quantization already; pass the float model, or, if torch.ao has "
                "converted it, call pyquant.migrate"
            )
    has_float = False
    for name, tensor in _tensors(model):
        if tensor.is_quantized:
            raise CaptureError(f"'{name}' is a quantized tensor; pass the float model")
        if tensor.is_floating_point():
            has_float = True
            _check_finite(name, tensor)
    if not has_float:
        raise CaptureError(
            f"{type(model).__name__} has no floating-point parameters or buffers: "
            "there is nothing to quantize"
        )
    return model


def _is_quantized(module: nn.Module) -> bool:
    kind = type(module)
    if kind.__name__ in _FLOAT_STAND_INS:
        return False
    return any(base.__module__.startswith(_QUANTIZED_PACKAGES) for base in kind.__mro__)


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _check_finite(name: str, tensor: torch.Tensor) -> None:
    if tensor.is_meta or bool(torch.isfinite(tensor).all()):
        return
    is_mask = not isinstance(tensor, nn.Parameter) and bool(
        ((tensor == 0) | (tensor == -torch.inf)).all()
    )
    if not is_mask:
        what = "NaN" if bool(torch.isnan(tensor).any()) else "infinite values"
        raise QuantizationError(f"'{name}' holds {what}: such a model cannot be quantized")
