"""ResNet-18 with a head for two classes, trained further with quantization in it.

    python examples/resnet18_two_classes.py
    python examples/resnet18_two_classes.py --data hymenoptera_data/ --weights resnet18.pth

By default the two classes are crops of two photos, and the weights are random. A data folder holds
``train/CLASS/*.jpg`` and ``val/CLASS/*.jpg`` for two classes, as the ants and bees of PyTorch's
transfer learning tutorial; weights are a state dict of torchvision's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pyquant

BATCH = 8
Samples = tuple[Tensor, Tensor]  # float32 [N, 3, S, S], normalised as ImageNet; int64 [N]


def build_model(weights: Path | None) -> nn.Module:
    """torchvision's ResNet-18 with a new last layer."""
    from torchvision.models import resnet18

    model = resnet18(weights=None)
    if weights is not None:
        model.load_state_dict(torch.load(weights, weights_only=True))
    model.fc = nn.Linear(model.fc.in_features, 2)
    return model


def normalise(pixels: Tensor) -> Tensor:
    """uint8 ``[..., 3, H, W]`` to float32."""
    mean, deviation = torch.tensor([[[0.485]], [[0.456]], [[0.406]]]), 0.226
    return (pixels.float() / 255 - mean) / deviation


def photo_crops(count: int, size: int, seed: int) -> Samples:
    """Crops of scikit-learn's two photos, in turns."""
    import sklearn.datasets

    photos = [
        torch.tensor(image).permute(2, 0, 1)
        for image in sklearn.datasets.load_sample_images().images
    ]
    generator = torch.Generator().manual_seed(seed)
    crops = []
    for index in range(count):
        photo = photos[index % 2]
        top = int(torch.randint(photo.shape[1] - 2 * size, (), generator=generator))
        left = int(torch.randint(photo.shape[2] - 2 * size, (), generator=generator))
        crop = photo[:, top : top + 2 * size, left : left + 2 * size]
        crops.append(F.avg_pool2d(crop.float(), 2))
    return normalise(torch.stack(crops)), torch.arange(count) % 2


def folder_images(folder: Path, size: int) -> Samples:
    """The images of the subfolders, scaled to squares."""
    import numpy as np
    from PIL import Image

    images, labels = [], []
    for label, kind in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for path in sorted(kind.glob("*.jpg")):
            image = Image.open(path).convert("RGB").resize((size, size))
            images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
            labels.append(label)
    return normalise(torch.stack(images)), torch.tensor(labels)


def train(model: nn.Module, samples: Samples, epochs: int, after_epoch: Callable[[], None]) -> None:
    """Stochastic gradient descent; the model is in eval mode afterwards."""
    images, labels = samples
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    model.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels))[: len(labels) // BATCH * BATCH].split(BATCH):
            loss = F.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        after_epoch()
    model.eval()


def accuracy(model: Callable[[Tensor], Tensor], samples: Samples) -> float:
    """The share that ``model`` gets right, 0..1."""
    images, labels = samples
    with torch.no_grad():
        found = torch.cat([model(batch).argmax(1) for batch in images.split(BATCH)])
    return float((found == labels).float().mean())


def main(
    data: Path | None = None,
    weights: Path | None = None,
    size: int = 96,
    count: int = 160,
    epochs: int = 3,
) -> dict[str, float]:
    """Trains in float32, then with quantization; prints and returns accuracies, 0..1.

    Args:
        data: A folder of images; ``None`` for crops of photos.
        weights: A file of float weights to begin with.
        size: Height and width of the images.
        count: How many crops; as many again for the test.
        epochs: Of either training.
    """
    torch.manual_seed(0)
    if data is None:
        training, validation = photo_crops(count, size, 0), photo_crops(count, size, 1)
    else:
        training, validation = (folder_images(data / part, size) for part in ("train", "val"))
    model = build_model(weights)
    train(model, training, epochs, after_epoch=lambda: None)

    prepared = pyquant.prepare_qat(model, training[0][:1])
    freeze = pyquant.FreezeSchedule(prepared, batch_norm=1, observers=max(epochs - 1, 1))
    train(prepared, training, epochs, after_epoch=freeze.step)
    quantized = pyquant.lower(pyquant.convert(prepared), whole=True)

    result = {
        "float32": accuracy(model, validation),
        "trained with quantization": accuracy(prepared, validation),
        "int8": accuracy(quantized, validation),
    }
    for name, value in result.items():
        print(f"{name:27}{100 * value:6.2f} %")
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="a folder with train/ and val/")
    parser.add_argument("--weights", type=Path, help="a state dict of torchvision's resnet18")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--count", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=3)
    main(**vars(parser.parse_args()))
