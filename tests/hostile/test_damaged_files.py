"""Files that are no Programs, or were: cut short, with other bytes, with names that are no text."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
import torch
from programs import ProgramBuilder, small_net

import pyquant
from pyquant.errors import InvalidInputError, InvalidProgramError
from pyquant.ir import program_generated, serialize
from pyquant.ir.program import DType

TESTS = Path(__file__).resolve().parent.parent


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
from pyquant.ir import program_generated, serialize
from pyquant.ir.program import DType
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
    script = FLIP.format(tests=str(TESTS), count=count * (10 if thorough else 1), first=1000)
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=TESTS,
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
    program.nodes[2].op = replace(program.nodes[2].op, groups=0)
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


def test_a_large_file_cut_at_every_kilobyte() -> None:
    build = ProgramBuilder()
    x = build.input(build.uint8((1, 300)))
    program = build.finish(build.linear(x, 200))
    data = serialize.to_bytes(program)
    assert len(data) > 60_000
    for length in range(0, len(data), 1024):
        with pytest.raises(InvalidProgramError):
            serialize.from_bytes(data[:length])


def test_constants_may_share_their_bytes() -> None:
    """Two tensors of one buffer are as good as two equal buffers; one of another size is not."""
    build = ProgramBuilder()
    x = build.input(build.uint8((1, 8)))
    first = build.linear(x, 8)
    second = build.linear(x, 8)
    program = build.finish(first, second)
    root = program_generated.ProgramT.InitFromPackedBuf(serialize.to_bytes(program))
    weights = [tensor for tensor in root.tensors if tensor.dtype == DType.int8]
    weights[1].buffer = weights[0].buffer
    shared = serialize.from_bytes(_pack(root))
    constants = [tensor.data for tensor in shared.tensors if tensor.dtype is DType.int8]
    assert np.array_equal(constants[0], constants[1])
    biases = [tensor for tensor in root.tensors if tensor.dtype == DType.int32]
    biases[1].buffer = weights[0].buffer
    with pytest.raises(InvalidProgramError, match="size of its shape"):
        serialize.from_bytes(_pack(root))


def _pack(root: program_generated.ProgramT) -> bytes:
    builder = flatbuffers.Builder(1024)
    builder.Finish(root.Pack(builder), serialize.FILE_IDENTIFIER)
    return bytes(builder.Output())
