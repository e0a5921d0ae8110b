"""Linear on every engine, to the bit."""

from __future__ import annotations

import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.engines import assert_equal, engines_for, kernel
from kernels.strategies import Weighted, linears


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
