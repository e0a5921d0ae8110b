"""The seven networks that every benchmark runs, by name."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

NETWORKS = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "shufflenet_v2_x0_5",
    "efficientnet_v2_s",
    "efficientnet_lite0",
)
_PRETRAINED = "efficientnet_lite0"


def build(name: str) -> nn.Module:
    """A network by name, in eval mode.

    ``efficientnet_lite0`` has its real weights. The others are torchvision's with random weights
    and batch norm statistics from a few forward passes, without which activations would vanish.

    Raises:
        ValueError: torchvision has no such model.
        PyquantError: The package of ``efficientnet_lite0`` is not installed.
    """
    if name == _PRETRAINED:
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


def samples(name: str, count: int, seed: int) -> Tensor:
    """Inputs ``[count, 3, 224, 224]``: crops of photos where weights are real, else noise."""
    if name == _PRETRAINED:
        from pyquant.cli.demo_data import load_photos, random_crops

        return random_crops(load_photos(), count, seed)
    return torch.randn(count, 3, 224, 224, generator=torch.Generator().manual_seed(seed))


def import_torchvision() -> ModuleType:
    """``torchvision.models``, also where torchvision's own operators do not load.

    A torchvision built for CUDA registers fake kernels for operators that a CPU build of torch
    then misses; those registrations are skipped. Its Python code is the same.
    """
    library: Any = torch.library
    original = library.register_fake

    def register_fake(name: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(name, str) and name.startswith("torchvision::"):
            return lambda function: function
        return original(name, *args, **kwargs)

    library.register_fake = register_fake
    try:
        return importlib.import_module("torchvision.models")
    finally:
        library.register_fake = original
