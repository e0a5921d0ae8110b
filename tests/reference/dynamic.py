"""Dynamic quantization in plain NumPy: the formulas of ``pyquant/dynamic_linear.h``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]


def quantize_rows(x: Float32) -> tuple[Int64, Float32, Int64]:
    """uint8 numbers, scales and zero points of finite rows ``[N, I]``."""
    low = np.minimum(x.min(1), np.float32(0))
    high = np.maximum(x.max(1), np.float32(0))
    scale = np.maximum(high / np.float32(255) - low / np.float32(255), np.float32(2.0**-100))
    inverse = np.float32(1) / scale
    zero_point = np.minimum(np.rint(-low * inverse), 255).astype(np.int64)
    steps = np.rint(x * inverse[:, None]).astype(np.int64) + zero_point[:, None]
    return np.clip(steps, 0, 255), scale, zero_point


def dynamic_linear(x: Float32, weight: Int8, scales: Float32, bias: Float32) -> Float32:
    """``[N, I]`` to ``[N, O]``; rows that are not finite give NaN."""
    finite = np.isfinite(x).all(1)
    q, scale, zero_point = quantize_rows(np.where(finite[:, None], x, np.float32(0)))
    sums = (q - zero_point[:, None]) @ weight.astype(np.int64).T
    y: Float32 = sums.astype(np.float32) * (scale[:, None] * scales) + bias
    y[~finite] = np.nan
    return y
