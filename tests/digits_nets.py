"""Small networks in three styles, trained on scikit-learn's digits: int8 has something to lose.

Training is deterministic on one machine, and takes some seconds; the weights are kept in
``~/.cache/pyquant/digits`` until this file or torch changes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import sklearn.datasets
import sklearn.model_selection
import torch
from torch import Tensor, nn
from torch.nn import functional as F

_SIZE = 32
_CLASSES = 10
_EPOCHS = 8
_BATCH = 64
_PEAK_RATE = 4e-3


@dataclass(frozen=True)
class Digits:
    """float32 images ``[N, 1, 32, 32]`` in -1..1, and int64 labels ``[N]``."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def accuracy(self, model: Callable[[Tensor], Tensor]) -> float:
        """The share of the held-out images that ``model`` gets right, 0..1."""
        with torch.inference_mode():
            found = torch.cat([model(batch).argmax(1) for batch in self.test_images.split(100)])
        return float((found == self.test_labels).float().mean())


@cache
def load_digits() -> Digits:
    """1797 handwritten digits, two fifths of them held out."""
    bunch = sklearn.datasets.load_digits()
    small = torch.from_numpy(bunch.images).float()[:, None] / 8 - 1
    images = F.interpolate(small, size=(_SIZE, _SIZE), mode="bilinear")
    labels = torch.from_numpy(bunch.target)
    train, test = sklearn.model_selection.train_test_split(
        range(len(labels)), test_size=0.4, random_state=0, stratify=bunch.target
    )
    return Digits(images[train], labels[train], images[test], labels[test])


def _convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    activation: Callable[[], nn.Module],
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        activation(),
    )


def _head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, _CLASSES))


class BasicBlock(nn.Module):
    """ResNet's: two 3x3 convolutions beside an identity or a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(inputs, outputs, 3, nn.ReLU, stride),
            _convolution(outputs, outputs, 3, nn.Identity),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = (
            nn.Identity() if same else _convolution(inputs, outputs, 1, nn.Identity, stride)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class SqueezeExcite(nn.Module):
    """A factor per channel, from the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 4
        self.factors = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x * self.factors(x)
        return result


class InvertedResidual(nn.Module):
    """MobileNet's: expand, depthwise, (squeeze and excite,) project; a sum if the shapes allow."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        activation: Callable[[], nn.Module],
        excite: bool = False,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        hidden = 4 * inputs
        self.body = nn.Sequential(
            _convolution(inputs, hidden, 1, activation),
            _convolution(hidden, hidden, kernel, activation, stride, hidden),
            SqueezeExcite(hidden) if excite else nn.Identity(),
            _convolution(hidden, outputs, 1, nn.Identity),
        )
        self.residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.body(x)
        return x + result if self.residual else result


def resnet() -> nn.Module:
    """Four blocks of 16 to 64 channels."""
    return nn.Sequential(
        _convolution(1, 16, 3, nn.ReLU, 2),
        BasicBlock(16, 16, 1),
        BasicBlock(16, 32, 2),
        BasicBlock(32, 32, 1),
        BasicBlock(32, 64, 2),
        _head(64),
    )


def mobilenet_v2() -> nn.Module:
    """Five inverted residuals with ReLU6."""
    block = partial(InvertedResidual, activation=nn.ReLU6)
    return nn.Sequential(
        _convolution(1, 16, 3, nn.ReLU6, 2),
        block(16, 16, 1),
        block(16, 24, 2),
        block(24, 24, 1),
        block(24, 40, 2),
        block(40, 40, 1),
        _convolution(40, 96, 1, nn.ReLU6),
        _head(96),
    )


def mobilenet_v3() -> nn.Module:
    """Five inverted residuals: first ReLU, then hardswish; some with squeeze-and-excitation."""
    return nn.Sequential(
        _convolution(1, 16, 3, nn.Hardswish, 2),
        InvertedResidual(16, 16, 1, nn.ReLU, excite=True),
        InvertedResidual(16, 24, 2, nn.ReLU),
        InvertedResidual(24, 24, 1, nn.Hardswish, excite=True, kernel=5),
        InvertedResidual(24, 40, 2, nn.Hardswish, excite=True, kernel=5),
        InvertedResidual(40, 40, 1, nn.Hardswish, excite=True, kernel=5),
        _convolution(40, 96, 1, nn.Hardswish),
        _head(96),
    )


NETS: dict[str, Callable[[], nn.Module]] = {
    "resnet": resnet,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
}


@cache
def trained(name: str) -> nn.Module:
    """The network of :data:`NETS`, trained, in eval mode; the same instance for the same name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = NETS[name]()
        file = _cache_file(name)
        if file.exists():
            net.load_state_dict(torch.load(file, weights_only=True))
        else:
            _train(net, load_digits())
            _save(net, file)
    return net.eval()


def _train(net: nn.Module, digits: Digits) -> None:
    """AdamW with one cycle of the learning rate, on one thread: the same weights every time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = _EPOCHS * (len(digits.train_labels) // _BATCH)
        optimizer = torch.optim.AdamW(net.parameters(), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, total_steps=steps)
        net.train()
        for _ in range(_EPOCHS):
            order = torch.randperm(len(digits.train_labels))
            for batch in order[: len(order) // _BATCH * _BATCH].split(_BATCH):
                scores = net(digits.train_images[batch])
                loss = F.cross_entropy(scores, digits.train_labels[batch], label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    finally:
        torch.set_num_threads(threads)


def _cache_file(name: str) -> Path:
    """A new one whenever this file or torch changes."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    source = Path(__file__).read_text(encoding="utf-8") + torch.__version__
    key = hashlib.sha256(source.encode()).hexdigest()[:16]
    return Path(base) / "pyquant" / "digits" / f"{name}-{key}.pt"


def _save(net: nn.Module, file: Path) -> None:
    """In one piece: of two processes that train at once, the second replaces the first's file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    os.close(handle)
    try:
        torch.save(net.state_dict(), temporary)
        Path(temporary).replace(file)
    finally:
        Path(temporary).unlink(missing_ok=True)
