"""The examples of quantization in training, with small settings."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch
import torchvision_models

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_digits_cnn() -> None:
    pytest.importorskip("sklearn")
    result = runpy.run_path(str(EXAMPLES / "digits_cnn.py"))["main"](
        epochs=3, qat_epochs=1, count=192
    )
    assert result["size"] <= 0.26
    assert result["after training"] >= result["float32"] - 0.02
    assert result["during training"] >= result["float32"] - 0.02


def test_mnist_files_in_both_forms(tmp_path: Path) -> None:
    load = runpy.run_path(str(EXAMPLES / "digits_cnn.py"))["load_mnist"]
    pixels = torch.arange(3 * 784).remainder(256).to(torch.uint8)
    for name in ("train", "t10k"):
        images = tmp_path / f"{name}-images-idx3-ubyte"
        images.write_bytes(bytes(16) + bytes(pixels.tolist()))
        (tmp_path / f"{name}-labels-idx1-ubyte").write_bytes(bytes(8) + bytes([7, 1, 9]))
    data = load(tmp_path)
    assert data.test_images.shape == (3, 1, 28, 28)
    assert torch.equal(data.test_images.flatten(), pixels.float() / 255)
    assert data.train_labels.tolist() == [7, 1, 9]

    for digit in range(10):
        values = {"data": [digit / 10] * 784 * 3}
        (tmp_path / f"{digit}.json").write_text(json.dumps(values))
    data = load(tmp_path)
    assert len(data.train_labels) + len(data.test_labels) == 30
    for image, label in zip(data.train_images, data.train_labels, strict=True):
        assert torch.allclose(image, label.float() / 10)


def test_resnet18_with_two_classes() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    torchvision_models.import_torchvision()
    main = runpy.run_path(str(EXAMPLES / "resnet18_two_classes.py"))["main"]
    result = main(size=32, count=32, epochs=1)
    assert result.keys() == {"float32", "trained with quantization", "int8"}
    assert abs(result["int8"] - result["trained with quantization"]) < 0.04  # one image
