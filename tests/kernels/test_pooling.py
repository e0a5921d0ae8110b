"""Max and average pooling on every engine, to the bit, and against torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional as F

from kernels.engines import assert_equal, engines_for, kernel
from kernels.strategies import activations, nhwc, pools, qparams, seeds, threads, uint8
from pyquant.errors import InvalidProgramError
from pyquant.ir import ops
from pyquant.operators import Kernel, QParams


def nchw(x: np.ndarray[Any, np.dtype[np.uint8]], qp: QParams) -> torch.Tensor:
    """Dequantized in float64."""
    return (torch.from_numpy(x).permute(0, 3, 1, 2).double() - qp.zero_point) * qp.scale


def torch_pads_like(window: ops.Window) -> bool:
    """torch's pooling pads both sides alike, by no more than half the kernel."""
    return (
        window.pad_top == window.pad_bottom <= window.kernel_h // 2
        and window.pad_left == window.pad_right <= window.kernel_w // 2
    )


def assert_within_a_step(result: torch.Tensor, ideal: torch.Tensor, y: QParams) -> None:
    """``ideal`` is NCHW in float64; saturates like the operator."""
    steps = torch.clamp(ideal / y.scale + y.zero_point, 0, 255).permute(0, 2, 3, 1)
    assert result.shape == steps.shape
    # Half a step of rounding, and float32 arithmetic.
    assert float((result.double() - steps).abs().max()) <= 0.5 + 1e-3


@engines_for("MaxPool2d")
@given(
    case=pools(dilations=(1, 1, 2, 3)),
    qp=qparams,
    ceil_mode=st.booleans(),
    seed=seeds,
    kind=activations,
    workers=threads,
)
def test_max_pool2d(
    engine: str,
    case: tuple[ops.Window, Any],
    qp: QParams,
    ceil_mode: bool,
    seed: int,
    kind: str,
    workers: int,
) -> None:
    window, shapes = case
    op = ops.MaxPool2d(window, ceil_mode)
    prepared = kernel(engine, op, [qp], qp, threads=workers)
    for call, shape in enumerate(shapes):
        x = uint8(seed + call, shape, kind)
        result = prepared(torch.from_numpy(x))
        assert_equal(result, reference.max_pool2d(op, x), context=shape)


@engines_for("MaxPool2d")
@given(case=pools(dilations=(1, 1, 2)), qp=qparams, ceil_mode=st.booleans(), seed=seeds)
def test_max_pool2d_is_torchs(
    engine: str, case: tuple[ops.Window, Any], qp: QParams, ceil_mode: bool, seed: int
) -> None:
    window, shapes = case
    x = uint8(seed, shapes[0])
    values = torch.from_numpy(x).permute(0, 3, 1, 2).double()
    pad = (window.pad_top, window.pad_left)
    if not torch_pads_like(window):
        # Padded by hand; with ceil_mode torch would take that for image.
        assume(not ceil_mode)
        pads = (window.pad_left, window.pad_right, window.pad_top, window.pad_bottom)
        values, pad = F.pad(values, pads, value=-1.0), (0, 0)
    expected = F.max_pool2d(
        values,
        (window.kernel_h, window.kernel_w),
        (window.stride_h, window.stride_w),
        pad,
        (window.dilation_h, window.dilation_w),
        ceil_mode,
    )
    # A dilated window may see nothing but padding: that is -infinity, which saturates.
    expected = expected.clamp(min=0).permute(0, 2, 3, 1)
    result = kernel(engine, ops.MaxPool2d(window, ceil_mode), [qp], qp)(torch.from_numpy(x))
    assert torch.equal(result.double(), expected)


@st.composite
def avg_pools(draw: st.DrawFn, *, divides_by_area: bool) -> tuple[ops.AvgPool2d, Any]:
    """``divides_by_area``: what QNNPACK can do."""
    window, shapes = draw(pools(dilations=(1,)))
    if divides_by_area:
        return ops.AvgPool2d(window), shapes
    divisor = draw(st.sampled_from((0, 0, 0, 1, 5, 1000)))
    return ops.AvgPool2d(window, draw(st.booleans()), draw(st.booleans()), divisor), shapes


@engines_for("AvgPool2d")
@given(data=st.data(), x_qp=qparams, y_qp=qparams, seed=seeds, kind=activations, workers=threads)
def test_avg_pool2d(
    engine: str,
    data: st.DataObject,
    x_qp: QParams,
    y_qp: QParams,
    seed: int,
    kind: str,
    workers: int,
) -> None:
    op, shapes = data.draw(avg_pools(divides_by_area=engine == "qnnpack"))
    prepared = kernel(engine, op, [x_qp], y_qp, threads=workers)
    for call, shape in enumerate(shapes):
        x = uint8(seed + call, shape, kind)
        expected = reference.avg_pool2d(op, x, x_qp, y_qp)
        assert_equal(prepared(torch.from_numpy(x)), expected, context=shape)


@engines_for("AvgPool2d")
@given(data=st.data(), x_qp=qparams, y_qp=qparams, seed=seeds)
def test_avg_pool2d_is_within_a_step_of_torch(
    engine: str, data: st.DataObject, x_qp: QParams, y_qp: QParams, seed: int
) -> None:
    op, shapes = data.draw(avg_pools(divides_by_area=engine == "qnnpack"))
    window = op.window
    assume(torch_pads_like(window))
    x = uint8(seed, shapes[0])
    ideal = F.avg_pool2d(
        nchw(x, x_qp),
        (window.kernel_h, window.kernel_w),
        (window.stride_h, window.stride_w),
        (window.pad_top, window.pad_left),
        op.ceil_mode,
        op.count_include_pad,
        op.divisor_override or None,
    )
    assert_within_a_step(kernel(engine, op, [x_qp], y_qp)(torch.from_numpy(x)), ideal, y_qp)


@engines_for("AdaptiveAvgPool2d")
@given(
    data=st.data(),
    shapes=st.lists(nhwc, min_size=1, max_size=2),
    x_qp=qparams,
    y_qp=qparams,
    seed=seeds,
    kind=activations,
    workers=threads,
)
def test_adaptive_avg_pool2d(
    engine: str,
    data: st.DataObject,
    shapes: list[tuple[int, ...]],
    x_qp: QParams,
    y_qp: QParams,
    seed: int,
    kind: str,
    workers: int,
) -> None:
    sizes = st.sampled_from((1, 1, 2, 3, 7))
    op = ops.AdaptiveAvgPool2d(data.draw(sizes), data.draw(sizes))
    if engine == "qnnpack":
        op = ops.AdaptiveAvgPool2d(1, 1)
    prepared = kernel(engine, op, [x_qp], y_qp, threads=workers)
    for call, shape in enumerate(shapes):
        x = uint8(seed + call, shape, kind)
        result = prepared(torch.from_numpy(x))
        assert_equal(result, reference.adaptive_avg_pool2d(op, x, x_qp, y_qp), context=shape)
        ideal = F.adaptive_avg_pool2d(nchw(x, x_qp), (op.output_h, op.output_w))
        assert_within_a_step(result, ideal, y_qp)


@engines_for("AdaptiveMaxPool2d")
@given(
    data=st.data(),
    shapes=st.lists(nhwc, min_size=1, max_size=2),
    qp=qparams,
    seed=seeds,
    kind=activations,
    workers=threads,
)
def test_adaptive_max_pool2d(
    engine: str,
    data: st.DataObject,
    shapes: list[tuple[int, ...]],
    qp: QParams,
    seed: int,
    kind: str,
    workers: int,
) -> None:
    sizes = st.sampled_from((1, 1, 2, 3, 7))
    op = ops.AdaptiveMaxPool2d(data.draw(sizes), data.draw(sizes))
    prepared = kernel(engine, op, [qp], qp, threads=workers)
    for call, shape in enumerate(shapes):
        x = uint8(seed + call, shape, kind)
        result = prepared(torch.from_numpy(x))
        assert_equal(result, reference.adaptive_max_pool2d(op, x), context=shape)
        image = torch.from_numpy(x).permute(0, 3, 1, 2).double()
        ideal = F.adaptive_max_pool2d(image, (op.output_h, op.output_w)).permute(0, 2, 3, 1)
        assert torch.equal(result.double(), ideal)


def test_adaptive_maxima_keep_their_qparams() -> None:
    with pytest.raises(InvalidProgramError, match="same qparams"):
        Kernel(ops.AdaptiveMaxPool2d(), [QParams(0.1, 7)], QParams(0.1, 8))
    with pytest.raises(InvalidProgramError, match="must be positive"):
        Kernel(ops.AdaptiveMaxPool2d(2, 0), [QParams(0.1, 7)], QParams(0.1, 7))
