"""From real-valued results in output steps to uint8."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


def round_to_uint8(steps: Float32, zero_point: int, low: int = 0, high: int = 255) -> UInt8:
    """``clamp(rne(steps) + zero_point, low, high)``; NaN becomes ``low``."""
    assert steps.dtype == np.float32
    shifted = np.rint(steps).astype(np.float64) + zero_point
    return np.where(np.isnan(shifted), low, np.clip(shifted, low, high)).astype(np.uint8)
