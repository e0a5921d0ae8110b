"""Operators that move bytes, and LookupTable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyquant.ir.ops import ChannelShuffle, Concat, LookupTable, Pad, Reshape, Slice
from pyquant.operators import QParams
from reference.rounding import UInt8


def flatten(x: UInt8) -> UInt8:
    """[N, H, W, C] to [N, C * H * W] in NCHW order; other ranks [N, ...] to [N, K]."""
    ordered = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
    return np.ascontiguousarray(ordered).reshape(x.shape[0], -1)


def reshape(op: Reshape, x: UInt8) -> UInt8:
    """[N, ...] to [N, *sizes]; tensors of rank 4 are NCHW in between."""
    ordered = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
    y = np.ascontiguousarray(ordered).reshape(x.shape[0], *op.sizes)
    return y.transpose(0, 2, 3, 1) if y.ndim == 4 else y


def pad(op: Pad, x: UInt8, qparams: QParams) -> UInt8:
    """A border of the zero_point; negative amounts crop."""
    batch, height, width, channels = x.shape
    shape = (batch, height + op.top + op.bottom, width + op.left + op.right, channels)
    y = np.full(shape, qparams.zero_point, np.uint8)
    for h in range(shape[1]):
        for w in range(shape[2]):
            if 0 <= h - op.top < height and 0 <= w - op.left < width:
                y[:, h, w] = x[:, h - op.top, w - op.left]
    return y


def lookup_table(op: LookupTable, x: UInt8) -> UInt8:
    """``values[x]``."""
    return np.frombuffer(op.values, np.uint8)[x]


def concat(op: Concat, inputs: Sequence[UInt8]) -> UInt8:
    """Along an axis; interleaved: one element of each in turn."""
    if op.interleaved:
        return np.stack(inputs, axis=-1).reshape(*inputs[0].shape[:-1], -1)
    return np.concatenate(inputs, op.axis)


def slice_axis(op: Slice, x: UInt8) -> UInt8:
    """``begin <= i < end`` of an axis, as Python slices; an end of 0 is the end of the axis."""
    return x[(slice(None),) * op.axis + (slice(op.begin, op.end or None),)]


def channel_shuffle(op: ChannelShuffle, x: UInt8) -> UInt8:
    """Channel g * (C / groups) + i becomes channel i * groups + g."""
    size = x.shape[3] // op.groups
    y = np.empty_like(x)
    for group in range(op.groups):
        for i in range(size):
            y[..., i * op.groups + group] = x[..., group * size + i]
    return y
