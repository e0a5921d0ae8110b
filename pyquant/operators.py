"""pyquant's kernels by themselves: prepared once, called on uint8 tensors.

Activations are ``torch.uint8`` tensors in NHWC order, ``[N, H, W, C]``, or ``torch.quint8``
tensors in NCHW order (best in ``torch.channels_last``, which then needs no copy) whose qparams must
be those that the operator was prepared for. The arithmetic is that of every engine, to the bit; it
is written down in ``csrc/include/pyquant/operator.h``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pyquant import _C
from pyquant.errors import InvalidInputError
from pyquant.ir import ops

Pair = int | tuple[int, int]


@dataclass(frozen=True)
class QParams:
    """x = (q - zero_point) * scale for uint8 q; zero_point within 0..255."""

    scale: float
    zero_point: int


class Kernel:
    """One operator prepared on one engine.

    Args:
        op: Its kind and attributes, a dataclass of :mod:`pyquant.ir.ops`.
        inputs: The qparams of each activation input; ``None`` for a float32 one.
        output: The qparams of the result; ``None`` for float32.
        weight: int8, output channels first, input channels last (``[O, kH, kW, I / groups]`` or
            ``[O, I]``).
        weight_scales: float32 ``[O]``.
        bias: int32 ``[O]`` at scale ``input.scale * weight_scales``.
        engine: ``"auto"``, or a name of ``pyquant.engines()``.
        threads: Threads inside one call.

    Raises:
        InvalidProgramError: The operands do not fit the operator.
        UnsupportedError: The engine cannot run it; the message says why.
    """

    def __init__(
        self,
        op: ops.Op,
        inputs: Sequence[QParams | None],
        output: QParams | None,
        *,
        weight: Tensor | None = None,
        weight_scales: Tensor | None = None,
        bias: Tensor | None = None,
        engine: str = "auto",
        threads: int = 1,
    ) -> None:
        self.op = op
        self.inputs = list(inputs)
        self.output = output
        self._kernel = _C.Kernel(
            op,
            [_pair_of(qparams) for qparams in inputs],
            _pair_of(output),
            weight=None if weight is None else weight.contiguous(),
            weight_scales=[] if weight_scales is None else weight_scales.tolist(),
            bias=None if bias is None else bias.contiguous(),
            engine=engine,
            threads=threads,
        )

    @property
    def engine(self) -> str:
        """The engine that runs the operator."""
        return self._kernel.engine

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Runs on uint8 (NHWC) or quint8 (NCHW) tensors; the result is of the same form.

        Raises:
            InvalidInputError: A wrong count, shape, dtype, or quint8 with other qparams.
        """
        if len(inputs) != len(self.inputs):
            raise InvalidInputError(f"takes {len(self.inputs)} inputs, not {len(inputs)}")
        for value in inputs:
            if not isinstance(value, Tensor) or value.layout != torch.strided:
                raise InvalidInputError(f"an input is {type(value).__name__}, not a dense tensor")
        quantized = any(value.dtype == torch.quint8 for value in inputs)
        pairs = zip(inputs, self.inputs, strict=True)
        raw = [self._raw(value, qparams) for value, qparams in pairs]
        result = self._kernel.run(raw)
        if not quantized or self.output is None:
            return result
        result = result.permute(0, 3, 1, 2) if result.ndim == 4 else result
        return torch._make_per_tensor_quantized_tensor(
            result, self.output.scale, self.output.zero_point
        )

    @staticmethod
    def _raw(value: Tensor, qparams: QParams | None) -> Tensor:
        if value.dtype != torch.quint8:
            return value.contiguous()
        if value.qscheme() != torch.per_tensor_affine:
            raise InvalidInputError(
                f"the input is {value.qscheme()}; it must be quantized per tensor"
            )
        found = (np.float32(value.q_scale()), value.q_zero_point())
        if qparams is None or found != (np.float32(qparams.scale), qparams.zero_point):
            raise InvalidInputError(
                f"the input has scale {found[0]} and zero_point {found[1]}; the operator was "
                f"prepared for {qparams}"
            )
        raw = value.int_repr()
        return (raw.permute(0, 2, 3, 1) if raw.ndim == 4 else raw).contiguous()


def _pair_of(qparams: QParams | None) -> tuple[float, int] | None:
    return None if qparams is None else (qparams.scale, qparams.zero_point)


#: Activations that are clamps, as the interval of real numbers that they clamp to.
CLAMPS: dict[str, tuple[float, float]] = {
    "relu": (0.0, float("inf")),
    "relu6": (0.0, 6.0),
}

Activation = str | tuple[float, float] | None


def _bounds(activation: Activation, output: QParams) -> tuple[int, int]:
    if activation is None:
        return 0, 255
    if isinstance(activation, str) and activation not in CLAMPS:
        raise InvalidInputError(
            f"there is no activation {activation!r}; known are {', '.join(CLAMPS)}, or (low, high)"
        )
    low, high = CLAMPS[activation] if isinstance(activation, str) else activation
    if not low <= high:
        raise InvalidInputError(f"the activation clamps to ({low}, {high}), which is no interval")
    inverse = np.float32(1.0 / output.scale)
    steps = np.rint(np.array([low, high], np.float32) * inverse) + output.zero_point
    bounds = np.clip(steps, 0, 255)
    return int(bounds[0]), int(bounds[1])


def _pair(value: Pair) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else value
    if len(pair) != 2:
        raise InvalidInputError(f"{value} is neither an int nor (height, width)")
    return pair


def _padding(value: Pair | tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right."""
    if not isinstance(value, int) and len(value) == 4:
        return value
    height, width = _pair(value)
    return (height, width, height, width)


class ConvBnRelu2d(Kernel):
    """Fused convolution, BatchNorm and clamp in int8, from float parameters.

    The BatchNorm is folded into the weight, and the weight quantized symmetrically per output
    channel, when the object is made.

    Args:
        weight: float32 ``[O, I / groups, kH, kW]``, as in ``torch.nn.Conv2d``.
        bias: float32 ``[O]`` or ``None``.
        input_qparams: Of the uint8 input.
        output_qparams: Of the uint8 output.
        batch_norm: An eval-mode ``nn.BatchNorm2d`` with statistics, or ``None``.
        activation: ``None``, ``"relu"``, ``"relu6"`` or ``(low, high)`` in real numbers.
        stride: An int or ``(height, width)``; so is ``dilation``.
        padding: An int, ``(height, width)`` or ``(top, left, bottom, right)``.
        dilation: See ``stride``.
        groups: As in ``torch.nn.Conv2d``; ``groups == I`` is a depthwise convolution.
        engine: ``"auto"``, or a name of ``pyquant.engines()``.
        threads: Threads inside one call.

    Raises:
        InvalidInputError: Shapes do not fit, or NaN or infinity in the parameters.
        UnsupportedError: The engine cannot run this convolution; the message says why.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        input_qparams: QParams,
        output_qparams: QParams,
        *,
        batch_norm: nn.BatchNorm2d | None = None,
        activation: Activation = None,
        stride: Pair = 1,
        padding: Pair | tuple[int, int, int, int] = 0,
        dilation: Pair = 1,
        groups: int = 1,
        engine: str = "auto",
        threads: int = 1,
    ) -> None:
        if weight.ndim != 4:
            raise InvalidInputError(f"the weight has {weight.ndim} dimensions, not 4")
        top, left, bottom, right = _padding(padding)
        window = ops.Window(
            weight.shape[2],
            weight.shape[3],
            *_pair(stride),
            top,
            left,
            bottom,
            right,
            *_pair(dilation),
        )
        low, high = _bounds(activation, output_qparams)
        quantized, scales, quantized_bias = _quantize(weight, bias, batch_norm, input_qparams)
        super().__init__(
            ops.Conv2d(window, groups, low, high),
            [input_qparams],
            output_qparams,
            weight=quantized.permute(0, 2, 3, 1),
            weight_scales=scales,
            bias=quantized_bias,
            engine=engine,
            threads=threads,
        )


class LinearRelu(Kernel):
    """Fused linear layer and clamp in int8, from float parameters.

    Args:
        weight: float32 ``[O, I]``, as in ``torch.nn.Linear``.
        bias: float32 ``[O]`` or ``None``.
        input_qparams: Of the uint8 input ``[..., I]``.
        output_qparams: Of the uint8 output ``[..., O]``.
        activation: ``None``, ``"relu"``, ``"relu6"`` or ``(low, high)`` in real numbers.
        engine: ``"auto"``, or a name of ``pyquant.engines()``.
        threads: Threads inside one call.

    Raises:
        InvalidInputError: Shapes do not fit, or NaN or infinity in the parameters.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        input_qparams: QParams,
        output_qparams: QParams,
        *,
        activation: Activation = None,
        engine: str = "auto",
        threads: int = 1,
    ) -> None:
        low, high = _bounds(activation, output_qparams)
        quantized, scales, quantized_bias = _quantize(weight, bias, None, input_qparams)
        super().__init__(
            ops.Linear(low, high),
            [input_qparams],
            output_qparams,
            weight=quantized,
            weight_scales=scales,
            bias=quantized_bias,
            engine=engine,
            threads=threads,
        )


def _quantize(
    weight: Tensor,
    bias: Tensor | None,
    batch_norm: nn.BatchNorm2d | None,
    input_qparams: QParams,
) -> tuple[Tensor, Tensor, Tensor]:
    """Folds and quantizes: int8 weight, float32 scales, int32 bias."""
    weight = weight.detach().contiguous()
    channels = weight.shape[0]
    bias = torch.zeros(channels) if bias is None else bias.detach().contiguous()
    if bias.shape != (channels,):
        raise InvalidInputError(f"the bias is {list(bias.shape)}; it must be [{channels}]")
    if batch_norm is not None:
        mean, variance = batch_norm.running_mean, batch_norm.running_var
        if mean is None or variance is None:
            raise InvalidInputError("the BatchNorm has no running statistics")
        gamma = torch.ones(channels) if batch_norm.weight is None else batch_norm.weight.detach()
        beta = torch.zeros(channels) if batch_norm.bias is None else batch_norm.bias.detach()
        weight, bias = _C.fold_batch_norm(weight, bias, mean, variance, gamma, beta, batch_norm.eps)
    return _C.quantize_weight(weight, bias, input_qparams.scale)
