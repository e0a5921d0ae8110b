"""The examples run, with small settings."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torchvision_models
from torch import nn

import pyquant

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_model_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    torchvision_models.import_torchvision()
    example = load_example("model_sizes")
    example.main(["shufflenet_v2_x0_5", "--size", "64", "--rounds", "3"])
    header, _, row = capsys.readouterr().out.splitlines()
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))

    assert float(cells["smaller"].rstrip("x")) >= example.NETWORKS["shufflenet_v2_x0_5"]
    assert float(cells["fp32 MB"]) == pytest.approx(5.6, abs=0.1)
    assert float(cells["int8 ms"]) > 0


def test_model_sizes_gives_batch_norms_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    load_example("model_sizes").see_images(model)

    assert model[1].running_mean is not None
    assert bool((model[1].running_mean != 0).all())


def test_pretrained_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("sklearn")
    path = tmp_path / "model.pyq"
    load_example("pretrained_model").main(["--count", "2", "--output", str(path)])

    assert re.search(r"the same class as float on [12] of 2 photos$", capsys.readouterr().out)
    assert pyquant.load(path)(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
