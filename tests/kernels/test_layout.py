"""Flatten, Pad and LookupTable on every engine, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from kernels.engines import assert_equal, engines_for, kernel
from kernels.strategies import calls, nhwc, qparams, seeds, threads, uint8
from pyquant.errors import InvalidInputError, InvalidProgramError
from pyquant.ir import ops
from pyquant.operators import Kernel, QParams


@engines_for("LookupTable")
@given(shapes=calls, x_qp=qparams, y_qp=qparams, seed=seeds, workers=threads)
def test_lookup_table(
    engine: str,
    shapes: list[tuple[int, ...]],
    x_qp: QParams,
    y_qp: QParams,
    seed: int,
    workers: int,
) -> None:
    op = ops.LookupTable(uint8(seed, (256,)).tobytes())
    prepared = kernel(engine, op, [x_qp], y_qp, threads=workers)
    for call, shape in enumerate(shapes):
        x = uint8(seed + 1 + call, shape)
        assert_equal(prepared(torch.from_numpy(x)), reference.lookup_table(op, x), context=shape)


@engines_for("LookupTable")
@pytest.mark.parametrize("length", [*range(1, 70), 127, 128, 129, 1000])
def test_lookup_table_of_every_length(engine: str, length: int) -> None:
    op = ops.LookupTable(bytes(range(255, -1, -1)))
    x = np.resize(np.arange(256, dtype=np.uint8), length)
    result = kernel(engine, op, [QParams(1.0, 0)], QParams(1.0, 0))(torch.from_numpy(x))
    assert result.tolist() == (255 - x).tolist()


@engines_for("Flatten")
@given(shapes=calls, qp=qparams, seed=seeds, workers=threads)
def test_flatten(
    engine: str, shapes: list[tuple[int, ...]], qp: QParams, seed: int, workers: int
) -> None:
    prepared = kernel(engine, ops.Flatten(), [qp], qp, threads=workers)
    for call, shape in enumerate(shapes):
        x = uint8(seed + call, shape)
        if len(shape) < 2:
            with pytest.raises(InvalidInputError, match="two dimensions"):
                prepared(torch.from_numpy(x))
            continue
        assert_equal(prepared(torch.from_numpy(x)), reference.flatten(x), context=shape)


@engines_for("Reshape")
@given(
    batch=st.integers(1, 3),
    factors=st.tuples(*[st.integers(1, 7)] * 3),
    split=st.sampled_from(("joined", "as they are", "turned", "with ones")),
    rank=st.sampled_from((2, 3, 4, 5)),
    inferred=st.integers(-1, 2),
    qp=qparams,
    seed=seeds,
)
def test_reshape(
    engine: str,
    batch: int,
    factors: tuple[int, int, int],
    split: str,
    rank: int,
    inferred: int,
    qp: QParams,
    seed: int,
) -> None:
    a, b, c = factors
    shape = {2: (a * b * c,), 3: (a, b * c), 4: (a, b, c), 5: (a, 1, b, c)}[rank]
    sizes = {"joined": [a * b * c], "as they are": [a, b, c], "turned": [c, b, a]}.get(
        split, [b, 1, a * c, 1]
    )
    if 0 <= inferred < len(sizes):
        sizes[inferred] = -1
    op = ops.Reshape(tuple(sizes))
    x = uint8(seed, (batch, *shape))
    result = kernel(engine, op, [qp], qp)(torch.from_numpy(x))
    assert_equal(result, reference.reshape(op, x), context=sizes)


@pytest.mark.parametrize("sizes", [(), (0, 3), (-1, -1), (-2, 3), (1,) * 6])
def test_bad_sizes_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(InvalidProgramError, match="Reshape 'kernel'"):
        Kernel(ops.Reshape(sizes), [QParams(0.1, 7)], QParams(0.1, 7))


@pytest.mark.parametrize("sizes", [(5,), (7, -1), (25,), (2**31 - 1, 2**31 - 1, 2**31 - 1, -1)])
def test_sizes_that_do_not_fit_are_refused(sizes: tuple[int, ...]) -> None:
    prepared = Kernel(ops.Reshape(sizes), [QParams(0.1, 7)], QParams(0.1, 7))
    with pytest.raises(InvalidInputError, match="Reshape 'kernel'"):
        prepared(torch.zeros(1, 2, 3, 4, dtype=torch.uint8))


@engines_for("Pad")
@given(data=st.data(), shape=nhwc, qp=qparams, seed=seeds, workers=threads)
def test_pad(
    engine: str,
    data: st.DataObject,
    shape: tuple[int, ...],
    qp: QParams,
    seed: int,
    workers: int,
) -> None:
    """Also crops, even beyond the image's far side."""

    def sides(size: int) -> tuple[int, int]:
        before = data.draw(st.integers(-size - 2, 4))
        return before, data.draw(st.integers(1 - size - before, 6 + max(0, -before)))

    (top, bottom), (left, right) = sides(shape[1]), sides(shape[2])
    op = ops.Pad(top, left, bottom, right)
    x = uint8(seed, shape)
    result = kernel(engine, op, [qp], qp, threads=workers)(torch.from_numpy(x))
    assert_equal(result, reference.pad(op, x, qp), context=op)


@engines_for("Pad")
@given(data=st.data(), shape=nhwc, qp=qparams, seed=seeds)
def test_pad_is_torchs(
    engine: str, data: st.DataObject, shape: tuple[int, ...], qp: QParams, seed: int
) -> None:
    # torch crops no more than there is.
    amounts = [data.draw(st.integers(-((size - 1) // 2), 4)) for size in shape[1:3] * 2]
    op = ops.Pad(*amounts)
    x = uint8(seed, shape)
    expected = F.pad(
        torch.from_numpy(x).permute(0, 3, 1, 2),
        (op.left, op.right, op.top, op.bottom),
        value=qp.zero_point,
    )
    result = kernel(engine, op, [qp], qp)(torch.from_numpy(x))
    assert torch.equal(result, expected.permute(0, 2, 3, 1))


@pytest.mark.parametrize("pad", [(-3, 0, -2, 0), (0, -4, 0, 0), (-5, 0, 0, 0)])
def test_cropping_everything_is_refused(pad: tuple[int, int, int, int]) -> None:
    qp = QParams(1.0, 3)
    prepared = kernel("reference", ops.Pad(*pad), [qp], qp)
    with pytest.raises(InvalidInputError, match="empty"):
        prepared(torch.zeros((1, 5, 4, 2), dtype=torch.uint8))
