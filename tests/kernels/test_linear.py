"""Linear on every engine, to the bit."""

from __future__ import annotations

import numpy as np
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.engines import assert_equal, engines_for, kernel
from kernels.strategies import Weighted, int8, linears, uint8
from pyquant.ir import ops
from pyquant.operators import QParams


def check_linear(engine: str, case: Weighted) -> None:
    """All calls of one kernel against NumPy."""
    constants = (case.weight, case.weight_scales, case.bias)
    prepared = kernel(
        engine,
        case.op,
        [case.x],
        case.y,
        weight=torch.from_numpy(constants[0]),
        weight_scales=torch.from_numpy(constants[1]),
        bias=torch.from_numpy(constants[2]),
        threads=case.threads,
    )
    for x in case.inputs:
        expected = reference.linear(case.op, x, case.x, *constants, case.y)
        assert_equal(prepared(torch.from_numpy(x)), expected, context=x.shape)


@engines_for("Linear")
@given(data=st.data())
def test_linear(engine: str, data: st.DataObject) -> None:
    check_linear(engine, data.draw(linears(float_outputs=engine != "qnnpack")))


@engines_for("Linear")
def test_a_million_roundings(engine: str) -> None:
    """Enough that a multiplier which is wrong in its last bit shows."""
    x_qp, y_qp = QParams(0.0371, 117), QParams(0.0523, 128)
    x = uint8(1, (2000, 16))
    weight = int8(2, (1000, 16))
    generator = np.random.default_rng(3)
    scales = generator.uniform(0.003, 0.009, 1000).astype(np.float32)
    bias = generator.integers(-3000, 3000, 1000, dtype=np.int32)
    prepared = kernel(
        engine,
        ops.Linear(),
        [x_qp],
        y_qp,
        weight=torch.from_numpy(weight),
        weight_scales=torch.from_numpy(scales),
        bias=torch.from_numpy(bias),
    )
    expected = reference.linear(ops.Linear(), x, x_qp, weight, scales, bias, y_qp)
    assert_equal(prepared(torch.from_numpy(x)), expected)
