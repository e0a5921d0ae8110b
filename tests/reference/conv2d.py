"""Conv2d, ConvTranspose2d and Linear."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pyquant.ir.ops import Conv2d, ConvTranspose2d, Linear
from pyquant.operators import QParams
from reference.rounding import Float32, Int64, UInt8, round_to_uint8


def conv2d(
    op: Conv2d,
    x: UInt8,
    x_qparams: QParams,
    weight: npt.NDArray[np.int8],
    weight_scales: Float32,
    bias: npt.NDArray[np.int32],
    y_qparams: QParams | None,
) -> UInt8 | Float32:
    """x [N, H, W, C], weight [O, kH, kW, C / groups]; float32 if ``y_qparams`` is ``None``."""
    window = op.window
    centred = x.astype(np.int64) - x_qparams.zero_point
    # Outside of the image is the value zero.
    centred = np.pad(
        centred,
        (
            (0, 0),
            (window.pad_top, window.pad_bottom),
            (window.pad_left, window.pad_right),
            (0, 0),
        ),
    )
    batch, height, width, channels = centred.shape
    out_h = (height - window.dilation_h * (window.kernel_h - 1) - 1) // window.stride_h + 1
    out_w = (width - window.dilation_w * (window.kernel_w - 1) - 1) // window.stride_w + 1
    outputs, groups = weight.shape[0], op.groups
    accumulators = np.zeros((batch, out_h, out_w, groups, outputs // groups), np.int64)
    for kh in range(window.kernel_h):
        for kw in range(window.kernel_w):
            top, left = kh * window.dilation_h, kw * window.dilation_w
            taps = centred[
                :,
                top : top + (out_h - 1) * window.stride_h + 1 : window.stride_h,
                left : left + (out_w - 1) * window.stride_w + 1 : window.stride_w,
            ].reshape(batch, out_h, out_w, groups, 1, channels // groups)
            tap_weight = weight[:, kh, kw].reshape(groups, outputs // groups, channels // groups)
            accumulators += _matmul(taps, tap_weight.swapaxes(1, 2))
    accumulators = accumulators.reshape(batch, out_h, out_w, outputs) + bias
    return _result(accumulators, x_qparams, weight_scales, y_qparams, op.output_min, op.output_max)


def conv_transpose2d(
    op: ConvTranspose2d,
    x: UInt8,
    x_qparams: QParams,
    weight: npt.NDArray[np.int8],
    weight_scales: Float32,
    bias: npt.NDArray[np.int32],
    y_qparams: QParams | None,
) -> UInt8 | Float32:
    """x [N, H, W, C], weight [O, kH, kW, C / groups]: every input pixel adds to its outputs."""
    window, groups = op.window, op.groups
    batch, height, width, channels = x.shape
    outputs = weight.shape[0]
    centred = (x.astype(np.int64) - x_qparams.zero_point).reshape(
        batch, height, width, groups, 1, channels // groups
    )
    # What falls into the padding is cut off in the end.
    all_h = (height - 1) * window.stride_h + window.dilation_h * (window.kernel_h - 1) + 1
    all_w = (width - 1) * window.stride_w + window.dilation_w * (window.kernel_w - 1) + 1
    accumulators = np.zeros(
        (batch, all_h + op.output_pad_h, all_w + op.output_pad_w, outputs), np.int64
    )
    for kh in range(window.kernel_h):
        for kw in range(window.kernel_w):
            top, left = kh * window.dilation_h, kw * window.dilation_w
            taps = weight[:, kh, kw].reshape(groups, outputs // groups, channels // groups)
            accumulators[
                :,
                top : top + (height - 1) * window.stride_h + 1 : window.stride_h,
                left : left + (width - 1) * window.stride_w + 1 : window.stride_w,
            ] += _matmul(centred, taps.swapaxes(1, 2)).reshape(batch, height, width, outputs)
    bottom = accumulators.shape[1] - window.pad_bottom
    right = accumulators.shape[2] - window.pad_right
    accumulators = accumulators[:, window.pad_top : bottom, window.pad_left : right] + bias
    return _result(accumulators, x_qparams, weight_scales, y_qparams, op.output_min, op.output_max)


def linear(
    op: Linear,
    x: UInt8,
    x_qparams: QParams,
    weight: npt.NDArray[np.int8],
    weight_scales: Float32,
    bias: npt.NDArray[np.int32],
    y_qparams: QParams | None,
) -> UInt8 | Float32:
    """x [..., K], weight [O, K]; float32 if ``y_qparams`` is ``None``."""
    centred = x.astype(np.int64) - x_qparams.zero_point
    rows = centred.reshape(-1, centred.shape[-1])
    accumulators = _matmul(rows, weight.T).reshape(*x.shape[:-1], weight.shape[0]) + bias
    return _result(accumulators, x_qparams, weight_scales, y_qparams, op.output_min, op.output_max)


def _matmul(x: Int64, weight: npt.NDArray[np.int8]) -> Int64:
    """Exact: the sums are far below 2**53, and float64 is what BLAS is fast at."""
    product: Int64 = np.matmul(x.astype(np.float64), weight.astype(np.float64)).astype(np.int64)
    return product[..., 0, :] if x.ndim > 2 else product


def _result(
    accumulators: Int64,
    x_qparams: QParams,
    weight_scales: Float32,
    y_qparams: QParams | None,
    low: int,
    high: int,
) -> UInt8 | Float32:
    assert np.abs(accumulators).max(initial=0) < 2**31
    scales = np.float32(x_qparams.scale) * weight_scales
    values = accumulators.astype(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        if y_qparams is None:
            return values * scales
        multipliers = scales / np.float32(y_qparams.scale)
        return round_to_uint8(values * multipliers, y_qparams.zero_point, low, high)
