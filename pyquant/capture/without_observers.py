"""Models that ``torch.ao.quantization`` prepared, for calibration or training, as float models."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

_OBSERVERS = ("ObserverBase", "FakeQuantizeBase")
_QAT_PACKAGES = ("torch.ao.nn.qat", "torch.ao.nn.intrinsic.qat")


def without_observers(model: nn.Module) -> nn.Module:
    """The float model inside of one that torch.ao prepared.

    Observers and fake quantization become identities, QAT modules the float modules with their
    weights (batch norms folded, as torch.ao converts them).

    Args:
        model: Anything; float models are handed back as they are.

    Returns:
        ``model`` itself, or a copy that shares its parameters and buffers.
    """
    if not isinstance(model, nn.Module) or all(map(_is_float, model.modules())):
        return model
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return _replaced(copy.deepcopy(model, shared), {})


def _replaced(module: nn.Module, done: dict[int, nn.Module]) -> nn.Module:
    """The float stand-in of ``module``, or itself with replaced children."""
    if id(module) not in done:
        done[id(module)] = module
        if _is_observer(module):
            done[id(module)] = nn.Identity()
        elif _is_qat(module):
            source: Any = module
            done[id(module)] = source.to_float()
        else:
            for name, child in list(module._modules.items()):  # named_children skips repetitions
                if child is not None:
                    setattr(module, name, _replaced(child, done))
    return done[id(module)]


def _is_float(module: nn.Module) -> bool:
    return not (_is_observer(module) or _is_qat(module))


def _is_observer(module: nn.Module) -> bool:
    return any(
        base.__name__ in _OBSERVERS and base.__module__.startswith("torch.ao.quantization")
        for base in type(module).__mro__
    )


def _is_qat(module: nn.Module) -> bool:
    return any(base.__module__.startswith(_QAT_PACKAGES) for base in type(module).__mro__)
