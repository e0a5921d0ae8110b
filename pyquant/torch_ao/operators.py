"""What each ``torch.ops.quantized`` operator computes, as a float operator between qparams.

The names and the order of the parameters are those of the operators' schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from pyquant.torch_ao.quantized_tensors import Affine, QuantizedTensors
from pyquant.torch_ao.unpack import PackedWeight

#: Takes the run's tensors and the operator's arguments; returns a handle.
Operator: TypeAlias = Callable[..., Tensor]
_Float: TypeAlias = Callable[..., Tensor]

_HEIGHT = 2  # what a one-dimensional layer gets: [N, C, L] is [N, C, 1, L]


def _like(tensors: QuantizedTensors, x: Any, scale: float, zero_point: int) -> Affine:
    """Qparams of a result, of the same dtype as the operand ``x``."""
    affine = tensors.affine(x)
    dtype = torch.quint8 if affine is None else affine.dtype
    return Affine(float(scale), int(zero_point), dtype)


# --- Operators with packed weights.


def _convolve(x: Tensor, packed: PackedWeight) -> Tensor:
    convolution = F.conv_transpose2d if packed.transposed else F.conv2d
    return convolution(x, packed.dequantized(), packed.bias, **packed.window)


def _linear(x: Tensor, packed: PackedWeight) -> Tensor:
    return F.linear(x, packed.dequantized(), packed.bias)


def _weighted(compute: _Float, activation: _Float | None = None) -> Operator:
    def operator(
        tensors: QuantizedTensors, x: Tensor, packed: PackedWeight, scale: float, zero_point: int
    ) -> Tensor:
        result = compute(tensors.value(x), packed)
        result = activation(result) if activation else result
        return tensors.quantize(result, _like(tensors, x, scale, zero_point))

    return operator


def _convolution_1d(activation: _Float | None = None) -> Operator:
    convolution = _weighted(_convolve, activation)

    def operator(
        tensors: QuantizedTensors, x: Tensor, packed: PackedWeight, scale: float, zero_point: int
    ) -> Tensor:
        def move(function: _Float, handle: Tensor) -> Tensor:
            affine = tensors.affine(handle)
            assert affine is not None
            return tensors.move(function(tensors.value(handle), _HEIGHT), affine)

        image = convolution(tensors, move(torch.unsqueeze, x), packed, scale, zero_point)
        return move(torch.squeeze, image)

    return operator


def _convolution_add(activation: _Float | None = None) -> Operator:
    def operator(
        tensors: QuantizedTensors,
        x: Tensor,
        accumulator: Tensor,
        packed: PackedWeight,
        scale: float,
        zero_point: int,
    ) -> Tensor:
        result = _convolve(tensors.value(x), packed) + tensors.value(accumulator)
        result = activation(result) if activation else result
        return tensors.quantize(result, _like(tensors, x, scale, zero_point))

    return operator


# --- Arithmetic.


def _plus_number(tensors: QuantizedTensors, x: Tensor, number: float) -> tuple[Tensor, Affine]:
    """``x + c`` keeps the integers and moves the zero point; where that no longer fits, the scale
    grows (qadd.cpp).
    """
    affine = tensors.affine(x)
    assert affine is not None
    low, high = affine.bounds
    steps = round(number / affine.scale)
    zero_point, scale = affine.zero_point - steps, affine.scale
    value = tensors.value(x) + steps * scale
    if zero_point < low:
        scale, zero_point = (high - zero_point) / (high - low) * scale, low
    elif zero_point > high:
        scale, zero_point = (zero_point - low) / (high - low) * scale, high
    return value, Affine(scale, zero_point, affine.dtype)


def _times_number(tensors: QuantizedTensors, x: Tensor, number: float) -> tuple[Tensor, Affine]:
    """``x * c`` keeps the integers, mirrored if ``c`` is negative (qmul.cpp)."""
    affine = tensors.affine(x)
    assert affine is not None
    value = tensors.value(x) * number
    if number == 0:
        return value, Affine(1.0, 0, affine.dtype)
    zero_point = affine.zero_point if number > 0 else sum(affine.bounds) - affine.zero_point
    return value, Affine(affine.scale * abs(number), zero_point, affine.dtype)


def _arithmetic(
    compute: _Float,
    with_number: Callable[[QuantizedTensors, Tensor, float], tuple[Tensor, Affine]],
    activation: _Float | None = None,
) -> Operator:
    def operator(
        tensors: QuantizedTensors,
        a: Any,
        b: Any,
        scale: float | None = None,
        zero_point: int | None = None,
    ) -> Tensor:
        if scale is None or zero_point is None:
            x, number = (a, b) if tensors.affine(a) is not None else (b, a)
            result, affine = with_number(tensors, x, float(number))
        else:
            result = compute(tensors.value(a), tensors.value(b))
            affine = _like(tensors, a, scale, zero_point)
        return tensors.quantize(activation(result) if activation else result, affine)

    return operator


def _concatenate(activation: _Float | None = None) -> Operator:
    def operator(
        tensors: QuantizedTensors,
        parts: Sequence[Tensor],
        dim: int,
        scale: float | None = None,
        zero_point: int | None = None,
    ) -> Tensor:
        first = tensors.affine(parts[0])
        assert first is not None
        affine = Affine(
            first.scale if scale is None else float(scale),
            first.zero_point if zero_point is None else int(zero_point),
            first.dtype,
        )
        result = torch.cat([tensors.value(part) for part in parts], dim)
        return tensors.quantize(activation(result) if activation else result, affine)

    return operator


# --- Operators with qparams of their own, by the positions of their other parameters.


def _with_qparams(compute: _Float, position: int) -> Operator:
    """An operator whose parameters ``position`` and the next are scale and zero point."""

    def operator(tensors: QuantizedTensors, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        values = list(args)
        scale = kwargs.pop("output_scale", None)
        zero_point = kwargs.pop("output_zero_point", None)
        if scale is None:
            scale = values.pop(position - 1)
        if zero_point is None:
            zero_point = values.pop(position - 1)
        result = compute(tensors.value(x), *tensors.values(values), **tensors.values(kwargs))
        return tensors.quantize(result, _like(tensors, x, scale, zero_point))

    return operator


def _same_qparams(compute: _Float) -> Operator:
    """An operator whose result has its operand's qparams."""

    def operator(tensors: QuantizedTensors, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        affine = tensors.affine(x)
        assert affine is not None
        return tensors.quantize(compute(tensors.value(x), *args, **kwargs), affine)

    return operator


def _batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float
) -> Tensor:
    return F.batch_norm(x, mean, var, weight, bias, eps=eps)


def _elu(x: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor:
    result: Tensor = torch.ops.aten.elu.default(x, alpha, scale, input_scale)
    return result


def _leaky_relu(x: Tensor, negative_slope: float, inplace: bool) -> Tensor:
    return F.leaky_relu(x, negative_slope)


def _instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.instance_norm(x, weight=weight, bias=bias, eps=eps)


def _relu6(x: Tensor, inplace: bool = False) -> Tensor:
    return F.relu6(x)


_ADD = (torch.add, _plus_number)
_MUL = (torch.mul, _times_number)

#: Adding an operator is adding a row.
OPERATORS: dict[str, Operator] = {
    "conv1d": _convolution_1d(),
    "conv1d_relu": _convolution_1d(F.relu),
    "conv2d": _weighted(_convolve),
    "conv2d_relu": _weighted(_convolve, F.relu),
    "conv2d_add": _convolution_add(),
    "conv2d_add_relu": _convolution_add(F.relu),
    "conv_transpose1d": _convolution_1d(),
    "conv_transpose2d": _weighted(_convolve),
    "linear": _weighted(_linear),
    "linear_relu": _weighted(_linear, F.relu),
    **{f"add{suffix}": _arithmetic(*_ADD) for suffix in ("", "_scalar")},
    **{f"add{suffix}_relu": _arithmetic(*_ADD, F.relu) for suffix in ("", "_scalar")},
    **{f"mul{suffix}": _arithmetic(*_MUL) for suffix in ("", "_scalar")},
    **{f"mul{suffix}_relu": _arithmetic(*_MUL, F.relu) for suffix in ("", "_scalar")},
    "matmul": _arithmetic(torch.matmul, _times_number),
    "cat": _concatenate(),
    "cat_relu": _concatenate(F.relu),
    **{f"batch_norm{rank}": _with_qparams(_batch_norm, 6) for rank in ("", "1d", "2d", "3d")},
    **{
        f"batch_norm{rank}_relu": _with_qparams(lambda *args: F.relu(_batch_norm(*args)), 6)
        for rank in ("", "1d", "2d", "3d")
    },
    "layer_norm": _with_qparams(F.layer_norm, 5),
    "group_norm": _with_qparams(F.group_norm, 5),
    "instance_norm": _with_qparams(_instance_norm, 4),
    "hardswish": _with_qparams(F.hardswish, 1),
    "sigmoid": _with_qparams(torch.sigmoid, 1),
    "elu": _with_qparams(_elu, 1),
    "celu": _with_qparams(F.celu, 1),
    "leaky_relu": _with_qparams(_leaky_relu, 3),
    "prelu": _with_qparams(F.prelu, 2),
    "softmax": _with_qparams(torch.softmax, 2),
    "relu6": _same_qparams(_relu6),
    "clamp": _same_qparams(torch.clamp),
    "max_pool2d": _same_qparams(F.max_pool2d),
}
