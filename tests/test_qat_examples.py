"""The examples of quantization in training, with small settings."""

from __future__ import annotations

import gzip
import json
import runpy
import struct
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


def write_idx(path: Path, values: torch.Tensor) -> None:
    """As MNIST's files: a magic number with the type and the number of dimensions, sizes, bytes."""
    header = struct.pack(f">I{values.dim()}I", 0x800 + values.dim(), *values.shape)
    path.write_bytes(gzip.compress(header + values.to(torch.uint8).numpy().tobytes()))


def test_the_digits_cnn_on_mnist_files_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    path = EXAMPLES / "digits_cnn.py"
    data = runpy.run_path(str(path))["load_digits"]()
    for name, images, labels in (
        ("train", data.train_images[:256], data.train_labels[:256]),
        ("t10k", data.test_images[:100], data.test_labels[:100]),
    ):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte.gz", images[:, 0].mul(255).round())
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", labels)
    flags = ["--mnist", str(tmp_path), "--epochs", "6", "--qat-epochs", "1"]
    monkeypatch.setattr("sys.argv", [str(path), *flags])

    runpy.run_path(str(path), run_name="__main__")

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[:-2] for row in rows[1:]] == [
        ["float32"],
        ["after", "training"],
        ["during", "training"],
    ]
    assert all(float(row[-2]) > 60 for row in rows[1:])  # guessing gives 10


def test_resnet18_with_two_classes() -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    torchvision_models.import_torchvision()
    main = runpy.run_path(str(EXAMPLES / "resnet18_two_classes.py"))["main"]
    result = main(size=32, count=32, epochs=1)
    assert result.keys() == {"float32", "trained with quantization", "int8"}
    assert abs(result["int8"] - result["trained with quantization"]) < 0.04  # one image


def test_resnet18_from_the_command_line_with_weights_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = pytest.importorskip("PIL.Image")
    resnet18 = torchvision_models.import_torchvision().resnet18
    path, weights = EXAMPLES / "resnet18_two_classes.py", tmp_path / "resnet18.pth"
    torch.manual_seed(0)
    torch.save(resnet18(weights=None).state_dict(), weights)
    for part, count in (("train", 8), ("val", 4)):
        for name, colour in (("ants", (200, 40, 40)), ("bees", (40, 40, 200))):
            folder = tmp_path / "data" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                image.new("RGB", (70 + index, 80), colour).save(folder / f"{index}.jpg")
    flags = ["--data", str(tmp_path / "data"), "--weights", str(weights)]
    monkeypatch.setattr("sys.argv", [str(path), *flags, "--size", "32", "--epochs", "1"])

    runpy.run_path(str(path), run_name="__main__")

    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[-1][0] == "int8" and float(rows[-1][1]) in [12.5 * n for n in range(9)]
