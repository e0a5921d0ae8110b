"""Operators that engines compute on the result of another one: the same bits as one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from programs import ProgramBuilder, table

from kernels.engines import assert_equal
from kernels.strategies import Weighted, adds, convolutions, linears, qparams, seeds, uint8
from pyquant import _C
from pyquant.ir import ops
from pyquant.ir.program import DType, Program, Tensor
from pyquant.operators import QParams
from pyquant.targets import ProgramModule


class _Chain(ProgramBuilder):
    """A Program whose tensors have the qparams of the strategies."""

    def activation(self, shape: tuple[int, ...], qp: QParams) -> int:
        return self.uint8(shape, qp.scale, qp.zero_point)

    def append(self, op: ops.Op, inputs: list[int], shape: tuple[int, ...], qp: QParams) -> int:
        return self.node(op, inputs, self.activation(shape, qp))

    def weighted(self, case: Weighted, source: int, shape: tuple[int, ...]) -> int:
        assert case.y is not None
        weight, bias = case.weight, case.bias
        number = len(self.program.tensors)
        constants = [
            Tensor(f"w{number}", DType.int8, weight.shape, case.weight_scales, data=weight),
            Tensor(f"b{number}", DType.int32, bias.shape, data=bias),
        ]
        indices = [self.program.add_tensor(constant) for constant in constants]
        return self.append(case.op, [source, *indices], shape, case.y)


def _output_shape(case: Weighted, shape: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(case.op, ops.Linear):
        return (*shape[:-1], case.weight_shape[0])
    window = case.op.window

    def positions(size: int, kernel: int, stride: int, pads: int, dilation: int) -> int:
        return (size + pads - dilation * (kernel - 1) - 1) // stride + 1

    pads = (window.pad_top + window.pad_bottom, window.pad_left + window.pad_right)
    height = positions(shape[1], window.kernel_h, window.stride_h, pads[0], window.dilation_h)
    width = positions(shape[2], window.kernel_w, window.stride_w, pads[1], window.dilation_w)
    return (shape[0], height, width, case.weight_shape[0])


@st.composite
def _cases(draw: st.DrawFn) -> Weighted:
    kind = draw(st.sampled_from(("general", "pointwise", "grouped", "depthwise", "linear", "wide")))
    if kind == "linear":
        case = draw(linears(float_outputs=False))
    elif kind == "wide":
        # Enough inputs and pixels for instruction sets that multiply whole tiles.
        case = draw(convolutions("pointwise", float_outputs=False))
        inputs = draw(st.sampled_from((48, 64, 130, 256)))
        shape = (1, draw(st.integers(3, 9)), draw(st.integers(8, 35)), inputs)
        window = replace(case.op.window, stride_h=1, stride_w=1)
        case = replace(
            case,
            op=replace(case.op, window=window),
            weight_shape=(case.weight_shape[0], 1, 1, inputs),
            input_shapes=(shape,),
        )
    else:
        case = draw(convolutions(kind, float_outputs=False))
    if case.y is None:
        case = replace(case, y=draw(qparams))
    return case


def _check(program: Program, inputs: list[np.ndarray], isa: str, threads: int) -> None:
    """The native engine against the reference, which computes operators one by one."""
    tensors = [torch.from_numpy(x) for x in inputs]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    _C.use_isa(isa)
    try:
        expected = ProgramModule(program, engine="reference")(*tensors)
        found = ProgramModule(program, engine="native")(*tensors)
    finally:
        torch.set_num_threads(before)
        _C.use_isa("")
    for have, want in zip(torch.utils._pytree.tree_leaves(found), expected, strict=True):
        assert_equal(have, want.numpy())


isas = pytest.mark.parametrize("isa", _C.isas())
post_ops = st.sampled_from(("table", "add", "add other way round"))


@isas
@given(data=st.data())
def test_one_post_op(isa: str, data: st.DataObject) -> None:
    case, post_op = data.draw(_cases()), data.draw(post_ops)
    chain = _Chain()
    shape = case.input_shapes[0]
    y_shape = _output_shape(case, shape)
    inputs = [case.inputs[0]]
    y = chain.weighted(case, chain.input(chain.activation(shape, case.x)), y_shape)
    if post_op == "table":
        y = chain.append(table(case.seed), [y], y_shape, data.draw(qparams))
    else:
        op, qp = data.draw(adds())
        other = chain.input(chain.activation(y_shape, data.draw(qparams)))
        inputs.append(uint8(data.draw(seeds), y_shape))
        y = chain.append(op, [other, y] if post_op != "add" else [y, other], y_shape, qp)
    chain.program.outputs = [y]
    _check(chain.program, inputs, isa, case.threads)


@isas
@given(data=st.data())
def test_many(isa: str, data: st.DataObject) -> None:
    """Two layers on one input, and a few operators on any of the results, outputs in between."""
    case = data.draw(_cases())
    twin = replace(case, seed=case.seed + 100)
    chain = _Chain()
    shape = case.input_shapes[0]
    y_shape = _output_shape(case, shape)
    x = chain.input(chain.activation(shape, case.x))
    values = [chain.weighted(case, x, y_shape), chain.weighted(twin, x, y_shape)]
    for number in range(data.draw(st.integers(1, 4))):
        if data.draw(st.booleans()):
            source = data.draw(st.sampled_from(values))
            op = table(case.seed + number)
            values.append(chain.append(op, [source], y_shape, data.draw(qparams)))
        else:
            operands = [data.draw(st.sampled_from(values)) for _ in range(2)]
            op, qp = data.draw(adds())
            values.append(chain.append(op, operands, y_shape, qp))
    read = {index for node in chain.program.nodes for index in node.inputs}
    extra = set(data.draw(st.lists(st.sampled_from(values), max_size=1)))
    chain.program.outputs = [v for v in values if v not in read or v in extra]
    _check(chain.program, case.inputs[:1], isa, case.threads)
