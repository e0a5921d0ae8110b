"""A small network, and what ``pyquant export`` makes of it: two test files look at the result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from click.testing import CliRunner
from torch import nn

import pyquant
from pyquant.cli import main

CLASSES = ("ant", "bee", "cat", "dog")


class Net(nn.Module):
    """A depthwise block with a residual sum: what mobile networks are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.Hardswish())
        self.project = nn.Conv2d(16, 16, 1)
        self.classifier = nn.Linear(16, len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.project(self.depthwise(x))
        return self.classifier(x.mean((2, 3)))


@dataclass(frozen=True)
class PhoneApps:
    """``model`` as ``folder/model.pyq``, and both platforms' bundles in ``folder/out``."""

    model: pyquant.QuantizedModule
    folder: Path

    @property
    def made(self) -> Path:
        """The bundles."""
        return self.folder / "out"


def export_apps(folder: Path) -> PhoneApps:
    """By the command, from a file, as a user would; Core ML's, too, if coremltools is there."""
    torch.manual_seed(0)
    x = torch.randn(4, 3, 16, 16)
    model = pyquant.quantize(Net().eval(), x[:1], x, progress=False)
    model.save(folder / "model.pyq")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    arguments = ["export", str(folder / "model.pyq"), "--output", str(folder / "out")]
    arguments += ["--class-names", str(folder / "classes.txt"), "--preprocess", "imagenet"]
    result = CliRunner().invoke(main, [*arguments, "--largest-batch", "3"])
    assert result.exit_code == 0, result.output
    return PhoneApps(model, folder)
