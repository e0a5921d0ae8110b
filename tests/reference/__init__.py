"""The operators of ``csrc/include/pyquant/operator.h`` in plain NumPy, from its text alone."""

from reference.add import add
from reference.conv2d import conv2d, conv_transpose2d, linear
from reference.layout import (
    channel_shuffle,
    concat,
    flatten,
    lookup_table,
    pad,
    reshape,
    slice_axis,
)
from reference.mul import mul
from reference.pooling import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d
from reference.quantize import dequantize, quantize
from reference.resize import resize_bilinear, resize_nearest
from reference.rounding import round_to_uint8

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "add",
    "avg_pool2d",
    "channel_shuffle",
    "concat",
    "conv2d",
    "conv_transpose2d",
    "dequantize",
    "flatten",
    "linear",
    "lookup_table",
    "max_pool2d",
    "mul",
    "pad",
    "quantize",
    "reshape",
    "resize_bilinear",
    "resize_nearest",
    "round_to_uint8",
    "slice_axis",
]
