"""Fake quantizers: they stand where ``prepare`` puts observers, and round what passes.

They are observers, so the same quantizer places them and the same ``convert`` reads them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, distributed, nn

from pyquant.errors import CalibrationError, InvalidInputError
from pyquant.quantization.fake_quantize_op import (
    extremes_of_all_processes,
    fake_quantize,
    observe_fake_quantize,
)
from pyquant.quantization.freezable import Freezable
from pyquant.quantization.observers import Observer

_SMALLEST_SCALE = 2.0**-23
_SYMMETRIC = (torch.per_tensor_symmetric, torch.per_channel_symmetric)


class FakeQuantize(Freezable, Observer):
    """Rounds an activation to the grid of the range that it has in training.

    In train mode every pass moves the range; gradients pass straight through what was not clamped.
    In eval mode, and when frozen, the range stays. Where ``torch.distributed`` is initialised, each
    pass in train mode takes the extremes of all processes, as ``SyncBatchNorm`` does, so all of
    them must make it. Before the first one values pass as they are.

    Args:
        averaging_constant: The weight of a new batch; ``None`` takes the extremes of all.
        learned: The scale is a parameter with the gradient of LSQ. It starts from the first range.
        learned_offset: So is the real number that the integer 0 stands for, as in LSQ+; the zero
            point is ``round(-offset / scale)``.

    Attributes:
        scale: float32 ``[1]`` or ``[C]``; infinity before any data.
        zero_point: int64, likewise.
    """

    scale: Tensor
    zero_point: Tensor
    offset: Tensor
    quant_min: int
    quant_max: int
    #: What an error message calls the tensor.
    label = ""
    #: Whether processes see different tensors.
    synchronize = True

    def __init__(
        self,
        *args: Any,
        averaging_constant: float | None = 0.01,
        learned: bool = False,
        learned_offset: bool = False,
        **kwargs: Any,
    ) -> None:
        self.learned = learned
        self.learned_offset = learned_offset
        self.averaging_constant = averaging_constant
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Forgets all that was seen."""
        super().reset()
        self.started = False

    def forward(self, x: Tensor) -> Tensor:
        """``x``, a float tensor of any shape, rounded to the grid.

        Raises:
            InvalidInputError: It holds NaN or infinity, and is observed.
        """
        if x.numel() == 0:
            return x
        values = x.float()
        if not self._observes():
            result = self._round(values)
        elif not self.learned:
            result = self._observe_and_round(values)
        else:
            with torch.no_grad():
                self._observe_and_round(values)
                if self.learned_offset:
                    self.offset.copy_(-self.zero_point * self.scale)
            self.started = True
            result = self._round(values)
        return result.to(x.dtype)

    def calculate_qparams(self, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Scale, float32, and zero point, int64: ``[1]``, or ``[C]`` per channel.

        Raises:
            CalibrationError: Nothing was observed.
        """
        scale = self._scale().detach()
        if not scale.numel() or bool(torch.isinf(scale).any()):
            raise CalibrationError("a fake quantizer has seen no data: train the model first")
        return scale, self._zero_point().detach().round().long()

    def get_extra_state(self) -> Tensor:
        """The flags as a tensor."""
        return torch.tensor([self.frozen, self.started])

    def set_extra_state(self, state: Tensor) -> None:
        """Takes what :meth:`get_extra_state` gave."""
        self.frozen, self.started = state.tolist()

    @property
    def _axis(self) -> int | None:
        return self.ch_axis if self.per_channel else None

    def _observes(self) -> bool:
        return self.training and not self.frozen and not (self.learned and self.started)

    def _observe_and_round(self, values: Tensor) -> Tensor:
        if self.per_channel and not self.min_val.numel():
            self._allocate((values.shape[self.ch_axis],))
        extremes = None
        # Inductor loses what an operator writes into a parameter.
        scale = torch.empty_like(self.scale) if self.learned else self.scale
        try:
            if self.synchronize and distributed.is_available() and distributed.is_initialized():
                extremes = extremes_of_all_processes(values, *self.interval, self._axis)
            result: Tensor = observe_fake_quantize(
                values,
                self.min_val,
                self.max_val,
                scale,
                self.zero_point,
                extremes,
                *self.interval,
                self.averaging_constant,
                self.quant_min,
                self.quant_max,
                self.qscheme in _SYMMETRIC,
                self._axis,
            )[0]
        except ValueError as error:
            raise InvalidInputError(
                f"NaN or infinity in training, in '{self.label}': a lower learning rate or clipped "
                "gradients may help"
            ) from error
        if self.learned:
            self.scale.copy_(scale)
        return result

    def _round(self, values: Tensor) -> Tensor:
        result: Tensor = fake_quantize(
            values,
            self._scale(),
            self._zero_point(),
            self.quant_min,
            self.quant_max,
            self._axis,
            self._features(values),
        )[0]
        return result

    def _scale(self) -> Tensor:
        scale: Tensor = self.scale
        return scale.abs().clamp(min=_SMALLEST_SCALE) if self.learned else scale

    def _zero_point(self) -> Tensor:
        """int64; or float32, with a gradient."""
        if not (self.learned_offset and self.started):
            return self.zero_point
        return (-self.offset / self._scale()).clamp(self.quant_min, self.quant_max)

    def _features(self, values: Tensor) -> int:
        return values.numel() // values.shape[0] if values.dim() else 1

    def _empty_state(self, shape: tuple[int, ...]) -> dict[str, Tensor]:
        grid = shape or (1,)
        offset = {"offset": torch.zeros(grid)} if self.learned_offset else {}
        return {
            **super()._empty_state(shape),
            "scale": torch.full(grid, math.inf),
            "zero_point": torch.zeros(grid, dtype=torch.int64),
            **offset,
        }

    def _allocate(self, shape: tuple[int, ...]) -> None:
        for name, value in self._empty_state(shape).items():
            if self.learned and name in ("scale", "offset"):
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def _load_from_state_dict(self, *args: Any) -> None:
        # All shapes are known: the scales of weights are found in prepare_qat.
        nn.Module._load_from_state_dict(self, *args)


class WeightFakeQuantize(FakeQuantize):
    """Rounds a weight to the grid of its own range, symmetric, as it is now.

    In eval mode as well: the optimizer has changed the weight since the last pass in train mode.
    """

    synchronize = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, averaging_constant=1.0, **kwargs)

    def _observes(self) -> bool:
        return not self.frozen and not (self.learned and self.started)

    def _features(self, values: Tensor) -> int:
        return values.numel() // self.scale.numel()


class PerChannelWeightFakeQuantize(WeightFakeQuantize):
    """:class:`WeightFakeQuantize` with a scale for every channel."""

    def __init__(
        self,
        dtype: torch.dtype = torch.int8,
        qscheme: torch.qscheme = torch.per_channel_symmetric,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype, qscheme, **kwargs)
