"""Writes small Programs for the fuzzer to begin with: ``python tests/fuzz/make_corpus.py FOLDER``.

One file for each building block of real networks, quantized with random weights; the golden files
are the rest of the corpus.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

import pyquant


class Residual(nn.Module):
    """ResNet's basic block, with a strided shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8))
        self.shortcut = nn.Conv2d(3, 8, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] to [N, 8, H / 2, W / 2]."""
        return F.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class InvertedResidual(nn.Module):
    """MobileNetV3's: expansion, depthwise, squeeze-excitation, projection, shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(4, 16, 1), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 5, 1, 2, groups=16), nn.Hardswish())
        self.squeeze = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1)
        )
        self.project = nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 4, H, W] to the same."""
        y = self.depthwise(self.expand(x))
        return self.project(y * F.hardsigmoid(self.squeeze(y))) + x


class Attention(nn.Module):
    """Maxima of each channel, which a sum repeats."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, H, W] to [N, 8, H - 2, W - 2]."""
        y = self.first(x)
        return self.second(y) + F.adaptive_max_pool2d(y, 1)


class Shuffle(nn.Module):
    """ShuffleNetV2's unit."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(4, 4, 1), nn.ReLU6(), nn.Conv2d(4, 4, 3, 1, 1, groups=4), nn.Conv2d(4, 4, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 8, H, W] to the same."""
        first, second = x.chunk(2, 1)
        return F.channel_shuffle(torch.cat([first, self.branch(second)], 1), 2)


class Decoder(nn.Module):
    """Of segmentation networks: upsampling, transposed and grouped convolution, dilation."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(4, 12, 3, 2, 2, dilation=2)
        self.groups = nn.Conv2d(12, 12, 3, 1, 1, groups=3)
        self.up = nn.ConvTranspose2d(12, 6, 4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 4, H, W] to [N, 6, 2 H, 2 W], about."""
        y = F.silu(self.up(F.leaky_relu(self.groups(self.down(x)))))
        return F.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)


BLOCKS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "residual": (Residual(), (1, 3, 12, 11)),
    "inverted_residual": (InvertedResidual(), (1, 4, 9, 8)),
    "attention": (Attention(), (1, 3, 8, 9)),
    "shuffle": (Shuffle(), (1, 8, 7, 5)),
    "decoder": (Decoder(), (1, 4, 10, 9)),
    "classifier": (
        nn.Sequential(
            nn.Conv2d(3, 20, 3, 1, 1),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(80, 10),
        ),
        (1, 3, 8, 8),
    ),
}


def main(folder: Path) -> None:
    """One ``.pyq`` a block."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    for name, (module, shape) in BLOCKS.items():
        data = [torch.randn(shape) for _ in range(4)]
        q = pyquant.quantize(module.eval(), data[0], data, progress=False)
        q.save(folder / f"{name}.pyq")
        print(f"{folder / name}.pyq: {(folder / name).with_suffix('.pyq').stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
