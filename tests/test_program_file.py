"""model.pyq: round trips, hostile files, atomic writing."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import ProgramBuilder, branching_net, fully_convolutional, small_net

import pyquant
from pyquant.errors import InvalidInputError, InvalidProgramError, IoError
from pyquant.ir import ops, serialize
from pyquant.ir.program import DType, Program, Tensor
from pyquant.targets import ProgramModule, QuantizedModule

IMAGE = torch.randn(1, 3, 8, 9, generator=torch.Generator().manual_seed(0))


def model(program: Program) -> QuantizedModule:
    module = ProgramModule(program)
    return QuantizedModule(module, [module])


def assert_same_program(a: Program, b: Program) -> None:
    assert (a.name, a.inputs, a.outputs) == (b.name, b.inputs, b.outputs)
    assert a.nodes == b.nodes
    assert a.metadata == b.metadata
    assert len(a.tensors) == len(b.tensors)
    for first, second in zip(a.tensors, b.tensors, strict=True):
        assert (first.name, first.dtype, first.shape) == (second.name, second.dtype, second.shape)
        assert first.zero_point == second.zero_point
        assert first.scale.dtype == second.scale.dtype == np.float32
        assert np.array_equal(first.scale, second.scale)
        assert (first.data is None) == (second.data is None)
        if first.data is not None and second.data is not None:
            assert first.data.dtype == second.data.dtype
            assert np.array_equal(first.data, second.data)


@pytest.mark.parametrize("make", [small_net, branching_net, fully_convolutional])
def test_round_trip(make: Callable[[], Program]) -> None:
    program = make()
    data = serialize.to_bytes(program)
    again = serialize.from_bytes(data)
    assert_same_program(program, again)
    assert serialize.to_bytes(again) == data


def test_constants_are_aligned() -> None:
    data = serialize.to_bytes(small_net())
    for tensor in small_net().tensors:
        if tensor.data is not None and tensor.data.nbytes >= 64:
            place = data.find(tensor.data.tobytes())
            assert place > 0
            assert place % 64 == 0


def test_saved_model_gives_the_same_outputs(tmp_path: Path) -> None:
    original = model(small_net())
    path = tmp_path / "model.pyq"
    original.save(path)
    for name in (path, str(path)):
        loaded = pyquant.load(name)
        assert torch.equal(loaded(IMAGE), original(IMAGE))
        assert loaded.graph is None
        assert loaded.float_operators == []
    loaded.save(tmp_path / "again.pyq")
    assert (tmp_path / "again.pyq").read_bytes() == path.read_bytes()
    assert oct(path.stat().st_mode & 0o777) == oct(0o666 & ~current_umask())


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --- Files that are no Programs.


def test_truncated_files() -> None:
    data = serialize.to_bytes(small_net())
    end = len(data.rstrip(b"\0"))  # what follows is padding, whose loss is none
    lengths = {*range(0, 80), *range(80, end, 37), *range(end - 8, end + 1)}
    for length in lengths:
        with pytest.raises(InvalidProgramError):
            serialize.from_bytes(data[:length])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"PYQ1",
        b"PK\x03\x04" + bytes(500),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        bytes(4096),
        b"\xff" * 300,
        b"\x10\0\0\0PYQ1" + bytes(200),
        b"\xff\xff\xff\xffPYQ1" + b"\xff" * 200,
    ],
)
def test_foreign_files(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "foreign.pyq"
    path.write_bytes(data)
    with pytest.raises(InvalidProgramError):
        pyquant.load(path)
    with pytest.raises(InvalidProgramError):
        pyquant._C.Program.load(str(path))


#: Runs in a process of its own: a crash must not take the tests along, and is told by its code.
FLIP = """
import sys
import numpy as np
import torch
sys.path.insert(0, {tests!r})
from programs import branching_net, fully_convolutional, small_net
import pyquant
from pyquant import _C
from pyquant.ir import serialize
counts = {{"refused": 0, "ran": 0, "raised": 0}}
torch.set_num_threads(1)
for make in (small_net, branching_net, fully_convolutional):
    program = make()
    data = np.frombuffer(serialize.to_bytes(program), np.uint8)
    image = torch.zeros(program.tensors[program.inputs[0]].shape)
    for seed in range({count}):
        random = np.random.default_rng({first} + seed)
        damaged = data.copy()
        for place in random.integers(0, len(data), random.choice([1, 1, 2, 8])):
            damaged[place] ^= random.choice([1, 2, 4, 8, 16, 32, 64, 128, 255])
        try:
            core = _C.Program.from_bytes(damaged.tobytes())
        except pyquant.errors.InvalidProgramError:
            counts["refused"] += 1
            continue
        assert all(size < 2**31 for info in core.inputs for size in info["shape"])
        try:
            _C.Session(core, "auto", 1).run([image])
            counts["ran"] += 1
        except pyquant.PyquantError:
            counts["raised"] += 1
        try:
            serialize.from_bytes(damaged.tobytes())
        except pyquant.PyquantError:
            pass
print(*counts.values())
"""


def test_flipped_bytes_never_crash() -> None:
    count = 1500
    thorough = os.environ.get("PYQUANT_TEST_PROFILE") == "thorough"
    script = FLIP.format(
        tests=str(Path(__file__).parent), count=count * (10 if thorough else 1), first=1000
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-3000:]}"
    refused, ran, raised = map(int, done.stdout.split())
    assert refused + ran + raised >= 2 * count
    assert refused > 0
    assert ran > 0, "flips in weights do no harm"


def test_names_that_are_not_utf8() -> None:
    """Names are for people: a bad one is refused or shown as well as can be."""
    program = small_net()
    program.tensors[0].name = "IMAGENAME"
    data = serialize.to_bytes(program).replace(b"IMAGENAME", b"IMAG\xff\xfe\x80NE")
    try:
        core = pyquant._C.Program.from_bytes(data)
    except InvalidProgramError:
        return
    assert core.inputs[0]["shape"] == (1, 3, 8, 9)
    with pytest.raises(InvalidInputError):
        pyquant._C.Session(core).run([torch.zeros(3)])


def test_a_name_that_is_not_utf8_in_a_message() -> None:
    program = small_net()
    program.nodes[2].name = "CONVNAME"
    _attribute(ops.Conv2d, groups=0)(program)
    data = serialize.to_bytes(program).replace(b"CONVNAME", b"CONV\xff\xfe\x80E")
    with pytest.raises(InvalidProgramError):
        serialize.from_bytes(data)


@pytest.mark.parametrize("metadata", ["[" * 5000, "{", "[1]", "3", "NaN,", '{"a": 1'])
def test_metadata_that_is_no_json_object(metadata: str) -> None:
    program = small_net()
    program.metadata = {"a": "x" * 6000}
    written = ('{"a": "' + "x" * 6000 + '"}').encode()
    data = serialize.to_bytes(program).replace(written, metadata.encode().ljust(len(written)))
    with pytest.raises(InvalidProgramError, match="metadata"):
        serialize.from_bytes(data)


def test_a_newer_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialize, "PROGRAM_VERSION", serialize.PROGRAM_VERSION + 1)
    data = serialize.to_bytes(small_net())
    with pytest.raises(InvalidProgramError, match=r"version 2.*newer pyquant"):
        serialize.from_bytes(data)
    monkeypatch.setattr(serialize, "PROGRAM_VERSION", 0)
    with pytest.raises(InvalidProgramError, match="version 0"):
        serialize.from_bytes(serialize.to_bytes(small_net()))


# --- Programs that are inconsistent.


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


# --- The file system.


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(IoError, match=r"missing\.pyq"):
        pyquant.load(tmp_path / "missing.pyq")
    with pytest.raises(IoError):
        pyquant._C.Program.load(str(tmp_path / "missing.pyq"))
    with pytest.raises(OSError, match=r"missing\.pyq"):
        pyquant.load(tmp_path / "missing.pyq")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(IoError):
        pyquant.load(tmp_path)
    with pytest.raises(IoError):
        pyquant._C.Program.load(str(tmp_path))
    with pytest.raises(IoError):
        model(small_net()).save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["missing/model.pyq", "file/model.pyq"])
def test_unwritable_place(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(IoError):
        model(small_net()).save(tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("failing", ["replace", "fsync"])
def test_a_failed_write_leaves_the_old_file(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pyq"
    model(small_net()).save(path)
    before = path.read_bytes()

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(IoError, match="No space left"):
        model(fully_convolutional()).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pyq"]
    model(fully_convolutional()).save(path)
    assert path.read_bytes() != before


def test_a_loaded_model_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pyq"
    original = model(small_net())
    original.save(path)
    loaded = pyquant.load(path)
    path.unlink()
    assert torch.equal(loaded(IMAGE), original(IMAGE))


def test_an_empty_program_is_refused() -> None:
    with pytest.raises(InvalidProgramError):
        ProgramModule(ProgramBuilder().finish())
