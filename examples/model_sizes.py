"""How much smaller and faster int8 makes five networks of torchvision.

    python examples/model_sizes.py
    python examples/model_sizes.py --weights DEFAULT --calib photos/ resnet18

Weights are random without ``--weights``; sizes and latencies are the same. One thread, batch 1, the
float and the int8 model in turns; the table shows the fastest run of each.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import pyquant
from pyquant.analysis.measure import interleaved, one_thread

#: The networks, and by how much their files shrink at least.
NETWORKS = {
    "shufflenet_v2_x0_5": 2.4,
    "mobilenet_v3_large": 3.3,
    "efficientnet_v2_s": 3.5,
    "resnet18": 3.9,
    "resnet50": 3.9,
}


def build(name: str, weights: str | None) -> nn.Module:
    """A network of torchvision in eval mode."""
    from torchvision import models

    torch.manual_seed(0)
    model: nn.Module = models.get_model(name, weights=weights)
    if weights is None:
        see_images(model)
    return model.eval()


def see_images(model: nn.Module) -> None:
    """Gives batch norms the statistics of random images. Without them, random weights make ever
    smaller activations, down to denormal numbers, on which float kernels crawl.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
            module.reset_running_stats()
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 96, 96))


def calibration_images(folder: str | None, size: int) -> dict[str, Any]:
    """The arguments of ``quantize`` for a folder of photos; random images without one."""
    if folder is None:
        return {"calibration_data": torch.randn(8, 3, size, size)}
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize(size),
            v2.CenterCrop(size),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    return {"calibration_data": folder, "transform": transform}


def measure(
    model: nn.Module, size: int, rounds: int, images: dict[str, Any]
) -> tuple[list[int], list[float]]:
    """Sizes in bytes and latencies in seconds, of the float model and of the int8 model."""
    example = torch.randn(1, 3, size, size)
    quantized = pyquant.quantize(model, example, **images)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("model.pt", "model.pyq")]
        torch.save(model.state_dict(), paths[0])
        quantized.save(paths[1])
        sizes = [path.stat().st_size for path in paths]
    with one_thread(), torch.inference_mode():
        calls = {"float": lambda: model(example), "int8": lambda: quantized(example)}
        timings = interleaved(calls, rounds)
    return sizes, [timings[name].minimum for name in calls]


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--weights", help='as "DEFAULT"; torchvision downloads them')
    parser.add_argument("--calib", help="a folder of photos; random images without it")
    parser.add_argument("--size", type=int, default=224, help="height and width of the images")
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args(arguments)

    images = calibration_images(options.calib, options.size)
    print("| network | fp32 MB | int8 MB | smaller | fp32 ms | int8 ms | faster |")
    print("|---|---|---|---|---|---|---|")
    for name in options.networks:
        model = build(name, options.weights)
        (before, after), (slow, fast) = measure(model, options.size, options.rounds, images)
        print(
            f"| {name} | {before / 1e6:.1f} | {after / 1e6:.2f} | {before / after:.2f}x "
            f"| {slow * 1e3:.1f} | {fast * 1e3:.2f} | {slow / fast:.1f}x |",
            flush=True,
        )


if __name__ == "__main__":
    main()
