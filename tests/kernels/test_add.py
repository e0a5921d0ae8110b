"""Add on every engine: to the bit, on QNNPACK within the one step that its header documents."""

from __future__ import annotations

import numpy as np
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.engines import assert_equal, engines_for, kernel
from kernels.strategies import (
    activations,
    adds,
    calls,
    floats,
    qparams,
    seeds,
    threads,
    uint8,
)
from pyquant.ir import ops
from pyquant.operators import QParams

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
