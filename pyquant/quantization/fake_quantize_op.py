"""The torch operators of quantization in training, which ``pyquant._C`` registers.

``pyquant::observe_fake_quantize`` observes, chooses the grid and rounds to it;
``pyquant::fake_quantize`` rounds to a given grid, whose scale may be learned. They have fake
kernels and gradients, so torch.compile, torch.export and DDP see through them. Gradients pass
straight through what was not clamped; for that one bit of every value is kept, not the values.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor

from pyquant import _C
from pyquant.quantization.observers import rows_of

#: ``(x, low, high, scale, zero_point, extremes, floor, ceiling, averaging_constant, quant_min,
#: quant_max, symmetric, axis)`` to ``(y, passed)``: ``x`` quantized and dequantized on the grid of
#: its range and of the range seen before.
#:
#: Args:
#:     x: float32, of any shape and memory format; not empty.
#:     low: The smallest value so far, float32 ``[]``, or ``[C]`` for the channels of dimension
#:         ``axis``; infinity before any. Updated, like the next three.
#:     high: The largest one, likewise; minus infinity before any.
#:     scale: float32 ``[1]`` or ``[C]``; what it was does not matter.
#:     zero_point: int64, likewise.
#:     extremes: What counts as the smallest and the largest value of ``x``, float32 ``[2, C]``;
#:         ``None`` to look for them.
#:     floor: Values below are seen as this.
#:     ceiling: Values above are seen as this.
#:     averaging_constant: The weight of ``x`` in the moving averages of both; ``None`` takes the
#:         extremes of all.
#:     quant_min: The smallest quantized value.
#:     quant_max: The largest one.
#:     symmetric: Whether the zero point is the middle of the grid.
#:     axis: The dimension of the channels; ``None`` for one scale.
#:
#: Returns:
#:     ``y``, like ``x``; ``passed``, a bit for every value that was not clamped.
#:
#: Raises:
#:     ValueError: ``x`` holds NaN or infinity.
observe_fake_quantize = torch.ops.pyquant.observe_fake_quantize.default

#: ``(x, scale, zero_point, quant_min, quant_max, axis, features)`` to ``(y, passed)``: ``x``
#: quantized and dequantized.
#:
#: Args:
#:     x: float32, of any shape and memory format.
#:     scale: float32 ``[1]``, or ``[C]`` for the channels of dimension ``axis``. Infinity stands
#:         for "not known yet": then the result is ``x``. May have a gradient.
#:     zero_point: int64, likewise; or float32 and rounded here, which passes the gradient.
#:     quant_min: The smallest quantized value.
#:     quant_max: The largest one.
#:     axis: The dimension of the channels; ``None`` for one scale.
#:     features: How many values share a scale, of one sample: the gradients of scale and zero point
#:         are divided by ``sqrt(features * quant_max)`` (Esser et al. 2020, section 2.2).
#:
#: Returns:
#:     As above.
fake_quantize = torch.ops.pyquant.fake_quantize.default


@torch.library.custom_op("pyquant::extremes", mutates_args=(), device_types="cpu")
def extremes_of_all_processes(x: Tensor, floor: float, ceiling: float, axis: int | None) -> Tensor:
    """The smallest and the largest values of ``x`` in all processes of ``torch.distributed``.

    All of them must call this.

    Args:
        x: As for ``observe_fake_quantize``, like the others.
        floor: Likewise.
        ceiling: Likewise.
        axis: Likewise.

    Returns:
        float32 ``[2, C]``.

    Raises:
        InvalidInputError: ``x`` holds NaN or infinity.
    """
    lowest, highest = _C.observe_min_max(rows_of(x, axis), _C.Interval(floor, ceiling))
    extremes = torch.stack([-lowest, highest])
    torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX)
    extremes[0].neg_()
    return extremes


@extremes_of_all_processes.register_fake
def _(x: Tensor, floor: float, ceiling: float, axis: int | None) -> Tensor:
    return x.new_empty(2, 1 if axis is None else x.shape[axis])


def _rounded(x: Tensor, axis: int | None) -> tuple[Tensor, Tensor]:
    y = torch.empty_like(x)
    count = x.numel()
    inner = count if axis is None or x.shape[axis] == 1 else y.stride(axis)
    rows = count // inner if count else 0
    return y, x.new_empty((rows, (inner + 7) // 8), dtype=torch.uint8)


def _fake_observed(x: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    return _rounded(x, settings[-1])


def _fake_rounded(x: Tensor, *settings: Any) -> tuple[Tensor, Tensor]:
    return _rounded(x, settings[-2])


def _fake_passed(dy: Tensor, passed: Tensor, strides: list[int]) -> Tensor:
    return dy.new_empty_strided(dy.shape, strides)


def _fake_gradients(x: Tensor, dy: Tensor, scale: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(scale), torch.empty_like(scale)


for _name, _function in (
    ("observe_fake_quantize", _fake_observed),
    ("fake_quantize", _fake_rounded),
    ("pass_gradient", _fake_passed),
    ("learned_step_backward", _fake_gradients),
):
    torch.library.register_fake(f"pyquant::{_name}", _function)
