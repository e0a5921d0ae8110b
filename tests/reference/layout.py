"""Flatten, Pad and LookupTable."""

from __future__ import annotations

import numpy as np

from pyquant.ir.ops import LookupTable, Pad, Reshape
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
