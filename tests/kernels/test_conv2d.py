"""Conv2d on every engine, to the bit."""

from __future__ import annotations

import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.engines import assert_equal, engines_for, kernel
from kernels.strategies import Weighted, convolutions
from pyquant.ir import ops
from pyquant.operators import QParams


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


#: Input channels, groups, window.
LARGE = {
    "pointwise": (160, 1, ops.Window()),
    "pointwise, odd": (161, 1, ops.Window()),
    "strided pointwise": (160, 1, ops.Window(1, 1, 2, 2)),
    "padded": (96, 1, ops.Window(3, 3, 1, 1, 1, 1, 1, 1)),
    "unpadded": (96, 1, ops.Window(3, 3, 2, 2)),
    "grouped": (144, 3, ops.Window(3, 3, 1, 1, 1, 1, 1, 1)),
    "colours": (3, 1, ops.Window(3, 3, 2, 2, 1, 1, 1, 1)),
    "colours, wide": (3, 1, ops.Window(7, 7, 2, 2, 3, 3, 3, 3)),
    "grey": (1, 1, ops.Window(5, 5, 1, 1, 0, 2, 4, 1)),
    "four channels, dilated": (4, 1, ops.Window(6, 2, 3, 2, 5, 1, 0, 2, 2, 1)),
    "two channels, unpadded": (2, 1, ops.Window(4, 3)),
    "depthwise": (70, 70, ops.Window(3, 3, 1, 1, 1, 1, 1, 1)),
}


@engines_for("Conv2d")
@pytest.mark.parametrize("name", LARGE)
def test_an_image_of_several_bands(engine: str, name: str) -> None:
    """More input than a kernel takes at a time, and rows of several tiles."""
    inputs, groups, window = LARGE[name]
    outputs = groups if groups == inputs else 51
    size = (window.kernel_h, window.kernel_w)
    case = Weighted(
        op=ops.Conv2d(window, groups),
        x=QParams(0.02, 77),
        y=QParams(0.05, 100),
        weight_shape=(outputs, *size, inputs // groups),
        weight_kind="all",
        input_shapes=((1, 61, 83, inputs),),
        activation_kind="all",
        ratio=1.0,
        bias_limit=1000,
        seed=5,
        threads=2,
    )
    check_conv2d(engine, case)
