"""Mul."""

from __future__ import annotations

import numpy as np

from pyquant.ir.ops import Mul
from pyquant.operators import QParams
from reference.rounding import UInt8, round_to_uint8


def mul(
    op: Mul, a: UInt8, a_qparams: QParams, b: UInt8, b_qparams: QParams, y_qparams: QParams
) -> UInt8:
    """Operands of one rank; NumPy repeats dimensions of 1 as the operator does."""
    scales = [np.float32(q.scale) for q in (a_qparams, b_qparams, y_qparams)]
    multiplier = (scales[0] * scales[1]) / scales[2]
    product = (a.astype(np.int64) - a_qparams.zero_point) * (
        b.astype(np.int64) - b_qparams.zero_point
    )
    with np.errstate(over="ignore"):
        steps = product.astype(np.float32) * multiplier
    return round_to_uint8(steps, y_qparams.zero_point, op.output_min, op.output_max)
