"""Concat, Slice and ChannelShuffle on every engine, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.engines import assert_equal, engines_for, kernel
from kernels.strategies import channels, nhwc, qparams, seeds, shapes, threads, uint8
from pyquant.errors import InvalidInputError, InvalidProgramError
from pyquant.ir import ops
from pyquant.operators import Kernel, QParams

Q = QParams(0.5, 3)


@engines_for("Concat")
@given(data=st.data(), shape=shapes, qp=qparams, seed=seeds, workers=threads)
def test_concat(
    engine: str,
    data: st.DataObject,
    shape: tuple[int, ...],
    qp: QParams,
    seed: int,
    workers: int,
) -> None:
    axis = data.draw(st.sampled_from((len(shape) - 1, *range(len(shape)))))
    sizes = data.draw(st.lists(channels, min_size=2, max_size=5))
    op = ops.Concat(axis)
    xs = [
        uint8(seed + i, (*shape[:axis], size, *shape[axis + 1 :])) for i, size in enumerate(sizes)
    ]
    prepared = kernel(engine, op, [qp] * len(xs), qp, threads=workers)
    assert_equal(prepared(*map(torch.from_numpy, xs)), reference.concat(op, xs), context=op)


@engines_for("Concat")
@given(shape=shapes, count=st.sampled_from((2, 2, 2, 3, 5)), seed=seeds, workers=threads)
def test_interleaved_concat(
    engine: str, shape: tuple[int, ...], count: int, seed: int, workers: int
) -> None:
    op = ops.Concat(len(shape) - 1, interleaved=True)
    xs = [uint8(seed + i, shape) for i in range(count)]
    prepared = kernel(engine, op, [Q] * count, Q, threads=workers)
    assert_equal(prepared(*map(torch.from_numpy, xs)), reference.concat(op, xs), context=op)


@engines_for("Slice")
@given(data=st.data(), shape=shapes, qp=qparams, seed=seeds, workers=threads)
def test_slice(
    engine: str,
    data: st.DataObject,
    shape: tuple[int, ...],
    qp: QParams,
    seed: int,
    workers: int,
) -> None:
    axis = data.draw(st.sampled_from((len(shape) - 1, *range(len(shape)))))
    size = shape[axis]
    begin = data.draw(st.integers(0, size - 1))
    end = data.draw(st.integers(begin + 1, size))
    # Each bound counted from the begin or from the end of the axis.
    begin -= size * data.draw(st.integers(0, 1))
    end -= size * data.draw(st.integers(0, 1))
    op = ops.Slice(axis, begin, end)
    x = uint8(seed, shape)
    prepared = kernel(engine, op, [qp], qp, threads=workers)
    assert_equal(prepared(torch.from_numpy(x)), reference.slice_axis(op, x), context=op)
    # The same operator on another size: Python's slice, or an error where Python clamps.
    size = data.draw(st.integers(1, size + 3))
    x = uint8(seed, (*shape[:axis], size, *shape[axis + 1 :]))
    first = begin + size if begin < 0 else begin
    last = end + size if end <= 0 else end
    if 0 <= first < last <= size:
        assert_equal(prepared(torch.from_numpy(x)), reference.slice_axis(op, x), context=op)
    else:
        with pytest.raises(InvalidInputError, match=r"Slice.*(empty|outside)"):
            prepared(torch.from_numpy(x))


@engines_for("ChannelShuffle")
@given(shape=nhwc, groups=st.sampled_from((1, 2, 2, 3, 4, 8, 9)), seed=seeds, workers=threads)
def test_channel_shuffle(
    engine: str, shape: tuple[int, ...], groups: int, seed: int, workers: int
) -> None:
    op = ops.ChannelShuffle(groups)
    x = uint8(seed, (*shape[:3], shape[3] * groups))
    result = kernel(engine, op, [Q], Q, threads=workers)(torch.from_numpy(x))
    assert_equal(result, reference.channel_shuffle(op, x), context=op)
    torchs = torch.channel_shuffle(torch.from_numpy(x).permute(0, 3, 1, 2).float(), groups)
    assert np.array_equal(result.numpy(), torchs.permute(0, 2, 3, 1).byte().numpy())


def test_as_many_inputs_as_a_concat_takes() -> None:
    xs = [torch.full((1, 2, 2, 1), i, dtype=torch.uint8) for i in range(64)]
    assert Kernel(ops.Concat(), [Q] * 64, Q)(*xs)[0, 1, 1].tolist() == list(range(64))


@pytest.mark.parametrize(
    ("op", "inputs", "why"),
    [
        (ops.Concat(), [Q], "1 inputs instead of 2 to 64"),
        (ops.Concat(), [Q] * 65, "65 inputs instead of 2 to 64"),
        (ops.Concat(), [Q, QParams(0.5, 4)], "same qparams"),
        (ops.Concat(), [Q, None], "not uint8"),
        (ops.Slice(3, 2, 2), [Q], "empty"),
        (ops.Slice(3, -1, -1), [Q], "-1 to -1 is empty"),
        (ops.Slice(3, -3, -(2**31)), [Q], "empty"),
        (ops.ChannelShuffle(0), [Q], "positive"),
    ],
)
def test_bad_operators_are_refused(op: ops.Op, inputs: list[Any], why: str) -> None:
    with pytest.raises(InvalidProgramError, match=why):
        Kernel(op, inputs, Q)


@pytest.mark.parametrize(
    ("op", "shapes", "why"),
    [
        (ops.Concat(4), [(1, 2, 2, 3)] * 2, "no axis 4"),
        (ops.Concat(-1), [(1, 2, 2, 3)] * 2, "no axis -1"),
        (ops.Concat(3), [(1, 2, 2, 3), (1, 2, 3, 3)], "does not fit"),
        (ops.Concat(1), [(1, 2), (1, 2, 3)], "does not fit"),
        (ops.Concat(3, True), [(1, 2, 2, 3), (1, 2, 2, 4)], "does not fit"),
        (ops.Concat(1, True), [(1, 2, 2, 3)] * 2, "innermost"),
        (ops.Slice(3, 0, 4), [(1, 2, 2, 3)], "outside"),
        (ops.Slice(3, -4, 0), [(1, 2, 2, 3)], "-4 to the end of axis 3 is outside"),
        (ops.Slice(3, -(2**31), 2**31 - 1), [(1, 2, 2, 3)], "outside"),
        (ops.Slice(3, 0, -(2**31)), [(1, 2, 2, 3)], "empty"),
        (ops.Slice(1, 1, -1), [(1, 2, 2, 3)], "1 to -1 of axis 1 is empty"),
        (ops.Slice(0, 3, 0), [(1, 2, 2, 3)], "empty"),
        (ops.Slice(9, 0, 1), [(1, 2, 2, 3)], "no axis 9"),
        (ops.ChannelShuffle(2), [(1, 2, 2, 3)], "divide"),
        (ops.ChannelShuffle(2), [(4, 4)], "4 dimensions"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    op: ops.Op, shapes: list[tuple[int, ...]], why: str
) -> None:
    prepared = Kernel(op, [Q] * len(shapes), Q)
    with pytest.raises(InvalidInputError, match=why):
        prepared(*(torch.zeros(shape, dtype=torch.uint8) for shape in shapes))
