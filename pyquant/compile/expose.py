"""A copy of a model of which dynamo sees every layer."""

from __future__ import annotations

import copy
import types
from typing import Any

from torch import nn

from pyquant.errors import CaptureError

_HIDDEN = "torch.nn.modules."


def exposed(model: nn.Module) -> nn.Module:
    """A copy of ``model`` with the same weights, whose layers can be compiled one by one.

    Dynamo gives up a function with a graph break inside of a loop, and then looks at the functions
    that it calls, but not at those of torch: an ``nn.Sequential`` called there would stay as it
    is. In the copy each such module has a class of its own, with a ``forward`` that is not
    torch's. Each has its own code, because dynamo limits how often one is compiled.

    Raises:
        CaptureError: The model cannot be copied.
    """
    tensors = [*model.parameters(), *model.buffers()]
    try:
        copied = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
    except Exception as error:  # a user's own __deepcopy__ may raise anything
        raise CaptureError(f"{type(model).__name__} cannot be copied: {error}") from error
    for module in copied.modules():
        kind = type(module)
        if kind.__module__.startswith(_HIDDEN) and "forward" not in module.__dict__:
            module.__class__ = _subclass(kind)
    return copied


def _subclass(kind: type[nn.Module]) -> type[nn.Module]:
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return kind.forward(self, *args, **kwargs)

    own = types.FunctionType(
        forward.__code__.replace(), forward.__globals__, "forward", None, forward.__closure__
    )
    return type(kind.__name__, (kind,), {"forward": own, "__module__": __name__})
