"""What stops changing towards the end of training, and when."""

from __future__ import annotations

from torch import nn

from pyquant.errors import QuantizationError
from pyquant.quantization.freezable import Freezable


def freeze_observers(prepared: nn.Module, frozen: bool = True) -> None:
    """Keeps all ranges as they are now, those of weights included; learned step sizes go on.

    Args:
        prepared: What ``prepare_qat`` returned; also inside of DDP or ``torch.compile``.
        frozen: False lets them move again.

    Raises:
        QuantizationError: There is nothing that observes.
    """
    from pyquant.quantization.fake_quantize import FakeQuantize

    _freeze(prepared, FakeQuantize, frozen)


def freeze_batch_norm(prepared: nn.Module, frozen: bool = True) -> None:
    """Lets all batch norms normalise by their running statistics, as in inference, and keeps those.

    Their factors and sums are trained further.

    Args:
        prepared: What ``prepare_qat`` returned; also inside of DDP or ``torch.compile``.
        frozen: False lets them follow the batches again.

    Raises:
        QuantizationError: ``prepared`` is not what ``prepare_qat`` returned.
    """
    from pyquant.quantization.normalized_layer import TrainedBatchNorm

    _freeze(prepared, TrainedBatchNorm, frozen)


class FreezeSchedule:
    """Freezes batch norms and observers after some steps, like a learning rate scheduler.

    Args:
        prepared: What ``prepare_qat`` returned.
        batch_norm: After how many calls of :meth:`step` batch norms freeze; ``None`` for never.
        observers: Likewise for observers.
    """

    def __init__(
        self, prepared: nn.Module, *, batch_norm: int | None = None, observers: int | None = None
    ) -> None:
        self.prepared = prepared
        self.batch_norm = batch_norm
        self.observers = observers
        self.steps = 0

    def step(self) -> None:
        """To be called after every batch, or after every epoch: that is the unit."""
        self.steps += 1
        if self.steps == self.batch_norm:
            freeze_batch_norm(self.prepared)
        if self.steps == self.observers:
            freeze_observers(self.prepared)

    def state_dict(self) -> dict[str, int]:
        """What :meth:`load_state_dict` needs; what is frozen is kept by the model's."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where another schedule was."""
        self.steps = state["steps"]


def _freeze(prepared: nn.Module, kind: type[Freezable], frozen: bool) -> None:
    found = [module for module in prepared.modules() if isinstance(module, Freezable)]
    if not found:
        raise QuantizationError("nothing here can be frozen: call prepare_qat() first")
    for module in found:
        if isinstance(module, kind):
            module.frozen = frozen
