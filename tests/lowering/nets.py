"""Small networks with the shapes of real ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# --- Small networks.


class Stem(nn.Module):
    """conv-bn-relu6."""

    def __init__(self, channels: int = 8, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.norm(self.conv(x)))
        return result


class ConvBnRelu6(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(16, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(torch.flatten(self.pool(self.stem(x)), 1))
        return result


class Residual(nn.Module):
    """A residual sum behind which the same in-place ReLU stands as within the block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        result: Tensor = self.relu(x + self.second(self.relu(self.first(x))))
        return result


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(12)
        self.depthwise = nn.Conv2d(12, 12, 3, 2, 1, groups=12)
        self.project = nn.Conv2d(12, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.project(F.relu6(self.depthwise(self.stem(x))))
        return result


class Padded(nn.Module):
    """TensorFlow's asymmetric "same" padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.conv = nn.Conv2d(8, 9, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = F.relu(self.conv(F.pad(self.stem(x), (0, 1, 0, 1))))
        return result


class Pools(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.conv = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        x = F.avg_pool2d(self.conv(x), 2)
        x = F.adaptive_avg_pool2d(x, 2)
        result: Tensor = self.head(torch.flatten(x, 1))
        return result


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(33, 20), nn.ReLU(), nn.Linear(20, 7, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.conv = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        return self.conv(x), F.max_pool2d(x, 2)


IMAGE = (torch.randn(2, 3, 17, 14, generator=torch.Generator().manual_seed(1)),)
NETS: dict[str, tuple[type[nn.Module], tuple[Tensor, ...]]] = {
    "conv-bn-relu6": (ConvBnRelu6, IMAGE),
    "residual": (Residual, IMAGE),
    "depthwise": (Depthwise, IMAGE),
    "padded": (Padded, IMAGE),
    "pools": (Pools, IMAGE),
    "mlp": (Mlp, (torch.randn(3, 33, generator=torch.Generator().manual_seed(2)),)),
    "two outputs": (TwoOutputs, IMAGE),
}
