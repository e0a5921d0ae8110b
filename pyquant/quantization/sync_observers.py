"""``sync_observers``: calibration that is shared out among processes."""

from __future__ import annotations

import copy
from typing import Any

import torch.distributed
from torch import fx

from pyquant.errors import QuantizationError
from pyquant.quantization.bias_correction import input_means
from pyquant.quantization.convert import observers


def sync_observers(
    prepared: fx.GraphModule, group: torch.distributed.ProcessGroup | None = None
) -> None:
    """Gives the observers of every process what those of all processes have seen.

    Each process prepares the same model and calibrates it with its own share of the data; after
    this call, which all of them make once, all ``convert`` to the same graph. With every observer
    but "moving_average", which depends on the order of batches, it is exactly the graph of one
    process that saw all data; that one's batches count in the order of ranks.

    Calibrating further and synchronising again would count the first data once per process.

    Args:
        prepared: What ``prepare`` returned, calibrated with this process's data.
        group: The processes; all by default. Any backend that gathers CPU objects, e.g. gloo.

    Raises:
        QuantizationError: ``prepared`` holds no observers, or others than pyquant's; or
            ``torch.distributed`` is not initialised.
    """
    from pyquant.quantization.fake_quantize import FakeQuantize
    from pyquant.quantization.observers import Observer

    found = {id(observer): observer for _, observer in observers(prepared)}.values()
    if not found:
        raise QuantizationError("the graph holds no observers: call prepare() first")
    for observer in found:
        if isinstance(observer, FakeQuantize):
            raise QuantizationError(
                "fake quantizers take the ranges of all processes as they train: nothing to do"
            )
        if not isinstance(observer, Observer):
            raise QuantizationError(
                f"{type(observer).__name__} cannot be merged: prepare with pyquant's observers"
            )
    if not torch.distributed.is_initialized():
        raise QuantizationError(
            "torch.distributed is not initialised: call init_process_group() first"
        )
    mergeable: list[Any] = [*found, *input_means(prepared)]
    states: list[Any] = [None] * torch.distributed.get_world_size(group)
    own = [module.state_dict() for module in mergeable]
    torch.distributed.all_gather_object(states, own, group)
    for module, *seen in zip(mergeable, *states, strict=True):
        module.reset()
        other = copy.deepcopy(module)
        for state in seen:
            other.load_state_dict(state)
            module.merge(other)
