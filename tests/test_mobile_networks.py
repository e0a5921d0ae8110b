"""Whole networks as ``.ptl`` files: what PyTorch Mobile loads computes what the Program says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.jit.mobile import _get_model_ops_and_info
from torch.nn.functional import cosine_similarity
from torchvision_models import build

import pyquant
from pyquant.mobile.runtimes import load_torchscript
from pyquant.mobile.torchscript import to_torchscript


def written(model: torch.nn.Module, x: torch.Tensor, path: Path) -> pyquant.QuantizedModule:
    """``model`` quantized on ``x``, and its ``.ptl`` in ``path``."""
    quantized = pyquant.quantize(
        model, x[:1], x, pyquant.QuantizationConfig(bias_correction=False), progress=False
    )
    assert quantized.program is not None
    path.write_bytes(to_torchscript(quantized.program)[0])
    return quantized


def check(quantized: pyquant.QuantizedModule, path: Path, x: torch.Tensor) -> None:
    """Clamps scramble channels_last tensors under QNNPACK: their cosine is about 0.5."""
    names = set(_get_model_ops_and_info(str(path)))
    assert not [n for n in names if any(bad in n for bad in ("relu6", "hardtanh", "clamp"))]
    assert any(name.startswith("quantized::conv2d") for name in names)
    (actual,) = load_torchscript(path).run([x])
    assert cosine_similarity(actual.flatten(), quantized(x).flatten(), dim=0) >= 0.999


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_random_weights(name: str, tmp_path: Path) -> None:
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    check(written(build(name), x, tmp_path / "model.ptl"), tmp_path / "model.ptl", x[1:])


def test_real_weights_and_photos(
    efficientnet_lite0: torch.nn.Module,
    photo_crops: Callable[[int, int], torch.Tensor],
    tmp_path: Path,
) -> None:
    quantized = written(efficientnet_lite0, photo_crops(2, 1), tmp_path / "model.ptl")
    check(quantized, tmp_path / "model.ptl", photo_crops(1, 2))
