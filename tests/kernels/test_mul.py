"""Mul on every engine, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.engines import assert_equal, engines_for, kernel
from kernels.strategies import activations, broadcasts, muls, seeds, threads, uint8
from pyquant.errors import InvalidInputError, InvalidProgramError
from pyquant.ir import ops
from pyquant.operators import Kernel, QParams


@engines_for("Mul")
@given(
    case=muls(),
    calls=st.lists(broadcasts(), min_size=1, max_size=3),
    seed=seeds,
    kind=activations,
    workers=threads,
)
def test_mul(
    engine: str,
    case: tuple[ops.Mul, QParams, QParams, QParams],
    calls: list[tuple[tuple[int, ...], tuple[int, ...]]],
    seed: int,
    kind: str,
    workers: int,
) -> None:
    op, a, b, y = case
    prepared = kernel(engine, op, [a, b], y, threads=workers)
    for call, shapes in enumerate(calls):
        left, right = (
            uint8(seed + 2 * call + operand, shape, kind) for operand, shape in enumerate(shapes)
        )
        expected = reference.mul(op, left, a, right, b, y)
        result = prepared(torch.from_numpy(left), torch.from_numpy(right))
        assert_equal(result, expected, context=shapes)


@engines_for("Mul")
@pytest.mark.parametrize("scale", [0.25, 1.0, 128.0, 1e-3, 1e-30])
def test_every_pair_of_values(engine: str, scale: float) -> None:
    """Powers of two make many products lie half way between steps; tiny output scales make
    products that no int32 holds.
    """
    a, b = (grid.astype(np.uint8) for grid in np.meshgrid(np.arange(256), np.arange(256)))
    inputs, y = [QParams(0.5, 3), QParams(0.25, 200)], QParams(scale, 100)
    op = ops.Mul(17, 230)
    expected = reference.mul(op, a, inputs[0], b, inputs[1], y)
    result = kernel(engine, op, inputs, y)(torch.from_numpy(a), torch.from_numpy(b))
    assert_equal(result, expected)


@engines_for("Mul")
def test_what_does_not_broadcast_is_refused(engine: str) -> None:
    qparams = QParams(0.1, 7)
    prepared = kernel(engine, ops.Mul(), [qparams, qparams], qparams)
    x = torch.zeros(1, 4, 4, 6, dtype=torch.uint8)
    for other in (x[:, :2], x[..., :5], x[0], x[:, :0]):
        with pytest.raises(InvalidInputError, match="Mul 'kernel'"):
            prepared(x, other.contiguous())


def test_bad_operators_are_refused() -> None:
    qparams, far = QParams(0.1, 7), QParams(1e30, 0)
    with pytest.raises(InvalidProgramError, match="not finite"):
        Kernel(ops.Mul(), [far, far], qparams)
    with pytest.raises(InvalidProgramError, match="output_min"):
        Kernel(ops.Mul(9, 8), [qparams, qparams], qparams)
    with pytest.raises(InvalidProgramError, match="not uint8"):
        Kernel(ops.Mul(), [qparams, None], qparams)
