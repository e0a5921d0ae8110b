"""Add."""

from __future__ import annotations

import numpy as np

from pyquant.ir.ops import Add
from pyquant.operators import QParams
from reference.rounding import Float32, UInt8, round_to_uint8


def add(
    op: Add,
    a: UInt8 | Float32,
    a_qparams: QParams | None,
    b: UInt8 | Float32,
    b_qparams: QParams | None,
    y_qparams: QParams,
) -> UInt8:
    """Operands with qparams are uint8, those without are float32."""
    scale = np.float32(y_qparams.scale)
    with np.errstate(over="ignore", invalid="ignore"):
        total = _in_steps(a, a_qparams, scale) + _in_steps(b, b_qparams, scale)
    return round_to_uint8(total, y_qparams.zero_point, op.output_min, op.output_max)


def _in_steps(values: UInt8 | Float32, qparams: QParams | None, scale: np.float32) -> Float32:
    if qparams is None:
        return values.astype(np.float32) * (np.float32(1) / scale)
    ratio = np.float32(qparams.scale) / scale
    return (values.astype(np.int64) - qparams.zero_point).astype(np.float32) * ratio
