"""The torch operators of quantization in training; the work is done in C++.

``pyquant::observe_fake_quantize`` observes, chooses the grid and rounds to it;
``pyquant::fake_quantize`` rounds to a given grid, whose scale may be learned. Both are functional
and have fake kernels and gradients, so torch.compile, torch.export and DDP see through them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from pyquant import _C
from pyquant.quantization.observers import rows_of


@torch.library.custom_op("pyquant::fake_quantize", mutates_args=(), device_types="cpu")
def fake_quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None,
    features: int,
) -> Tensor:
    """``x`` quantized and dequantized.

    Args:
        x: float32, of any shape and memory format.
        scale: float32 ``[1]``, or ``[C]`` for the channels of dimension ``axis``. Infinity stands
            for "not known yet": then the result is ``x``.
        zero_point: int64, likewise.
        quant_min: The smallest quantized value.
        quant_max: The largest one.
        axis: The dimension of the channels; ``None`` for one scale.
        features: How many values share a scale, of one sample: the gradient of the scale is
            divided by ``sqrt(features * quant_max)`` (Esser et al. 2020, section 2.2).
    """
    if bool(torch.isinf(scale).any()):
        return x.clone()
    return _C.fake_quantize(x, scale, zero_point, _C.Grid(quant_min, quant_max, False), axis)


@fake_quantize.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("pyquant::fake_quantize_backward", mutates_args=(), device_types="cpu")
def _fake_quantize_backward(
    x: Tensor,
    dy: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    quant_min: int,
    quant_max: int,
    axis: int | None,
) -> tuple[Tensor, Tensor]:
    """The gradients of ``x`` and of ``scale``."""
    grid = _C.Grid(quant_min, quant_max, False)
    return _C.fake_quantize_backward(x, dy, scale, zero_point, grid, axis)


@_fake_quantize_backward.register_fake
def _(x: Tensor, dy: Tensor, scale: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(scale)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, scale, zero_point, *ctx.grid, ctx.features = inputs
    ctx.save_for_backward(x, scale, zero_point)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, scale, zero_point = ctx.saved_tensors
    dx, dscale = _fake_quantize_backward(x, dy, scale, zero_point, *ctx.grid)
    gradient = None
    if ctx.needs_input_grad[1]:
        gradient = dscale / math.sqrt(ctx.features * ctx.grid[1])
    return dx, gradient, None, None, None, None, None


fake_quantize.register_autograd(_backward, setup_context=_save)


@torch.library.custom_op("pyquant::observe_fake_quantize", mutates_args=(), device_types="cpu")
def observe_fake_quantize(
    x: Tensor,
    low: Tensor,
    high: Tensor,
    floor: float,
    ceiling: float,
    averaging_constant: float | None,
    synchronize: bool,
    quant_min: int,
    quant_max: int,
    symmetric: bool,
    axis: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``x`` quantized and dequantized on the grid of its range, and of the range seen before.

    Args:
        x: float32, of any shape and memory format; not empty.
        low: The smallest value so far, float32 ``[]``, or ``[C]`` for the channels of dimension
            ``axis``; infinity before any.
        high: The largest one, likewise; minus infinity before any.
        floor: Values below are seen as this.
        ceiling: Values above are seen as this.
        averaging_constant: The weight of ``x`` in the moving averages of both; ``None`` takes the
            extremes of all.
        synchronize: Take the extremes of ``x`` in all processes of ``torch.distributed``, if that
            is initialised. All of them must call this then.
        quant_min: The smallest quantized value.
        quant_max: The largest one.
        symmetric: Whether the zero point is the middle of the grid.
        axis: The dimension of the channels; ``None`` for one scale.

    Returns:
        The result, the new ``low`` and ``high``, scale, float32 ``[1]`` or ``[C]``, and zero point,
        int64. Only the first one has a gradient, only for ``x``.

    Raises:
        InvalidInputError: ``x`` holds NaN or infinity.
    """
    lowest, highest = _C.observe_min_max(rows_of(x, axis), _C.Interval(floor, ceiling))
    if synchronize and torch.distributed.is_available() and torch.distributed.is_initialized():
        extremes = torch.stack([-lowest, highest])
        torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX)
        lowest, highest = -extremes[0], extremes[1]
    lowest, highest = lowest.view_as(low), highest.view_as(high)
    if averaging_constant is None:
        lowest, highest = torch.minimum(low, lowest), torch.maximum(high, highest)
    elif averaging_constant < 1:
        known = low <= high
        lowest = torch.where(known, low + averaging_constant * (lowest - low), lowest)
        highest = torch.where(known, high + averaging_constant * (highest - high), highest)
    grid = _C.Grid(quant_min, quant_max, symmetric)
    scale, zero_point = _C.qparams(lowest.reshape(-1), highest.reshape(-1), grid)
    if axis is not None:
        # The bias of a channel whose weights are all 0 is rounded by its scale, too.
        zeros = (lowest == 0) & (highest == 0)
        if bool(zeros.any()) and not bool(zeros.all()):
            scale[zeros] = scale[~zeros].max()
    return _C.fake_quantize(x, scale, zero_point, grid, axis), lowest, highest, scale, zero_point


@observe_fake_quantize.register_fake
def _(x: Tensor, low: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    scale = low.new_empty(low.numel())
    zero_point = low.new_empty(low.numel(), dtype=torch.int64)
    return torch.empty_like(x), torch.empty_like(low), torch.empty_like(low), scale, zero_point


def _save_observed(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.grid = (inputs[7], inputs[8], inputs[10])
    ctx.save_for_backward(inputs[0], *output[3:])


def _backward_observed(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, scale, zero_point = ctx.saved_tensors
    dx, _ = _fake_quantize_backward(x, dy, scale, zero_point, *ctx.grid)
    return dx, *[None] * 10


observe_fake_quantize.register_autograd(_backward_observed, setup_context=_save_observed)
