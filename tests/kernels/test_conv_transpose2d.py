"""ConvTranspose2d on every engine, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from kernels.engines import assert_equal, engines_for, kernel
from kernels.strategies import Weighted, transposed_convolutions
from pyquant.errors import InvalidInputError, InvalidProgramError
from pyquant.ir import ops
from pyquant.operators import Kernel, QParams

Q = QParams(1.0, 0)


def prepare(engine: str, case: Weighted) -> Kernel:
    return kernel(
        engine,
        case.op,
        [case.x],
        case.y,
        weight=torch.from_numpy(case.weight),
        weight_scales=torch.from_numpy(case.weight_scales),
        bias=torch.from_numpy(case.bias),
        threads=case.threads,
    )


@engines_for("ConvTranspose2d")
@given(case=transposed_convolutions())
def test_conv_transpose2d(engine: str, case: Weighted) -> None:
    prepared = prepare(engine, case)
    for x in case.inputs:
        constants = (case.weight, case.weight_scales, case.bias)
        expected = reference.conv_transpose2d(case.op, x, case.x, *constants, case.y)
        assert_equal(prepared(torch.from_numpy(x)), expected, context=x.shape)


@settings(max_examples=60)
@given(data=st.data())
def test_accumulators_are_torchs(data: st.DataObject) -> None:
    """Small numbers, so that float32 is exact, and scales of 1."""
    case = data.draw(transposed_convolutions())
    op, window = case.op, case.op.window
    if (window.pad_top, window.pad_left) != (window.pad_bottom, window.pad_right):
        return
    outputs, _, _, group_in = case.weight_shape
    weight = np.clip(case.weight, -3, 3)
    x = case.inputs[0]
    grouped = weight.reshape(op.groups, outputs // op.groups, *weight.shape[1:])
    expected = F.conv_transpose2d(
        torch.from_numpy(x).permute(0, 3, 1, 2).float() - 7,
        torch.from_numpy(grouped.transpose(0, 4, 1, 2, 3).copy())
        .reshape(op.groups * group_in, outputs // op.groups, window.kernel_h, window.kernel_w)
        .float(),
        None,
        (window.stride_h, window.stride_w),
        (window.pad_top, window.pad_left),
        (op.output_pad_h, op.output_pad_w),
        op.groups,
        (window.dilation_h, window.dilation_w),
    )
    result = Kernel(
        op,
        [QParams(1.0, 7)],
        None,
        weight=torch.from_numpy(weight),
        weight_scales=torch.ones(outputs),
        bias=torch.zeros(outputs, dtype=torch.int32),
    )(torch.from_numpy(x))
    assert torch.equal(result, expected.permute(0, 2, 3, 1))


def plain(op: ops.ConvTranspose2d) -> Kernel:
    return Kernel(
        op,
        [Q],
        Q,
        weight=torch.ones((4, 3, 3, 2), dtype=torch.int8),
        weight_scales=torch.ones(4),
        bias=torch.zeros(4, dtype=torch.int32),
    )


@pytest.mark.parametrize(
    ("op", "why"),
    [
        (ops.ConvTranspose2d(ops.Window(3, 3, 2, 2), output_pad_h=2), "output padding"),
        (ops.ConvTranspose2d(ops.Window(3, 3, 2, 2), output_pad_w=-1), "output padding"),
        (ops.ConvTranspose2d(ops.Window(3, 3, 0, 2)), "out of range"),
        (ops.ConvTranspose2d(ops.Window(3, 2)), "kernel size"),
        (ops.ConvTranspose2d(ops.Window(3, 3), groups=3), "divide"),
        (ops.ConvTranspose2d(ops.Window(3, 3), output_min=3, output_max=2), "output_min"),
    ],
)
def test_bad_attributes_are_refused(op: ops.ConvTranspose2d, why: str) -> None:
    with pytest.raises(InvalidProgramError, match=why):
        plain(op)


def test_padding_that_takes_all_is_refused() -> None:
    prepared = plain(ops.ConvTranspose2d(ops.Window(3, 3, 1, 1, 2, 0, 1, 0)))
    with pytest.raises(InvalidInputError, match="empty"):
        prepared(torch.zeros((1, 1, 4, 2), dtype=torch.uint8))
