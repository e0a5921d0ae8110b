"""model.pyq: round trips, versions, atomic writing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import branching_net, fully_convolutional, repeating_net, small_net

import pyquant
from pyquant.errors import InvalidProgramError, IoError
from pyquant.ir import serialize
from pyquant.ir.ops import OPS
from pyquant.ir.program import Program
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


@pytest.mark.parametrize("make", [small_net, branching_net, repeating_net, fully_convolutional])
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


def test_a_newer_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialize, "PROGRAM_VERSION", serialize.PROGRAM_VERSION + 1)
    data = serialize.to_bytes(small_net())
    with pytest.raises(InvalidProgramError, match=r"version 2.*newer pyquant"):
        serialize.from_bytes(data)
    monkeypatch.setattr(serialize, "PROGRAM_VERSION", 0)
    with pytest.raises(InvalidProgramError, match="version 0"):
        serialize.from_bytes(serialize.to_bytes(small_net()))


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


#: A file that may not grow beyond 4 KiB stands for a disk that is full.
FULL_DISK = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
import pyquant
from programs import ProgramBuilder
from pyquant.ir import serialize
from pyquant.ir.ops import OPS
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
build = ProgramBuilder()
program = build.finish(build.linear(build.input(build.uint8((1, 300))), 200))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    serialize.save(program, {path!r})
except pyquant.errors.IoError as error:
    print("refused:", error)
"""


def test_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "model.pyq"
    model(small_net()).save(path)
    before = path.read_bytes()
    tests = Path(__file__).resolve().parent
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK.format(tests=str(tests), path=str(path))],
        capture_output=True,
        text=True,
        check=True,
        cwd=tests,
    )
    assert done.stdout.startswith(f"refused: cannot write {path}")
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.pyq"]


# --- Files of every version that was ever written must load, and give what they gave.

GOLDEN = sorted((Path(__file__).parent / "golden").glob("v*/*.pyq"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_old_files_load_for_ever(path: Path) -> None:
    arrays = np.load(path.with_suffix(".npz"))
    values = [torch.from_numpy(arrays[name]) for name in arrays.files]
    for engine in ("auto", "reference"):
        loaded = pyquant.load(path, engine=engine)
        outputs = loaded(values[0])
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        assert len(outputs) == len(values) - 1
        for output, expected in zip(outputs, values[1:], strict=True):
            assert torch.equal(output, expected)


def test_there_is_a_file_of_every_version() -> None:
    versions = {path.parent.name for path in GOLDEN}
    assert versions == {f"v{version + 1}" for version in range(serialize.PROGRAM_VERSION)}
    kinds = {type(node.op).__name__ for path in GOLDEN for node in serialize.load(path).nodes}
    assert kinds == set(OPS)
