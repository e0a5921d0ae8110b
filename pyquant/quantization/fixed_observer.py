"""An observer for weights whose scale is decided already."""

from __future__ import annotations

from typing import Any

import torch

from pyquant.quantization import pt2e


class FixedObserver(pt2e.UniformQuantizationObserverBase):  # type: ignore[misc]
    """Gives the scale and zero point that another observer gives now, whatever it sees.

    Args:
        observer: The other one; it has seen data.
    """

    min_val: torch.Tensor
    max_val: torch.Tensor

    def __init__(self, observer: Any) -> None:
        super().__init__(
            dtype=observer.dtype,
            qscheme=observer.qscheme,
            quant_min=observer.quant_min,
            quant_max=observer.quant_max,
            is_dynamic=False,
        )
        self.ch_axis = getattr(observer, "ch_axis", -1)
        scale, zero_point = observer.calculate_qparams()
        self.register_buffer("scale", scale.detach().float().clone())
        self.register_buffer("zero_point", zero_point.detach().clone())
        self.register_buffer("min_val", (observer.quant_min - zero_point) * scale)
        self.register_buffer("max_val", (observer.quant_max - zero_point) * scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns ``x``."""
        return x

    def calculate_qparams(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The scale, float32, and the zero point, int; ``[C]`` or ``[1]`` each."""
        return self.scale, self.zero_point
