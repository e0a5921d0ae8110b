"""Conv2d on every engine, to the bit."""

from __future__ import annotations

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.engines import assert_equal, engines_for, kernel
from kernels.strategies import Weighted, convolutions


def check_conv2d(engine: str, case: Weighted) -> None:
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
        expected = reference.conv2d(case.op, x, case.x, *constants, case.y)
        assert_equal(prepared(torch.from_numpy(x)), expected, context=x.shape)


@engines_for("Conv2d")
@pytest.mark.parametrize("kind", ["general", "pointwise", "grouped", "depthwise"])
@given(data=st.data())
def test_conv2d(engine: str, kind: str, data: st.DataObject) -> None:
    check_conv2d(engine, data.draw(convolutions(kind, float_outputs=engine != "qnnpack")))
