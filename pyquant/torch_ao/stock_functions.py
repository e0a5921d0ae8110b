"""torch's own functions that also take quantized tensors, by what they do to scale and zero point.

Names are those of functions and of methods; in-place forms are meant without their underscore.
"""

from __future__ import annotations

#: The result has the qparams of the first quantized operand.
SAME_QPARAMS = frozenset(
    {
        "relu",
        "relu6",
        "hardtanh",
        "clamp",
        "max_pool1d",
        "max_pool2d",
        "avg_pool1d",
        "avg_pool2d",
        "avg_pool3d",
        "adaptive_avg_pool1d",
        "adaptive_avg_pool2d",
        "adaptive_avg_pool3d",
        "adaptive_max_pool1d",
        "adaptive_max_pool2d",
        "interpolate",
        "upsample",
        "mean",
        "cat",
        "stack",
        "pad",
        "dropout",
        "dropout1d",
        "dropout2d",
        "alpha_dropout",
        "masked_fill",
    }
)

#: The same, and values of one tensor only move.
MOVES = frozenset(
    {
        "chunk",
        "split",
        "unbind",
        "__getitem__",
        "flatten",
        "reshape",
        "view",
        "unflatten",
        "ravel",
        "squeeze",
        "unsqueeze",
        "permute",
        "transpose",
        "swapaxes",
        "movedim",
        "narrow",
        "select",
        "expand",
        "repeat",
        "repeat_interleave",
        "flip",
        "roll",
        "channel_shuffle",
        "pixel_shuffle",
        "pixel_unshuffle",
        "contiguous",
        "clone",
        "detach",
        "to",
        "cpu",
        "index_select",
    }
)

#: The result has qparams of its own, always the same ones: scale and zero point.
FIXED_QPARAMS: dict[str, tuple[float, int]] = {
    "sigmoid": (1 / 256, 0),
    "hardsigmoid": (1 / 256, 0),
    "tanh": (2 / 256, 128),
}
