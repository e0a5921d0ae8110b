"""Hypothesis strategies: operators with their shapes, qparams and seeds for the values.

Values come from NumPy generators with drawn seeds, so that a failing example shrinks in its shapes
and prints as one short line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from pyquant.ir import ops
from pyquant.operators import QParams

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]

UGLY_CHANNELS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 96, 129)
ACTIVATIONS = ("all", "high", "extreme", "constant")
WEIGHTS = ("all", "plus", "minus", "signs", "below", "zero", "small")

seeds = st.integers(0, 2**32 - 1)
threads = st.sampled_from((1, 1, 3))
zero_points = st.sampled_from((0, 255, 128)) | st.integers(0, 255)
channels = st.sampled_from(UGLY_CHANNELS) | st.integers(1, 40)
batches = st.sampled_from((1, 1, 1, 2, 3))
activations = st.sampled_from(ACTIVATIONS)

#: Scales of activations, as float32: usual ones, powers of two (ties), and far away ones.
scales = st.sampled_from(
    tuple(float(np.float32(s)) for s in (0.02, 0.1, 1 / 255, 0.0078125, 1.0, 0.5, 3.7, 1e-5, 1e4))
) | st.floats(np.float32(1e-4), np.float32(50), width=32)
qparams = st.builds(QParams, scales, zero_points)


@st.composite
def bounds(draw: st.DrawFn, zero_point: int) -> tuple[int, int]:
    """Clamp bounds: none, ReLU's, inner and equal ones."""
    kind = draw(st.sampled_from(("none", "none", "relu", "inner", "equal")))
    if kind == "none":
        return 0, 255
    if kind == "relu":
        return zero_point, 255
    low, high = sorted((draw(st.integers(0, 255)), draw(st.integers(0, 255))))
    return (low, low) if kind == "equal" else (low, high)


def uint8(seed: int, shape: tuple[int, ...], kind: str = "all") -> UInt8:
    """Activations."""
    generator = np.random.default_rng(seed)
    if kind == "high":
        return generator.integers(200, 256, shape, dtype=np.uint8)
    if kind == "extreme":
        return generator.choice(np.array([0, 255], np.uint8), shape)
    if kind == "constant":
        return np.full(shape, generator.integers(0, 256), np.uint8)
    return generator.integers(0, 256, shape, dtype=np.uint8)


def int8(seed: int, shape: tuple[int, ...], kind: str = "all") -> npt.NDArray[np.int8]:
    """Weights; "signs" has +127 and -127 at random, "below" has -128."""
    generator = np.random.default_rng(seed)
    if kind == "signs":
        return generator.choice(np.array([-127, 127], np.int8), shape)
    if kind == "small":
        return generator.integers(-2, 3, shape, dtype=np.int8)
    values = {"plus": 127, "minus": -127, "below": -128, "zero": 0}
    if kind in values:
        return np.full(shape, values[kind], np.int8)
    return generator.integers(-127, 128, shape, dtype=np.int8)


# --- Convolutions and linear layers.


@dataclass(frozen=True)
class Weighted:
    """A Conv2d or Linear, its constants and the inputs of several calls."""

    op: Any
    x: QParams
    y: QParams | None
    weight_shape: tuple[int, ...]
    weight_kind: str
    input_shapes: tuple[tuple[int, ...], ...]
    activation_kind: str
    ratio: float
    bias_limit: int
    seed: int
    threads: int

    @property
    def weight(self) -> npt.NDArray[np.int8]:
        return int8(self.seed, self.weight_shape, self.weight_kind)

    @property
    def weight_scales(self) -> Float32:
        """So that outputs are within their range if ``ratio`` is about one."""
        generator = np.random.default_rng(self.seed + 1)
        spread = generator.uniform(0.5, 2.0, self.weight_shape[0])
        count = float(np.prod(self.weight_shape[1:]))
        output_scale = 1.0 if self.y is None else self.y.scale
        usual = self.ratio * output_scale / self.x.scale / 127 / np.sqrt(count)
        return np.clip(spread * usual, 1e-30, 1e30).astype(np.float32)

    @property
    def bias(self) -> npt.NDArray[np.int32]:
        generator = np.random.default_rng(self.seed + 2)
        limit = self.bias_limit
        return generator.integers(-limit, limit + 1, self.weight_shape[0], dtype=np.int32)

    @property
    def inputs(self) -> list[UInt8]:
        return [
            uint8(self.seed + 3 + index, shape, self.activation_kind)
            for index, shape in enumerate(self.input_shapes)
        ]


ratios = st.sampled_from((1.0, 1.0, 1.0, 0.3, 10.0, 1e-6, 1e6, 1e-20, 1e20))
bias_limits = st.sampled_from((0, 1000, 1000, 1 << 16, 1 << 24, 1 << 30))


@st.composite
def _weighted(draw: st.DrawFn, case: Weighted, float_outputs: bool) -> Weighted:
    """Fills in all but shapes and attributes."""
    x = draw(qparams)
    y = None if float_outputs and draw(st.booleans()) else draw(qparams)
    low, high = draw(bounds(0 if y is None else y.zero_point))
    return replace(
        case,
        op=replace(case.op, output_min=low, output_max=high),
        x=x,
        y=y,
        weight_kind=draw(st.sampled_from(WEIGHTS)),
        activation_kind=draw(activations),
        ratio=draw(ratios),
        bias_limit=draw(bias_limits),
        seed=draw(seeds),
        threads=draw(threads),
    )


_EMPTY = {
    "x": QParams(1.0, 0),
    "y": None,
    "weight_kind": "all",
    "activation_kind": "all",
    "ratio": 1.0,
    "bias_limit": 0,
    "seed": 0,
    "threads": 1,
}


@st.composite
def windows(
    draw: st.DrawFn,
    *,
    kernels: tuple[int, ...] = (1, 2, 3, 3, 3, 4, 5),
    dilations: tuple[int, ...] = (1, 1, 1, 2, 3),
    padding_below_kernel: bool = False,
) -> ops.Window:
    """Also strides beyond the kernel, padding beyond the kernel, and other on each side."""
    usual = draw(st.booleans())
    kernel_h = draw(st.sampled_from(kernels))
    kernel_w = kernel_h if usual else draw(st.sampled_from(kernels))
    stride_h = draw(st.sampled_from((1, 1, 2, 3, 5)))
    stride_w = stride_h if usual else draw(st.sampled_from((1, 1, 2, 4)))
    dilation_h = draw(st.sampled_from(dilations))
    dilation_w = dilation_h if usual else draw(st.sampled_from(dilations))
    if usual:
        pad = draw(st.integers(0, (kernel_h - 1) // 2))
        pads = (pad, pad, pad, pad)
    else:
        limit_h = (kernel_h - 1) * dilation_h if padding_below_kernel else 4
        limit_w = (kernel_w - 1) * dilation_w if padding_below_kernel else 4
        vertical, horizontal = st.integers(0, limit_h), st.integers(0, limit_w)
        pads = (draw(vertical), draw(horizontal), draw(vertical), draw(horizontal))
    return ops.Window(kernel_h, kernel_w, stride_h, stride_w, *pads, dilation_h, dilation_w)


@st.composite
def images(
    draw: st.DrawFn, window: ops.Window, count: int, calls: int, largest: int = 10
) -> tuple[tuple[int, ...], ...]:
    """NHWC shapes of several calls, each as large as the window needs; often as small."""
    extent_h = window.dilation_h * (window.kernel_h - 1) + 1
    extent_w = window.dilation_w * (window.kernel_w - 1) + 1
    least_h = max(1, extent_h - window.pad_top - window.pad_bottom)
    least_w = max(1, extent_w - window.pad_left - window.pad_right)
    shapes = []
    for _ in range(draw(st.integers(1, calls))):
        more = st.sampled_from((0, 0, 1)) | st.integers(0, largest)
        shapes.append((draw(batches), least_h + draw(more), least_w + draw(more), count))
    return tuple(shapes)


@st.composite
def convolutions(draw: st.DrawFn, kind: str, *, float_outputs: bool = True) -> Weighted:
    """``kind``: "general", "pointwise", "grouped" or "depthwise"."""
    if kind == "pointwise":
        flat = draw(st.booleans())
        window = ops.Window() if flat else draw(windows(kernels=(1,), dilations=(1,)))
    else:
        window = draw(windows())
    groups, group_in, group_out = 1, draw(channels), draw(channels)
    if kind == "grouped":
        groups = draw(st.sampled_from((2, 2, 3, 4, 8)))
        group_in, group_out = (draw(st.sampled_from((2, 3, 4, 8, 16, 5))) for _ in range(2))
    if kind == "depthwise":
        groups, group_in, group_out = group_in, 1, draw(st.sampled_from((1, 1, 1, 2, 3)))
    case = Weighted(
        op=ops.Conv2d(window, groups),
        weight_shape=(groups * group_out, window.kernel_h, window.kernel_w, group_in),
        input_shapes=draw(images(window, groups * group_in, calls=3)),
        **_EMPTY,
    )
    return draw(_weighted(case, float_outputs))


@st.composite
def linears(draw: st.DrawFn, *, float_outputs: bool = True) -> Weighted:
    """Inputs of rank 2, 3 and 5."""
    features, outputs = draw(channels), draw(channels)
    if draw(st.sampled_from((False, False, False, True))):
        features = draw(st.integers(200, 1100))
    leading = st.sampled_from(((1,), (1,), (2,), (7,), (33,), (2, 3), (2, 1, 2, 3)))
    shapes = tuple((*draw(leading), features) for _ in range(draw(st.integers(1, 3))))
    case = Weighted(
        op=ops.Linear(), weight_shape=(outputs, features), input_shapes=shapes, **_EMPTY
    )
    return draw(_weighted(case, float_outputs))


# --- The others.

shapes = st.one_of(
    st.tuples(batches, st.integers(1, 9), st.integers(1, 9), channels),
    st.tuples(batches, st.integers(1, 300)),
    st.tuples(st.integers(1, 300)),
    st.tuples(batches, st.integers(1, 7), st.integers(1, 20)),
    st.tuples(batches, st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 3)),
)
nhwc = st.tuples(batches, st.integers(1, 12), st.integers(1, 12), channels)
#: Several calls of one kernel.
calls = st.lists(shapes, min_size=1, max_size=3)


@st.composite
def adds(draw: st.DrawFn) -> tuple[ops.Add, QParams]:
    """The operator and its output's qparams."""
    y = draw(qparams)
    return ops.Add(*draw(bounds(y.zero_point))), y


@st.composite
def muls(draw: st.DrawFn) -> tuple[ops.Mul, QParams, QParams, QParams]:
    """The operator and the qparams of its inputs and its output, of any ratio."""
    a, b, y = draw(qparams), draw(qparams), draw(qparams)
    if draw(st.booleans()):  # so that products fill the output's range
        y = QParams(float(np.float32(a.scale * b.scale * 100)), y.zero_point)
    return ops.Mul(*draw(bounds(y.zero_point))), a, b, y


@st.composite
def broadcasts(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two shapes of one rank: equal ones, squeeze-and-excitation's, or any dimensions repeated."""
    shape = draw(shapes)
    kind = draw(st.sampled_from(("equal", "channels", "pixels", "any", "any")))
    if kind == "equal":
        return shape, shape
    if kind == "any":
        a, b = (tuple(size if draw(st.booleans()) else 1 for size in shape) for _ in range(2))
        return a, b
    kept = {0, len(shape) - 1} if kind == "channels" else set(range(len(shape) - 1))
    small = tuple(size if axis in kept else 1 for axis, size in enumerate(shape))
    return (small, shape) if draw(st.booleans()) else (shape, small)


#: Ugly float32 values, for Quantize and Add.
UGLY_FLOATS = np.array(
    [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e-45, -0.0, 0.0, 2.0**31, -(2.0**31), 2.0**63],
    np.float32,
)


def floats(seed: int, shape: tuple[int, ...], scale: float, ugly: bool) -> Float32:
    """Values over and beyond the range of a uint8 scale; many exactly on or between steps."""
    generator = np.random.default_rng(seed)
    steps = generator.uniform(-300, 300, shape)
    halves = np.rint(steps * 2) / 2
    values = np.where(generator.random(shape) < 0.5, steps, halves) * scale
    if ugly:
        values = np.where(
            generator.random(shape) < 0.3, generator.choice(UGLY_FLOATS, shape), values
        )
    return values.astype(np.float32)


@st.composite
def pools(draw: st.DrawFn, *, dilations: tuple[int, ...]) -> tuple[ops.Window, Any]:
    """A window whose padding is below its extent, and the shapes of several calls."""
    window = draw(
        windows(kernels=(1, 2, 2, 3, 3, 4), dilations=dilations, padding_below_kernel=True)
    )
    return window, draw(images(window, draw(channels), calls=2))
