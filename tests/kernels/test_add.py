"""Add on every engine: to the bit, on QNNPACK within the one step that its header documents."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.engines import assert_equal, engines_for, kernel
from kernels.strategies import (
    activations,
    adds,
    broadcasts,
    calls,
    floats,
    qparams,
    seeds,
    threads,
    uint8,
)
from pyquant.errors import InvalidInputError, InvalidProgramError
from pyquant.ir import ops
from pyquant.operators import Kernel, QParams

OPERANDS = ("uint8 + uint8", "uint8 + float32", "float32 + uint8", "float32 + float32")


@engines_for("Add")
@given(data=st.data(), case=adds(), shapes=calls, seed=seeds, kind=activations, workers=threads)
def test_add(
    engine: str,
    data: st.DataObject,
    case: tuple[ops.Add, QParams],
    shapes: list[tuple[int, ...]],
    seed: int,
    kind: str,
    workers: int,
) -> None:
    op, y = case
    operands = OPERANDS[0] if engine == "qnnpack" else data.draw(st.sampled_from(OPERANDS))
    dtypes = operands.split(" + ")
    inputs: list[QParams | None] = [
        data.draw(qparams) if dtype == "uint8" else None for dtype in dtypes
    ]
    prepared = kernel(engine, op, inputs, y, threads=workers)
    for call, shape in enumerate(shapes):
        values = [
            floats(seed + 2 * call + index, shape, y.scale, ugly=call == 1)
            if qp is None
            else uint8(seed + 2 * call + index, shape, kind)
            for index, qp in enumerate(inputs)
        ]
        expected = reference.add(op, values[0], inputs[0], values[1], inputs[1], y)
        result = prepared(*(torch.from_numpy(value) for value in values))
        assert_equal(result, expected, steps=engine == "qnnpack", context=shape)


@engines_for("Add")
def test_every_pair_of_values(engine: str) -> None:
    a, b = (grid.astype(np.uint8) for grid in np.meshgrid(np.arange(256), np.arange(256)))
    # The ratios 1/2 and 1/4 are exact, so that many sums lie half way between steps.
    inputs, y = [QParams(0.5, 3), QParams(0.25, 200)], QParams(1.0, 100)
    op = ops.Add(17, 230)
    expected = reference.add(op, a, inputs[0], b, inputs[1], y)
    result = kernel(engine, op, inputs, y)(torch.from_numpy(a), torch.from_numpy(b))
    assert_equal(result, expected, steps=engine == "qnnpack")


BROADCASTING = [engine for engine in engines_for("Add").args[1] if engine != "qnnpack"]


@pytest.mark.parametrize("engine", BROADCASTING)
@given(
    case=adds(),
    data=st.data(),
    calls=st.lists(broadcasts(), min_size=1, max_size=3),
    seed=seeds,
    kind=activations,
    workers=threads,
)
def test_dimensions_of_1_are_repeated(
    engine: str,
    case: tuple[ops.Add, QParams],
    data: st.DataObject,
    calls: list[tuple[tuple[int, ...], tuple[int, ...]]],
    seed: int,
    kind: str,
    workers: int,
) -> None:
    op, y = replace(case[0], broadcast=True), case[1]
    inputs = [data.draw(qparams), data.draw(qparams)]
    prepared = kernel(engine, op, inputs, y, threads=workers)
    for call, shapes in enumerate(calls):
        left, right = (
            uint8(seed + 2 * call + operand, shape, kind) for operand, shape in enumerate(shapes)
        )
        expected = reference.add(op, left, inputs[0], right, inputs[1], y)
        result = prepared(torch.from_numpy(left), torch.from_numpy(right))
        assert_equal(result, expected, context=shapes)


@pytest.mark.parametrize("engine", BROADCASTING)
def test_what_does_not_broadcast_is_refused(engine: str) -> None:
    x = torch.zeros(1, 4, 4, 6, dtype=torch.uint8)
    qp = QParams(0.1, 7)
    prepared = kernel(engine, ops.Add(broadcast=True), [qp, qp], qp)
    for other in (x[:, :2], x[..., :5], x[0], x[:, :0]):
        with pytest.raises(InvalidInputError, match="Add 'kernel'"):
            prepared(x, other.contiguous())
    with pytest.raises(InvalidInputError, match="Add 'kernel': the inputs have shapes"):
        kernel(engine, ops.Add(), [qp, qp], qp)(x, x[:, :1, :1].contiguous())


def test_only_uint8_operands_are_repeated() -> None:
    with pytest.raises(InvalidProgramError, match="not uint8"):
        Kernel(ops.Add(broadcast=True), [QParams(0.1, 7), None], QParams(0.1, 7))
