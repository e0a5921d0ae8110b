"""Quantize and Dequantize."""

from __future__ import annotations

import numpy as np

from pyquant.operators import QParams
from reference.rounding import Float32, UInt8, round_to_uint8


def quantize(x: Float32, qparams: QParams) -> UInt8:
    """float32 (NCHW if rank 4) to uint8 (NHWC if rank 4); NaN becomes 0."""
    inverse = np.float32(1) / np.float32(qparams.scale)
    with np.errstate(over="ignore", invalid="ignore"):
        q = round_to_uint8(x * inverse, qparams.zero_point)
    return np.ascontiguousarray(q.transpose(0, 2, 3, 1)) if q.ndim == 4 else q


def dequantize(q: UInt8 | Float32, qparams: QParams | None) -> Float32:
    """uint8 (NHWC if rank 4) to float32 (NCHW if rank 4); ``None`` for a float32 input."""
    x = q.astype(np.float32)
    if qparams is not None:
        steps = (q.astype(np.int64) - qparams.zero_point).astype(np.float32)
        with np.errstate(over="ignore"):
            x = steps * np.float32(qparams.scale)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x
