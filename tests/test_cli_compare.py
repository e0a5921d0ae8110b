"""``pyquant compare``, run in this process on small models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result
from test_cli import quantize, row, run, tiny
from torch import nn


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command made of ``tiny`` for two runtimes."""
    folder = tmp_path_factory.mktemp("compared") / "bundle"
    options = ("--targets", "pyq,torchscript", "--input-shape", "1x3x16x16")
    assert quantize("test_cli:tiny", folder, *options).exit_code == 0
    return folder


def compare(*arguments: object) -> Result:
    return run("compare", "test_cli:tiny", *arguments, "--data", "random", *COMPARED)


COMPARED = ("--input-shape", "1x3x16x16", "--samples", 12)


def test_compare_shows_layers_and_targets(bundle: Path) -> None:
    result = compare(bundle, "--own")

    assert result.exit_code == 0, result.output
    assert "layers on 12 samples, worst first" in result.output
    head = row(result, "3 5")
    assert head[2:4] == ["linear", "1x5"]
    assert all(float(cell.removesuffix(" dB")) > 20 for cell in head[4:6])
    assert row(result, "0 0")[3] == "1x8x16x16"
    assert row(result, "float model")[1] == "exact"
    for name, file in (("Program", "model.pyq"), ("PyTorch Mobile (.ptl)", "model.ptl")):
        cells = row(result, name)
        assert float(cells[1].removesuffix(" dB")) > 20
        assert cells[5] == f"{(bundle / file).stat().st_size / 1e3:.1f} kB"
        assert cells[6].endswith(" ms")
    assert "The SQNR falls most at" in result.output


def test_compare_writes_json(bundle: Path) -> None:
    result = compare(bundle / "model.pyq", "--json")

    found = json.loads(result.output)
    assert (found["model"], found["samples"]) == ("tiny", 12)
    assert [layer["name"] for layer in found["layers"]] == ["0", "3", "4", "5"]
    assert found["layers"][0]["weight"]["channels"] == 8
    assert float(found["targets"][0]["sqnr"]) == float("inf")
    assert [target["name"] for target in found["targets"]] == ["float model", "Program"]


def test_compare_explains_what_it_cannot_compare(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("no model")
    damaged = tmp_path / "model.ptl"
    damaged.write_bytes(b"no model")

    for target, message in (
        (bundle / "model.ptl", "name one, or a bundle with one"),
        (tmp_path / "missing.pyq", "cannot read"),
        (tmp_path, "cannot read"),
        (other, "no .pte, .ptl, .pt, .pyq file"),
    ):
        result = compare(target)
        assert (result.exit_code, message in result.output) == (1, True), result.output
    result = compare(bundle, damaged)
    assert result.exit_code == 1 and "cannot be loaded" in result.output
    missing = run("compare", "test_cli_compare:wide", bundle, "--data", "random", *COMPARED)
    assert missing.exit_code == 1 and "not the same model" in missing.output


def wide() -> nn.Module:
    """``tiny`` with other channels."""
    model = tiny()
    model[0], model[1], model[5] = nn.Conv2d(3, 9, 3, padding=1), nn.BatchNorm2d(9), nn.Linear(9, 5)
    return model
