"""Small models in the style of ``torch.ao.quantization``, and their conversion by it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import DeQuantStub, QuantStub

ENGINES = [
    name
    for name in ("x86", "fbgemm", "onednn", "qnnpack")
    if name in torch.backends.quantized.supported_engines
]


@contextmanager
def engine(name: str) -> Iterator[None]:
    """torch's quantized engine for a while."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


class Residual(nn.Module):
    """A residual block between stubs, with a head; fusable."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv1, self.bn1, self.relu1 = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.relu2 = nn.ReLU(inplace=True)
        self.sum = FloatFunctional()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(self.quant(x))))
        x = self.sum.add(x, self.relu2(self.conv2(x)))
        return self.dequant(self.head(torch.flatten(self.pool(x), 1)))

    def fuse(self, training: bool = False) -> Residual:
        """conv1, bn1 and relu1 as one module."""
        fuse = torch.ao.quantization.fuse_modules
        if training:
            fuse = torch.ao.quantization.fuse_modules_qat
        with silent():
            fuse(self, [["conv1", "bn1", "relu1"]], inplace=True)
        return self


class Plain(nn.Module):
    """:class:`Residual` without stubs, of the same parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = x + torch.relu(self.conv2(x))
        return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


class Calls(nn.Module):
    """``function(functional, x)`` with a ``FloatFunctional``."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.functional = FloatFunctional()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.functional, x)


@contextmanager
def silent() -> Iterator[None]:
    """torch.ao warns that it is deprecated, at every call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def between_stubs(*modules: nn.Module) -> nn.Sequential:
    """The modules, quantized in front and dequantized behind."""
    return nn.Sequential(QuantStub(), *modules, DeQuantStub()).eval()


def prepare(model: nn.Module, data: Tensor | None = None, name: str | None = None) -> nn.Module:
    """``torch.ao.quantization.prepare``, and perhaps calibrated."""
    with silent():
        qconfig = torch.ao.quantization.get_default_qconfig(name or torch.backends.quantized.engine)
        model.qconfig = qconfig  # type: ignore[assignment]
        prepared: nn.Module = torch.ao.quantization.prepare(model.eval())
        if data is not None:
            prepared(data)
    return prepared


def convert(model: nn.Module, data: Tensor, name: str | None = None) -> nn.Module:
    """Prepares, calibrates and converts with eager mode."""
    prepared = prepare(model, data, name)
    with silent():
        converted: nn.Module = torch.ao.quantization.convert(prepared)
    return converted


def convert_fx(model: nn.Module, data: Tensor, *, reference: bool = False) -> nn.Module:
    """The same with FX graph mode."""
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

    with silent():
        mapping = get_default_qconfig_mapping(torch.backends.quantized.engine)
        prepared = quantize_fx.prepare_fx(model.eval(), mapping, (data,))
        prepared(data)
        if reference:
            return quantize_fx.convert_to_reference_fx(prepared)
        return quantize_fx.convert_fx(prepared)
