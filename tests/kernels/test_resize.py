"""ResizeNearest and ResizeBilinear on every engine, to the bit, and against torch."""

from __future__ import annotations

from typing import Any

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from kernels.engines import assert_equal, engines_for, kernel
from kernels.strategies import activations, nhwc, qparams, seeds, threads, uint8
from pyquant.errors import InvalidInputError, InvalidProgramError
from pyquant.ir import ops
from pyquant.operators import Kernel, QParams

sizes = st.one_of(
    st.tuples(st.integers(1, 30), st.just(0.0)),
    st.tuples(st.just(0), st.sampled_from((1.0, 2.0, 3.0, 1.5, 1.7, 4.0, 1.0001))),
    st.tuples(st.integers(1, 30), st.floats(0.05, 20)),
)
targets = st.builds(lambda h, w: (h[0], w[0], h[1], w[1]), sizes, sizes)


@engines_for("ResizeNearest")
@given(shape=nhwc, target=targets, qp=qparams, seed=seeds, workers=threads)
def test_resize_nearest(
    engine: str, shape: tuple[int, ...], target: Any, qp: QParams, seed: int, workers: int
) -> None:
    op = ops.ResizeNearest(*target)
    x = uint8(seed, shape)
    result = kernel(engine, op, [qp], qp, threads=workers)(torch.from_numpy(x))
    assert_equal(result, reference.resize_nearest(op, x), context=op)


@engines_for("ResizeBilinear")
@given(
    shape=nhwc,
    target=targets,
    align=st.booleans(),
    x_qp=qparams,
    y_qp=qparams,
    same=st.booleans(),
    seed=seeds,
    workers=threads,
    kind=activations,
)
def test_resize_bilinear(
    engine: str,
    shape: tuple[int, ...],
    target: Any,
    align: bool,
    x_qp: QParams,
    y_qp: QParams,
    same: bool,
    seed: int,
    workers: int,
    kind: str,
) -> None:
    op = ops.ResizeBilinear(*target, align_corners=align)
    y_qp = x_qp if same else y_qp
    x = uint8(seed, shape, kind)
    result = kernel(engine, op, [x_qp], y_qp, threads=workers)(torch.from_numpy(x))
    assert_equal(result, reference.resize_bilinear(op, x, x_qp, y_qp), context=op)


@given(shape=nhwc, size=st.tuples(st.integers(1, 30), st.integers(1, 30)), align=st.booleans())
def test_sizes_are_torchs(shape: tuple[int, ...], size: tuple[int, int], align: bool) -> None:
    x = uint8(5, shape)
    nchw = torch.from_numpy(x).permute(0, 3, 1, 2).float().contiguous()
    unit = QParams(1.0, 0)
    nearest = Kernel(ops.ResizeNearest(*size), [unit], unit)(torch.from_numpy(x))
    assert torch.equal(nearest.permute(0, 3, 1, 2).float(), F.interpolate(nchw, size))
    op = ops.ResizeBilinear(*size, align_corners=align)
    result = Kernel(op, [unit], unit)(torch.from_numpy(x)).permute(0, 3, 1, 2).float()
    expected = F.interpolate(nchw, size, mode="bilinear", align_corners=align)
    assert float((result - expected).abs().max()) <= 0.5 + 1e-3


@pytest.mark.parametrize("scale", [2.0, 3.0, 1.5, 0.6, 0.34, 2.7])
def test_scales_are_torchs(scale: float) -> None:
    x = uint8(6, (2, 9, 7, 5))
    nchw = torch.from_numpy(x).permute(0, 3, 1, 2).float().contiguous()
    unit = QParams(1.0, 0)
    nearest = Kernel(ops.ResizeNearest(0, 0, scale, scale), [unit], unit)(torch.from_numpy(x))
    expected = F.interpolate(nchw, scale_factor=scale)
    assert torch.equal(nearest.permute(0, 3, 1, 2).float(), expected)
    op = ops.ResizeBilinear(0, 0, scale, scale)
    result = Kernel(op, [unit], unit)(torch.from_numpy(x)).permute(0, 3, 1, 2).float()
    expected = F.interpolate(nchw, scale_factor=scale, mode="bilinear")
    assert float((result - expected).abs().max()) <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ((-1, 2), "output size"),
        ((2, 1 << 17), "output size"),
        ((0, 2), "scale factor"),
        ((0, 2, float("nan")), "scale factor"),
        ((0, 2, float("inf")), "scale factor"),
        ((0, 2, -2.0), "scale factor"),
        ((2, 2, 1e-300), "scale factor"),
    ],
)
@pytest.mark.parametrize("kind", [ops.ResizeNearest, ops.ResizeBilinear])
def test_bad_sizes_are_refused(kind: Any, target: tuple[Any, ...], why: str) -> None:
    with pytest.raises(InvalidProgramError, match=why):
        Kernel(kind(*target), [QParams(1.0, 0)], QParams(1.0, 0))


def test_resizing_to_nothing_is_refused() -> None:
    prepared = Kernel(ops.ResizeNearest(0, 0, 0.1, 1.0), [QParams(1.0, 0)], QParams(1.0, 0))
    with pytest.raises(InvalidInputError, match="empty"):
        prepared(torch.zeros((1, 5, 5, 2), dtype=torch.uint8))
