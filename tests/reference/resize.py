"""ResizeNearest and ResizeBilinear."""

from __future__ import annotations

import math

import numpy as np

from pyquant.ir.ops import ResizeBilinear, ResizeNearest
from pyquant.operators import QParams
from reference.rounding import UInt8, round_to_uint8

ONE, HALF = np.float32(1), np.float32(0.5)


def resize_nearest(op: ResizeNearest, x: UInt8) -> UInt8:
    """Each output pixel is one of the input's."""
    rows = _nearest(x.shape[1], op.output_h, op.scale_h)
    columns = _nearest(x.shape[2], op.output_w, op.scale_w)
    return x[:, rows][:, :, columns]


def resize_bilinear(op: ResizeBilinear, x: UInt8, x_qparams: QParams, y_qparams: QParams) -> UInt8:
    """Each output pixel is a weighted mean of four of the input's."""
    rows = _linear(x.shape[1], op.output_h, op.scale_h, op.align_corners)
    columns = _linear(x.shape[2], op.output_w, op.scale_w, op.align_corners)
    values = (x.astype(np.int32) - x_qparams.zero_point).astype(np.float32)
    multiplier = np.float32(x_qparams.scale) / np.float32(y_qparams.scale)
    y = np.empty((x.shape[0], len(rows), len(columns), x.shape[3]), np.uint8)
    for oh, (top, bottom, lower) in enumerate(rows):
        for ow, (left, right, after) in enumerate(columns):
            upper_row = (ONE - after) * values[:, top, left] + after * values[:, top, right]
            lower_row = (ONE - after) * values[:, bottom, left] + after * values[:, bottom, right]
            blended = (ONE - lower) * upper_row + lower * lower_row
            y[:, oh, ow] = round_to_uint8(blended * multiplier, y_qparams.zero_point, 0, 255)
    return y


def _outputs(size: int, output: int, scale: float) -> int:
    return output or math.floor(size * scale)


def _ratio(size: int, outputs: int, scale: float) -> np.float32:
    if outputs == size:
        return ONE
    return np.float32(1 / scale) if scale else np.float32(size) / np.float32(outputs)


def _nearest(size: int, output: int, scale: float) -> list[int]:
    outputs = _outputs(size, output, scale)
    ratio = _ratio(size, outputs, scale)
    return [min(int(np.floor(np.float32(i) * ratio)), size - 1) for i in range(outputs)]


def _linear(
    size: int, output: int, scale: float, align_corners: bool
) -> list[tuple[int, int, np.float32]]:
    """For each output pixel the two input pixels and the weight of the second."""
    outputs = _outputs(size, output, scale)
    taps = []
    for i in range(outputs):
        if align_corners:
            ratio = np.float32(size - 1) / np.float32(outputs - 1) if outputs > 1 else 0 * ONE
            position = ratio * np.float32(i)
        else:
            ratio = _ratio(size, outputs, scale)
            position = max(ratio * (np.float32(i) + HALF) - HALF, np.float32(0))
        first = min(int(position), size - 1)
        weight = min(position - np.float32(first), ONE)
        taps.append((first, min(first + 1, size - 1), weight))
    return taps
