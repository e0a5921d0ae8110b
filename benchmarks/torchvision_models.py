"""torchvision's model definitions, whatever build of torchvision stands beside torch."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import nn


def import_torchvision() -> ModuleType:
    """``torchvision.models``, also where torchvision's own operators do not load.

    A torchvision built for CUDA registers fake kernels for operators that a CPU build of torch
    then misses; those registrations are skipped. Its Python code is the same.
    """
    original = torch.library.register_fake

    def register_fake(name: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(name, str) and name.startswith("torchvision::"):
            return lambda function: function
        return original(name, *args, **kwargs)

    torch.library.register_fake = register_fake  # type: ignore[assignment]
    try:
        return importlib.import_module("torchvision.models")
    finally:
        torch.library.register_fake = original


def build(name: str) -> nn.Module:
    """A network by name, in eval mode.

    ``efficientnet_lite0`` has its real weights. The others are torchvision's with random weights
    and batch norm statistics from a few forward passes, without which activations would vanish.
    """
    if name == "efficientnet_lite0":
        from pyquant.cli.demo_data import load_network

        return load_network()
    torch.manual_seed(0)
    model: nn.Module = import_torchvision().get_model(name, weights=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain average over the passes
            module.reset_running_stats()
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(4, 3, 224, 224))
    return model.eval()
