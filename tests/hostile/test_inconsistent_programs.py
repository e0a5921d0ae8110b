"""Programs that are files like any other, and contradict themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from programs import ProgramBuilder, small_net

from pyquant.errors import InvalidProgramError
from pyquant.ir import ops, serialize
from pyquant.ir.program import DType, Program, Tensor
from pyquant.targets import ProgramModule


def _tensor(program: Program, dtype: DType, number: int = 0) -> Tensor:
    return [tensor for tensor in program.tensors if tensor.dtype is dtype][number]


def _edit(program: Program, kind: type[ops.Op], **changes: object) -> None:
    node = next(node for node in program.nodes if isinstance(node.op, kind))
    node.op = replace(node.op, **changes)


def _scale(value: float) -> Callable[[Program], None]:
    def edit(program: Program) -> None:
        _tensor(program, DType.uint8).scale = np.array([value], np.float32)

    return edit


def _zero_point(value: int) -> Callable[[Program], None]:
    def edit(program: Program) -> None:
        _tensor(program, DType.uint8).zero_point = value

    return edit


def _weight_scale(value: float) -> Callable[[Program], None]:
    def edit(program: Program) -> None:
        _tensor(program, DType.int8).scale[1] = value

    return edit


def _window(**changes: int) -> Callable[[Program], None]:
    def edit(program: Program) -> None:
        node = next(node for node in program.nodes if isinstance(node.op, ops.Conv2d))
        assert isinstance(node.op, ops.Conv2d)
        node.op = replace(node.op, window=replace(node.op.window, **changes))

    return edit


def _shape(dtype: DType, shape: tuple[int, ...]) -> Callable[[Program], None]:
    def edit(program: Program) -> None:
        _tensor(program, dtype).shape = shape

    return edit


def _swap_nodes(program: Program) -> None:
    program.nodes[2], program.nodes[3] = program.nodes[3], program.nodes[2]


def _cycle(program: Program) -> None:
    program.nodes[1].inputs = [program.nodes[1].output]


def _write_twice(program: Program) -> None:
    program.nodes[5].output = program.nodes[4].output


def _write_to_input(program: Program) -> None:
    program.nodes[-1].output = program.inputs[0]


def _write_to_constant(program: Program) -> None:
    program.nodes[2].output = program.nodes[2].inputs[1]


def _index(program: Program) -> None:
    program.nodes[3].inputs = [len(program.tensors)]


def _output_index(program: Program) -> None:
    program.nodes[3].output = 2**31


def _no_outputs(program: Program) -> None:
    program.outputs = []


def _output_never_written(program: Program) -> None:
    program.outputs = [program.add_tensor(Tensor("loose", DType.float32, (1,)))]


def _constant_output(program: Program) -> None:
    program.outputs = [program.nodes[2].inputs[1]]


def _input_twice(program: Program) -> None:
    program.inputs *= 2


def _unused_inputs_removed(program: Program) -> None:
    program.inputs = []


def _too_few_operands(program: Program) -> None:
    program.nodes[2].inputs = program.nodes[2].inputs[:2]


def _too_many_operands(program: Program) -> None:
    program.nodes[0].inputs = program.nodes[0].inputs * 2


def _short_data(program: Program) -> None:
    tensor = _tensor(program, DType.int8)
    assert tensor.data is not None
    tensor.data = tensor.data.reshape(-1)[:-1]


def _accumulator_overflow(program: Program) -> None:
    tensor = _tensor(program, DType.int32)
    assert tensor.data is not None
    tensor.data = np.full_like(tensor.data, 2**31 - 5)


def _scale_per_channel_missing(program: Program) -> None:
    tensor = _tensor(program, DType.int8)
    tensor.scale = tensor.scale[:-1]


def _bias_as_weight(program: Program) -> None:
    node = program.nodes[2]
    node.inputs = [node.inputs[0], node.inputs[2], node.inputs[1]]


def _attribute(kind: type[ops.Op], **changes: object) -> Callable[[Program], None]:
    return lambda program: _edit(program, kind, **changes)


DAMAGES: dict[str, Callable[[Program], None]] = {
    "scale NaN": _scale(float("nan")),
    "scale infinite": _scale(float("inf")),
    "scale 0": _scale(0.0),
    "scale negative": _scale(-0.1),
    "scale subnormal": _scale(1e-42),
    "zero_point 300": _zero_point(300),
    "zero_point 256": _zero_point(256),
    "zero_point -1": _zero_point(-1),
    "weight scale NaN": _weight_scale(float("nan")),
    "weight scale 0": _weight_scale(0.0),
    "weight scale negative": _weight_scale(-1.0),
    "weight scale infinite": _weight_scale(float("inf")),
    "kernel 0": _window(kernel_h=0),
    "kernel other than the weight's": _window(kernel_h=2, pad_top=0),
    "stride 0": _window(stride_w=0),
    "stride negative": _window(stride_w=-1),
    "stride huge": _window(stride_w=2**31 - 1),
    "dilation 0": _window(dilation_h=0),
    "dilation huge": _window(dilation_h=2**31 - 1),
    "padding negative": _window(pad_left=-1),
    "padding huge": _window(pad_left=2**31 - 1),
    "groups 0": _attribute(ops.Conv2d, groups=0),
    "groups -1": _attribute(ops.Conv2d, groups=-1),
    "groups 2": _attribute(ops.Conv2d, groups=2),
    "bounds crossed": _attribute(ops.Conv2d, output_min=9, output_max=8),
    "divisor negative": _attribute(ops.AvgPool2d, divisor_override=-1),
    "adaptive size 0": _attribute(ops.AdaptiveAvgPool2d, output_h=0),
    "adaptive size huge": _attribute(ops.AdaptiveAvgPool2d, output_h=2**31 - 1, output_w=2**30),
    "pad huge": _attribute(ops.Pad, top=2**31 - 1),
    "pad crops all": _attribute(ops.Pad, top=-20),
    "table short": _attribute(ops.LookupTable, values=bytes(255)),
    "table long": _attribute(ops.LookupTable, values=bytes(257)),
    "table empty": _attribute(ops.LookupTable, values=b""),
    "activation shape": _shape(DType.uint8, (1, 8, 8, 3)),
    "activation shape 0": _shape(DType.uint8, (0, 8, 9, 3)),
    "activation shape negative": _shape(DType.uint8, (-1, 8, 9, 3)),
    "activation shape huge": _shape(DType.uint8, (2**31 - 1,) * 4),
    "activation rank 7": _shape(DType.uint8, (1,) * 7),
    "input shape": _shape(DType.float32, (1, 4, 8, 9)),
    "weight shape": _shape(DType.int8, (5, 3, 9, 1)),
    "weight shape 0": _shape(DType.int8, (0, 3, 3, 3)),
    "weight shape huge": _shape(DType.int8, (2**31 - 1, 2**31 - 1, 2**31 - 1, 2)),
    "data too short": _short_data,
    "accumulator overflow": _accumulator_overflow,
    "scales too few": _scale_per_channel_missing,
    "bias and weight swapped": _bias_as_weight,
    "use before write": _swap_nodes,
    "cycle": _cycle,
    "written twice": _write_twice,
    "input written": _write_to_input,
    "constant written": _write_to_constant,
    "operand index": _index,
    "output index": _output_index,
    "no outputs": _no_outputs,
    "output never written": _output_never_written,
    "output constant": _constant_output,
    "input twice": _input_twice,
    "no inputs": _unused_inputs_removed,
    "too few operands": _too_few_operands,
    "too many operands": _too_many_operands,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_inconsistent_program(damage: str, tmp_path: Path) -> None:
    program = copy.deepcopy(small_net())
    DAMAGES[damage](program)
    data = serialize.to_bytes(program)
    with pytest.raises(InvalidProgramError) as raised:
        serialize.from_bytes(data)
    assert len(str(raised.value)) > 10
    with pytest.raises(InvalidProgramError):
        ProgramModule(program)
    with pytest.raises(InvalidProgramError):
        serialize.save(program, tmp_path / "model.pyq")
    assert not list(tmp_path.iterdir())


def test_the_message_names_the_operator() -> None:
    program = small_net()
    _attribute(ops.Conv2d, groups=0)(program)
    with pytest.raises(InvalidProgramError, match=r"Conv2d 'n2'"):
        ProgramModule(program)


def test_an_empty_program_is_refused() -> None:
    with pytest.raises(InvalidProgramError):
        ProgramModule(ProgramBuilder().finish())
