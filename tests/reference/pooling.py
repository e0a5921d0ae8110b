"""Max and average pooling."""

from __future__ import annotations

import numpy as np

from pyquant.ir.ops import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from pyquant.operators import QParams
from reference.rounding import Int64, UInt8, round_to_uint8


def positions(
    size: int, kernel: int, stride: int, pad: tuple[int, int], dilation: int, ceil_mode: bool
) -> int:
    """Windows along one axis; with ``ceil_mode`` the last must begin inside image or padding."""
    room = size + sum(pad) - dilation * (kernel - 1) - 1
    count = -(-room // stride) + 1 if ceil_mode else room // stride + 1
    if ceil_mode and (count - 1) * stride >= size + pad[0]:
        count -= 1
    return count


def max_pool2d(op: MaxPool2d, x: UInt8) -> UInt8:
    """Padding never wins."""
    window = op.window
    batch, height, width, channels = x.shape
    out_h = positions(
        height,
        window.kernel_h,
        window.stride_h,
        (window.pad_top, window.pad_bottom),
        window.dilation_h,
        op.ceil_mode,
    )
    out_w = positions(
        width,
        window.kernel_w,
        window.stride_w,
        (window.pad_left, window.pad_right),
        window.dilation_w,
        op.ceil_mode,
    )
    y = np.zeros((batch, out_h, out_w, channels), np.uint8)
    for i in range(out_h):
        for j in range(out_w):
            for kh in range(window.kernel_h):
                for kw in range(window.kernel_w):
                    h = i * window.stride_h - window.pad_top + kh * window.dilation_h
                    w = j * window.stride_w - window.pad_left + kw * window.dilation_w
                    if 0 <= h < height and 0 <= w < width:
                        y[:, i, j] = np.maximum(y[:, i, j], x[:, h, w])
    return y


def avg_pool2d(op: AvgPool2d, x: UInt8, x_qparams: QParams, y_qparams: QParams) -> UInt8:
    """The divisor follows ``count_include_pad`` and ``divisor_override``."""
    window = op.window
    batch, height, width, channels = x.shape
    pad_h, pad_w = (window.pad_top, window.pad_bottom), (window.pad_left, window.pad_right)
    out_h = positions(height, window.kernel_h, window.stride_h, pad_h, 1, op.ceil_mode)
    out_w = positions(width, window.kernel_w, window.stride_w, pad_w, 1, op.ceil_mode)
    y = np.zeros((batch, out_h, out_w, channels), np.uint8)
    for i in range(out_h):
        for j in range(out_w):
            top = i * window.stride_h - window.pad_top
            left = j * window.stride_w - window.pad_left
            bottom = min(top + window.kernel_h, height + window.pad_bottom)
            right = min(left + window.kernel_w, width + window.pad_right)
            rows, columns = (max(top, 0), min(bottom, height)), (max(left, 0), min(right, width))
            if op.divisor_override > 0:
                count = op.divisor_override
            elif op.count_include_pad:
                count = (bottom - top) * (right - left)
            else:
                count = (rows[1] - rows[0]) * (columns[1] - columns[0])
            region = x[:, rows[0] : rows[1], columns[0] : columns[1]].astype(np.int64)
            y[:, i, j] = _average(region - x_qparams.zero_point, count, x_qparams, y_qparams)
    return y


def adaptive_avg_pool2d(
    op: AdaptiveAvgPool2d, x: UInt8, x_qparams: QParams, y_qparams: QParams
) -> UInt8:
    """Window i of n is ``[floor(i * size / n), ceil((i + 1) * size / n))``."""
    batch, height, width, channels = x.shape
    y = np.zeros((batch, op.output_h, op.output_w, channels), np.uint8)
    for i in range(op.output_h):
        top, bottom = i * height // op.output_h, -(-(i + 1) * height // op.output_h)
        for j in range(op.output_w):
            left, right = j * width // op.output_w, -(-(j + 1) * width // op.output_w)
            region = x[:, top:bottom, left:right].astype(np.int64) - x_qparams.zero_point
            count = (bottom - top) * (right - left)
            y[:, i, j] = _average(region, count, x_qparams, y_qparams)
    return y


def adaptive_max_pool2d(op: AdaptiveMaxPool2d, x: UInt8) -> UInt8:
    """The windows are those of :func:`adaptive_avg_pool2d`."""
    batch, height, width, channels = x.shape
    y = np.zeros((batch, op.output_h, op.output_w, channels), np.uint8)
    for i in range(op.output_h):
        top, bottom = i * height // op.output_h, -(-(i + 1) * height // op.output_h)
        for j in range(op.output_w):
            left, right = j * width // op.output_w, -(-(j + 1) * width // op.output_w)
            y[:, i, j] = x[:, top:bottom, left:right].max(axis=(1, 2))
    return y


def _average(centred: Int64, count: int, x_qparams: QParams, y_qparams: QParams) -> UInt8:
    with np.errstate(over="ignore", under="ignore"):
        divisor = np.float32(y_qparams.scale) * np.float32(count)
        multiplier = np.float32(x_qparams.scale) / divisor
        sums = centred.sum(axis=(1, 2)).astype(np.float32)
        return round_to_uint8(sums * multiplier, y_qparams.zero_point)
