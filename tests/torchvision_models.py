"""torchvision's model definitions beside a CPU build of torch.

Only a CUDA build of torchvision fits; its Python code is fine, but its import registers fake
kernels for operators that are then missing. Tests skip those registrations; the library never does.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch


def import_torchvision() -> ModuleType:
    """``torchvision.models``, whatever build of torchvision is installed."""
    original = torch.library.register_fake

    def register_fake(name: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(name, str) and name.startswith("torchvision::"):
            return lambda function: function
        return original(name, *args, **kwargs)

    torch.library.register_fake = register_fake
    try:
        return importlib.import_module("torchvision.models")
    finally:
        torch.library.register_fake = original


def build(name: str, seed: int = 0) -> torch.nn.Module:
    """A model with random weights and plausible batch norm statistics, in eval mode."""
    models = import_torchvision()
    torch.manual_seed(seed)
    model: torch.nn.Module = getattr(models, name)(weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            module.reset_running_stats()
    model.train()
    with torch.no_grad():
        model(torch.randn(4, 3, 96, 96))
    return model.eval()
