"""The observers by name: torchao's, made safe for tensors and channels that are all zero.

With torchao's own observers such a tensor gets the scale 1.2e-7, and int32 biases and
requantization multipliers computed from it overflow.
"""

from __future__ import annotations

from typing import Any

import torch

from pyquant import _C
from pyquant.quantization import pt2e
from pyquant.quantization.config import REALS, Interval, ObserverName


class _ZeroRange:
    """Gives a per-tensor observer that saw nothing but zeros the scale 1."""

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scale, float32 ``[1]``, and zero point, int ``[1]``, from what was observed."""
        observer: Any = self
        scale, zero_point = super().calculate_qparams()  # type: ignore[misc]
        if float(observer.min_val) == 0.0 == float(observer.max_val):
            scale = torch.ones_like(scale)
        return scale, zero_point


class _Saturating:
    """Lets a per-tensor observer see values outside of ``interval`` as its bounds."""

    def __init__(self, *args: Any, interval: Interval = REALS, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.interval = interval

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Observes the float32 tensor ``x`` and returns it as it is."""
        seen = x if self.interval == REALS else x.detach().clamp(*self.interval)
        super().forward(seen)  # type: ignore[misc]
        return x


class HistogramObserver(_Saturating, _ZeroRange, pt2e.HistogramObserver):  # type: ignore[misc]
    """The range that minimises the squared quantization error over a histogram."""


class MinMaxObserver(_Saturating, _ZeroRange, pt2e.MinMaxObserver):  # type: ignore[misc]
    """Smallest and largest value seen."""


class MovingAverageObserver(_Saturating, _ZeroRange, pt2e.MovingAverageMinMaxObserver):  # type: ignore[misc]
    """Exponential moving averages of each batch's smallest and largest value."""


class PerChannelWeightObserver(pt2e.PerChannelMinMaxObserver):  # type: ignore[misc]
    """Symmetric scale of least squared error per output channel; channels of zeros get the
    largest scale of the others.
    """

    weight: torch.Tensor | None = None

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Observes ``weight``, float32 ``[C, ...]``, and returns it."""
        # It is a constant: batches after the first show it again. After a batch that failed the
        # statistics may have been put back to nothing.
        if weight is not self.weight or self.min_val.numel() == 0:
            super().forward(weight)
            object.__setattr__(self, "weight", weight)
        return weight

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scales, float32 ``[C]``, and zero points, int ``[C]``, all 0."""
        scale, zero_point = super().calculate_qparams()
        if self.weight is None:
            return scale, zero_point
        return _C.least_squares_scales(self.weight.detach().contiguous()), zero_point


#: Per-tensor observers for activations. Adding an observer: a name in ``ObserverName``, a row here.
ACTIVATION_OBSERVERS: dict[ObserverName, type[Any]] = {
    "histogram": HistogramObserver,
    "minmax": MinMaxObserver,
    "moving_average": MovingAverageObserver,
}
