"""The operators of a Program: attributes only.

What each computes, to the bit, is written down once, in ``csrc/include/pyquant/operator.h``; the
names and fields here, there and in ``csrc/runtime/program.fbs`` are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias


@dataclass(frozen=True)
class Window:
    """A sliding window over height and width."""

    kernel_h: int = 1
    kernel_w: int = 1
    stride_h: int = 1
    stride_w: int = 1
    pad_top: int = 0
    pad_left: int = 0
    pad_bottom: int = 0
    pad_right: int = 0
    dilation_h: int = 1
    dilation_w: int = 1


@dataclass(frozen=True)
class Quantize:
    """float32 NCHW to uint8 NHWC."""


@dataclass(frozen=True)
class Dequantize:
    """uint8 NHWC to float32 NCHW."""


@dataclass(frozen=True)
class Conv2d:
    """Inputs x, weight [O, kH, kW, C / groups], bias [O]; output uint8 or float32."""

    window: Window
    groups: int = 1
    output_min: int = 0
    output_max: int = 255


@dataclass(frozen=True)
class Linear:
    """Inputs x [..., K], weight [O, K], bias [O]; output uint8 or float32."""

    output_min: int = 0
    output_max: int = 255


@dataclass(frozen=True)
class Add:
    """Inputs a and b of one shape, uint8 or float32; output uint8. With ``broadcast`` they are
    uint8 and of one rank; dimensions of 1 are repeated.
    """

    output_min: int = 0
    output_max: int = 255
    broadcast: bool = False


@dataclass(frozen=True)
class MaxPool2d:
    """Keeps the input's qparams."""

    window: Window
    ceil_mode: bool = False


@dataclass(frozen=True)
class AvgPool2d:
    """Average over windows."""

    window: Window
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int = 0


@dataclass(frozen=True)
class AdaptiveAvgPool2d:
    """Average pooling to a fixed output size; 1 by 1 is global average pooling."""

    output_h: int = 1
    output_w: int = 1


@dataclass(frozen=True)
class Flatten:
    """[N, H, W, C] to [N, C * H * W] in NCHW order."""


@dataclass(frozen=True)
class Pad:
    """A border of zeros (the zero_point)."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0


@dataclass(frozen=True)
class LookupTable:
    """y = values[x] on uint8; 256 values."""

    TABLE_SIZE: ClassVar[int] = 256
    values: bytes


@dataclass(frozen=True)
class Mul:
    """Inputs a and b, uint8, of one rank; dimensions of 1 are repeated."""

    output_min: int = 0
    output_max: int = 255


@dataclass(frozen=True)
class Concat:
    """2 to 64 inputs along an axis of their shapes inside the Program (3: the channels of NHWC);
    interleaved: one element of each in turn. Inputs and output have the same qparams.
    """

    MAX_INPUTS: ClassVar[int] = 64
    axis: int = 3
    interleaved: bool = False


@dataclass(frozen=True)
class Slice:
    """The elements ``begin <= i < end`` along an axis, as in :class:`Concat`.

    ``begin < 0`` and ``end <= 0`` count from the end of the axis (an ``end`` of 0 is the end
    itself), so that they fit inputs of any size.
    """

    TO_THE_END: ClassVar[int] = 0
    axis: int = 3
    begin: int = 0
    end: int = 1


@dataclass(frozen=True)
class ChannelShuffle:
    """Channel ``g * (C / groups) + i`` becomes channel ``i * groups + g``."""

    groups: int = 2


@dataclass(frozen=True)
class ResizeNearest:
    """To a fixed size or, where that is 0, by a scale factor; keeps the qparams."""

    output_h: int = 0
    output_w: int = 0
    scale_h: float = 0.0
    scale_w: float = 0.0


@dataclass(frozen=True)
class ResizeBilinear:
    """Sizes as in :class:`ResizeNearest`; the output has qparams of its own."""

    output_h: int = 0
    output_w: int = 0
    scale_h: float = 0.0
    scale_w: float = 0.0
    align_corners: bool = False


@dataclass(frozen=True)
class ConvTranspose2d:
    """Inputs x, weight [O, kH, kW, C / groups], bias [O]; output uint8 or float32."""

    window: Window
    groups: int = 1
    output_pad_h: int = 0
    output_pad_w: int = 0
    output_min: int = 0
    output_max: int = 255


@dataclass(frozen=True)
class Reshape:
    """[N, ...] to [N, *sizes] in the model's order (rank 4: sizes are C, H, W); one may be -1."""

    sizes: tuple[int, ...]


@dataclass(frozen=True)
class AdaptiveMaxPool2d:
    """Max pooling to a fixed output size; 1 by 1 is global max pooling. Keeps the qparams."""

    output_h: int = 1
    output_w: int = 1


Op: TypeAlias = (
    Quantize
    | Dequantize
    | Conv2d
    | Linear
    | Add
    | MaxPool2d
    | AvgPool2d
    | AdaptiveAvgPool2d
    | Flatten
    | Pad
    | LookupTable
    | Mul
    | Concat
    | Slice
    | ChannelShuffle
    | ResizeNearest
    | ResizeBilinear
    | ConvTranspose2d
    | Reshape
    | AdaptiveMaxPool2d
)

#: Every operator, by name, in the order of the ``OpAttributes`` union.
OPS: dict[str, type[Op]] = {
    op.__name__: op
    for op in (
        Quantize,
        Dequantize,
        Conv2d,
        Linear,
        Add,
        MaxPool2d,
        AvgPool2d,
        AdaptiveAvgPool2d,
        Flatten,
        Pad,
        LookupTable,
        Mul,
        Concat,
        Slice,
        ChannelShuffle,
        ResizeNearest,
        ResizeBilinear,
        ConvTranspose2d,
        Reshape,
        AdaptiveMaxPool2d,
    )
}
