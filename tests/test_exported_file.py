"""Models that are mixed with float operators, as ``.pt2`` files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pyquant
from pyquant.errors import InvalidProgramError, IoError, LoweringError, UnsupportedError

IMAGE = (torch.randn(1, 3, 11, 9, generator=torch.Generator().manual_seed(0)),)


class Mixed(nn.Module):
    """Two Programs with a float operator between them, two outputs, an optional input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.stem(x))
        return {"scores": self.head(torch.cumsum(x, 1)).mean((2, 3)), "features": x}


class OneBatch(Mixed):
    """Its float part takes the example's batch only."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(torch.cumsum(x.reshape(8, 63), 1).reshape(1, 8, 9, 7))


def _mixed(net: type[nn.Module] = Mixed) -> pyquant.QuantizedModule:
    torch.manual_seed(0)
    return pyquant.quantize(net().eval(), IMAGE, torch.randn(8, 3, 11, 9).split(1), progress=False)


@pytest.fixture(scope="module")
def model() -> pyquant.QuantizedModule:
    return _mixed()


@pytest.fixture
def path(model: pyquant.QuantizedModule, tmp_path: Path) -> Path:
    model.save(tmp_path / "model.pt2")
    return tmp_path / "model.pt2"


def _assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("shape", [(1, 3, 11, 9), (2, 3, 11, 9), (5, 3, 11, 9), (2, 3, 20, 30)])
def test_a_loaded_model_gives_the_same_bits(
    model: pyquant.QuantizedModule, path: Path, shape: tuple[int, ...]
) -> None:
    loaded = pyquant.load(path)
    x = torch.randn(shape)
    _assert_same(loaded(x), model(x))
    assert loaded.float_operators == model.float_operators
    assert len(loaded.programs) == len(model.programs) == 2
    assert loaded.program is None


def test_a_loaded_model_can_be_saved_again(path: Path, tmp_path: Path) -> None:
    first = pyquant.load(path, engine="reference")
    first.save(tmp_path / "again.pt2")
    again = pyquant.load(tmp_path / "again.pt2")
    assert (first.engine, again.engine) == ("reference", "auto")
    _assert_same(first(*IMAGE), again(*IMAGE))


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_torch_opens_it_too(model: pyquant.QuantizedModule, path: Path, batch: int) -> None:
    exported = torch.export.load(path)
    x = torch.randn(batch, 3, 11, 9)
    module = exported.module()
    _assert_same(module(x), model(x))
    _assert_same(torch.compile(module, backend="aot_eager", fullgraph=True)(x), model(x))


def test_a_model_of_one_batch(tmp_path: Path) -> None:
    model = _mixed(OneBatch)
    model.save(tmp_path / "model.pt2")
    loaded = pyquant.load(tmp_path / "model.pt2")
    assert torch.equal(loaded(*IMAGE), model(*IMAGE))
    with pytest.raises(RuntimeError):
        loaded(torch.cat(IMAGE * 2))


def test_a_whole_program_is_saved_as_pyq(tmp_path: Path) -> None:
    whole = pyquant.quantize(nn.Conv2d(3, 4, 3).eval(), IMAGE, [IMAGE[0]], progress=False)
    with pytest.raises(LoweringError, match=r"\.pyq"):
        whole.save(tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_graphs_without_shapes_are_refused(tmp_path: Path) -> None:
    model = _mixed()
    for node in model.module.graph.nodes:  # type: ignore[union-attr]
        node.meta.clear()
    with pytest.raises(LoweringError, match="shapes"):
        model.save(tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def test_an_unwritable_place(model: pyquant.QuantizedModule, tmp_path: Path) -> None:
    with pytest.raises(IoError):
        model.save(tmp_path / "missing" / "model.pt2")


def test_bad_files(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    bad = tmp_path / "bad.pt2"
    for content in (b"", b"PYQ1" * 9, data[: len(data) // 2], data[:-30]):
        bad.write_bytes(content)
        with pytest.raises(InvalidProgramError, match=r"bad\.pt2"):
            pyquant.load(bad)
    with pytest.raises(IoError):
        pyquant.load(tmp_path / "missing.pt2")
    with pytest.raises(UnsupportedError, match="warp"):
        pyquant.load(path, engine="warp")


def test_a_float_model_is_refused(tmp_path: Path) -> None:
    exported = torch.export.export(nn.Conv2d(3, 4, 3).eval(), IMAGE)
    torch.export.save(exported, tmp_path / "float.pt2")
    with pytest.raises(InvalidProgramError, match="no Program"):
        pyquant.load(tmp_path / "float.pt2")


def test_bytes_that_are_no_program() -> None:
    run = torch.ops.pyquant.run_program
    for data in (torch.zeros(100, dtype=torch.uint8), torch.zeros(10, 10)):
        with pytest.raises(InvalidProgramError):
            run(data, list(IMAGE), "float32[1*n,4]")
