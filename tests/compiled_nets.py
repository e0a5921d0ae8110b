"""Networks for the tests of ``torch.compile`` with pyquant, and what most of these do."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import pyquant
from pyquant.analysis.sqnr import sqnr

SIZE = 8


class Plain(nn.Module):
    """Can be exported."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Branching(nn.Module):
    """The brightness of the image decides which convolution runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bright = nn.Conv2d(8, 8, 3, padding=1)
        self.dark = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x).relu()
        y = self.bright(y) if x.mean() > 0 else self.dark(y)
        return self.head(y.relu().mean((2, 3)))


@torch._dynamo.disable
def through_numpy(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.flip(x.numpy(), axis=-1).copy())


class ThirdParty(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 3, padding=1)
        self.after = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(through_numpy(self.before(x).relu()))


def make(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return kind().eval()


def images(count: int = 4, shift: float = 0.0, seed: int = 1, size: int = SIZE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator) + shift


def quantized(
    model: nn.Module, *batches: torch.Tensor, strict: bool = True
) -> pyquant.CompiledModel:
    quantizer = pyquant.CompiledQuantizer(model, strict=strict)
    with torch.no_grad():
        for batch in batches:
            torch.testing.assert_close(quantizer(batch), model(batch))
    return quantizer.convert()


def check_close(model: nn.Module, q: nn.Module, x: torch.Tensor, at_least: float = 25.0) -> None:
    with torch.no_grad():
        expected = model(x)
        actual = q(x)
    assert not torch.equal(actual, expected), "it is not quantized"
    assert sqnr(expected, actual) > at_least
