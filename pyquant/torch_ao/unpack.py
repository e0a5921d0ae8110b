"""Packed weights and scales of a converted model become plain tensors and numbers."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, fx, nn

from pyquant.errors import CaptureError

#: Packages whose modules hold quantized weights, or qparams as buffers.
QUANTIZED_PACKAGES = (
    "torch.ao.nn.quantized",
    "torch.ao.nn.intrinsic.quantized",
)
_DYNAMIC = re.compile(r"torch\.ao\.nn\.(intrinsic\.)?quantized\.dynamic")
_WINDOW = ("stride", "padding", "dilation", "groups")
_QPARAMS = re.compile(r"(.*_)?(scale|zero_point)(_\d+)?")


class PackedWeight(nn.Module):
    """What a packed weight of ``torch.ops.quantized`` holds, readable.

    Args:
        weight: int8, quantized per tensor or per channel.
        bias: float32, one per output channel.
        transposed: Whether it is a transposed convolution's.
        window: Strides, paddings and so on of a convolution, by the names of ``F.conv2d``.
    """

    values: Tensor
    scales: Tensor
    zero_points: Tensor
    bias: Tensor | None

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        transposed: bool = False,
        window: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("values", weight.int_repr())
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        self.axis: int | None = None
        if weight.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            self.scale, self.zero_point = weight.q_scale(), weight.q_zero_point()
        else:
            self.axis = weight.q_per_channel_axis()
            self.register_buffer("scales", weight.q_per_channel_scales().float())
            self.register_buffer("zero_points", weight.q_per_channel_zero_points().long())
        self.transposed = transposed
        self.window = window or {}

    def dequantized(self) -> Tensor:
        """The float weight; in a graph, a dequantize operator over the int8 one."""
        operators = torch.ops.quantized_decomposed
        bounds = (-128, 127, torch.int8)
        if self.axis is None:
            result = operators.dequantize_per_tensor.default(
                self.values, self.scale, self.zero_point, *bounds
            )
        else:
            result = operators.dequantize_per_channel.default(
                self.values, self.scales, self.zero_points, self.axis, *bounds
            )
        assert isinstance(result, Tensor)
        return result


def unpack(model: nn.Module) -> None:
    """Replaces what torch.export cannot hold, in place.

    Packed weights become :class:`PackedWeight`, and so do the float weights of reference modules;
    quantized tensors become float ones, buffers with a scale or zero point numbers.

    Args:
        model: A converted model; a copy of the user's.

    Raises:
        CaptureError: A module is dynamically quantized, or holds a kind of packed weight that is
            not known; the message names it.
    """
    readable: dict[int, PackedWeight] = {}
    for path, module in list(model.named_modules()):
        _refuse_dynamic(path, module)
        if hasattr(module, "get_quantized_weight"):
            reference: Any = module
            reference.int8_weight = PackedWeight(reference.get_quantized_weight())
            reference.get_weight = reference.int8_weight.dequantized
            continue
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.ScriptObject):
                if id(value) not in readable:
                    readable[id(value)] = _readable(path, value)
                delattr(module, name)
                setattr(module, name, readable[id(value)])
            elif isinstance(value, Tensor) and value.is_quantized:
                setattr(module, name, value.dequantize())
        for name, value in list(module.named_buffers(recurse=False)):
            if value.is_quantized:
                module.register_buffer(name, value.dequantize())
            elif value.numel() == 1 and _holds_qparams(module, name):
                delattr(module, name)
                setattr(module, name, value.item())


def is_converted(module: nn.Module) -> bool:
    """Whether a module itself is, or holds, something that torch.ao quantized."""
    return is_from(module, QUANTIZED_PACKAGES) or any(
        isinstance(value, torch.ScriptObject) for value in vars(module).values()
    )


def is_from(module: nn.Module, packages: tuple[str, ...]) -> bool:
    """Whether the module's class, or a base of it, is defined in one of the packages."""
    return any(base.__module__.startswith(packages) for base in type(module).__mro__)


def _holds_qparams(module: nn.Module, name: str) -> bool:
    known = isinstance(module, fx.GraphModule) or is_from(module, QUANTIZED_PACKAGES)
    return known and _QPARAMS.fullmatch(name) is not None


def _refuse_dynamic(path: str, module: nn.Module) -> None:
    if any(_DYNAMIC.match(base.__module__) for base in type(module).__mro__):
        raise CaptureError(
            f"module '{path or '(root)'}' ({type(module).__name__}) is quantized dynamically, "
            "which has no fixed activation scales to import. Pass the float model to "
            "pyquant.quantize_dynamic, or calibrate it with pyquant.quantize"
        )


def _readable(path: str, packed: Any) -> PackedWeight:
    kind = packed._type().name()
    if kind not in ("Conv2dPackedParamsBase", "LinearPackedParamsBase"):
        raise CaptureError(
            f"module '{path or '(root)'}' holds a packed weight of type {kind}, which pyquant "
            "does not import. Pass the float model to pyquant.quantize"
        )
    weight, bias = packed.unpack()
    if kind == "LinearPackedParamsBase":
        return PackedWeight(weight, bias)
    transposed = packed.transpose()
    names = (*_WINDOW, "output_padding") if transposed else _WINDOW
    window = {name: getattr(packed, name)() for name in names}
    return PackedWeight(weight, bias, transposed=transposed, window=window)
