"""A table that is a clamped straight line, as a layer with one int8 weight."""

from __future__ import annotations

import numpy as np

from pyquant.ir import ops
from pyquant.ir.program import Tensor as IrTensor
from pyquant.mobile.stock_layers import qparams


def affine_layer(
    table: ops.LookupTable, x: IrTensor, output: IrTensor, *, slope: float, offset: float
) -> tuple[int, np.float32, int]:
    """Weight, its scale, and bias of ``y = slope * x + offset``, as near to the table as can be.

    The layer multiplies ``weight * (q - zero_point) + bias``, an integer, by ``x``'s scale times
    the weight's: the larger the weight, the finer is the bias. Of all weights that are fine enough
    the one is taken that gives the fewest other results than ``table``.

    Args:
        table: What is replaced; clamped like its values.
        x, output: Its uint8 input and output, which hold the qparams.
        slope, offset: Of the line, in real numbers.
    """
    values = np.frombuffer(table.values, dtype=np.uint8)
    (in_scale, in_zero_point), (out_scale, out_zero_point) = qparams(x), qparams(output)
    steps = np.arange(256) - in_zero_point

    def layer(weight: int) -> tuple[int, np.float32, int]:
        scale = np.float32(slope / weight)
        return weight, scale, round(offset / (in_scale * float(scale)))

    def wrong(weight: int) -> int:
        _, scale, bias = layer(weight)
        multiplier = np.float32(in_scale) * scale / np.float32(out_scale)
        results = np.rint((weight * steps + bias).astype(np.float32) * multiplier) + out_zero_point
        return int((np.clip(results, values.min(), values.max()) != values).sum())

    return layer(min(range(127, 31, -1), key=wrong))
