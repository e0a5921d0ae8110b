"""The observers by name: they see tensors pass, and choose the scale and zero point for them.

They are torchao observers, so any PT2E quantizer can use them::

    QuantizationSpec(dtype=torch.int8, observer_or_fake_quant_ctr=EntropyObserver.with_args(), ...)

The work is done in C++ (``csrc/observers``), in one pass over the data and constant memory. Of
float16, bfloat16 and float64 values their float32 form counts. Every observer can take over what
another one of its kind has seen (``merge``), and its ``state_dict`` holds all that it knows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from pyquant import _C
from pyquant.errors import CalibrationError, InvalidInputError
from pyquant.quantization import pt2e
from pyquant.quantization.config import REALS, Interval, ObserverName

if TYPE_CHECKING:
    from typing_extensions import Self

_Range: TypeAlias = tuple[Tensor, Tensor]
_PER_CHANNEL = (torch.per_channel_affine, torch.per_channel_symmetric)


class Observer(pt2e.UniformQuantizationObserverBase):  # type: ignore[misc]
    """What all observers share.

    Args:
        dtype: Of the quantized values: torch.int8 or torch.uint8, or their older names.
        qscheme: Affine or symmetric, per tensor or, in classes named ``PerChannel...``, per
            channel. 0 is on every grid.
        quant_min: The smallest quantized value; that of ``dtype`` if ``None``.
        quant_max: The largest one, likewise.
        ch_axis: The dimension of the channels, if the scheme is per channel.
        interval: Values outside are seen as its bounds: nothing that reads the tensor tells them
            apart.

    Attributes:
        min_val: Smallest value seen, float32 ``[]`` or per channel ``[C]``; infinity before any.
        max_val: Largest value seen, likewise; minus infinity before any. ``[0]`` per channel.
    """

    min_val: Tensor
    max_val: Tensor

    def __init__(
        self,
        dtype: torch.dtype = torch.int8,
        qscheme: torch.qscheme = torch.per_tensor_affine,
        quant_min: int | None = None,
        quant_max: int | None = None,
        ch_axis: int = 0,
        interval: Interval = REALS,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            dtype=dtype, qscheme=qscheme, quant_min=quant_min, quant_max=quant_max, **kwargs
        )
        self.ch_axis = ch_axis
        self.interval = interval
        self.reset()

    @property
    def per_channel(self) -> bool:
        """Whether every channel has its own scale."""
        return self.qscheme in _PER_CHANNEL

    def reset(self) -> None:
        """Forgets all that was seen."""
        self._allocate((0,) if self.per_channel else ())

    def forward(self, x: Tensor) -> Tensor:
        """Observes ``x``, a float tensor of any shape, and returns it as it is.

        Raises:
            InvalidInputError: ``x`` holds NaN or infinity (as float32), or has another number of
                channels than before. The observer is then as it was before.
        """
        if x.numel():
            rows = self._rows(x.detach())
            if self.per_channel and not self.min_val.numel():
                self._allocate((len(rows),))
            if len(rows) != max(self.min_val.numel(), 1):
                raise InvalidInputError(
                    f"an observer of {self.min_val.numel()} channels was given {len(rows)}"
                )
            self._observe(rows)
        return x

    def calculate_qparams(self, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Scale, float32, and zero point, int64: ``[1]``, or ``[C]`` per channel.

        Raises:
            CalibrationError: Nothing was observed.
        """
        if not self.min_val.numel() or bool((self.min_val > self.max_val).any()):
            raise CalibrationError("an observer has seen no data: run the model on real inputs")
        low, high = self._range()
        return _C.qparams(low.reshape(-1), high.reshape(-1), self._grid())

    def merge(self, other: Self) -> None:
        """Takes over what ``other``, an observer of the same kind, has seen after this one."""
        if other.min_val.numel() and not bool((other.min_val > other.max_val).any()):
            if not self.min_val.numel():
                self._allocate(tuple(other.min_val.shape))
            self._merge(other)

    def _rows(self, x: Tensor) -> Tensor:
        return rows_of(x, self.ch_axis if self.per_channel else None)

    def _grid(self) -> _C.Grid:
        symmetric = self.qscheme in (torch.per_tensor_symmetric, torch.per_channel_symmetric)
        return _C.Grid(self.quant_min, self.quant_max, symmetric)

    def _interval(self) -> _C.Interval:
        return _C.Interval(*self.interval)

    def _allocate(self, shape: tuple[int, ...]) -> None:
        for name, value in self._empty_state(shape).items():
            self.register_buffer(name, value)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        for name in self._empty_state(()):
            if prefix + name in state_dict:  # per channel, the shape is not known before
                self.register_buffer(name, torch.empty_like(state_dict[prefix + name]))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _empty_state(self, shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {
            "min_val": torch.full(shape, math.inf),
            "max_val": torch.full(shape, -math.inf),
        }

    def _observe(self, rows: Tensor) -> None:
        raise NotImplementedError

    def _merge(self, other: Self) -> None:
        raise NotImplementedError

    def _range(self) -> _Range:
        return self.min_val, self.max_val


def rows_of(x: Tensor, axis: int | None) -> Tensor:
    """Values as float32: ``[C, n]`` by dimension ``axis``; else ``[1, n]``, any order."""
    values = x.to(device="cpu", dtype=torch.float32)
    if axis is not None:
        return values.movedim(axis, 0).flatten(1).contiguous()
    if values.is_contiguous():
        return values.view(1, -1)
    # In the order of memory, which of a channels_last tensor needs no copy.
    order = sorted(range(values.dim()), key=values.stride, reverse=True)
    return values.permute(order).reshape(1, -1).contiguous()


class MinMaxObserver(Observer):
    """Smallest and largest value seen: clips nothing that calibration showed."""

    def _observe(self, rows: Tensor) -> None:
        self._widen(*_C.observe_min_max(rows, self._interval()))

    def _merge(self, other: Self) -> None:
        self._widen(other.min_val, other.max_val)

    def _widen(self, low: Tensor, high: Tensor) -> None:
        torch.minimum(self.min_val, low.view_as(self.min_val), out=self.min_val)
        torch.maximum(self.max_val, high.view_as(self.max_val), out=self.max_val)


class MovingAverageObserver(Observer):
    """Exponential moving averages of each batch's smallest and largest value.

    They depend on the order of the batches; ``merge`` gives what this observer's batches followed
    by the other's would have given, but for rounding.

    Args:
        averaging_constant: The weight of a new batch.
    """

    first_min: Tensor
    first_max: Tensor
    batches: Tensor

    def __init__(self, *args: Any, averaging_constant: float = 0.01, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.averaging_constant = averaging_constant

    def _empty_state(self, shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {
            **super()._empty_state(shape),
            "first_min": torch.zeros(shape),
            "first_max": torch.zeros(shape),
            "batches": torch.zeros((), dtype=torch.int64),
        }

    def _observe(self, rows: Tensor) -> None:
        low, high = _C.observe_min_max(rows, self._interval())
        low, high = low.view_as(self.min_val), high.view_as(self.max_val)
        if not self.batches:
            for target, value in zip(self._averages(), (low, high, low, high), strict=True):
                target.copy_(value)
        else:
            self.min_val += self.averaging_constant * (low - self.min_val)
            self.max_val += self.averaging_constant * (high - self.max_val)
        self.batches += 1

    def _merge(self, other: Self) -> None:
        if not self.batches:
            for target, value in zip(self._averages(), other._averages(), strict=True):
                target.copy_(value)
        else:
            # The other's average, with its first batch averaged into this one's.
            weight = (1 - self.averaging_constant) ** int(other.batches)
            self.min_val.copy_(other.min_val + weight * (self.min_val - other.first_min))
            self.max_val.copy_(other.max_val + weight * (self.max_val - other.first_max))
        self.batches += other.batches

    def _averages(self) -> tuple[Tensor, ...]:
        return self.min_val, self.max_val, self.first_min, self.first_max


class HistogramObserver(Observer):
    """The range of least squared quantization error, by a histogram of all values.

    The histogram (``csrc/observers/histogram.h``) depends on the values alone: neither on their
    order nor on how they were split among observers that were merged. A value 2048 times as large
    as most others leaves those no more than a bin or two.

    Attributes:
        counts: int64 ``[bins]``, or ``[C, bins]`` per channel. The bin in the middle begins at 0.
        exponent: int32 ``[]`` or ``[C]``: all bins have the width ``2 ** exponent``.
    """

    counts: Tensor
    exponent: Tensor

    def _empty_state(self, shape: tuple[int, ...]) -> dict[str, Tensor]:
        return {
            **super()._empty_state(shape),
            "counts": torch.zeros((*shape, _C.HISTOGRAM_BINS), dtype=torch.int64),
            "exponent": torch.full(shape, _C.SMALLEST_EXPONENT, dtype=torch.int32),
        }

    @property
    def _state(self) -> _C.HistogramState:
        return self.counts, self.exponent, self.min_val, self.max_val

    def _observe(self, rows: Tensor) -> None:
        _C.observe_histogram(self._state, rows, self._interval())

    def _merge(self, other: Self) -> None:
        _C.merge_histograms(self._state, other._state)

    def _range(self) -> _Range:
        return _C.least_squares_range(self._state, self._grid())


class EntropyObserver(HistogramObserver):
    """The range that loses least information (Kullback-Leibler divergence), as in TensorRT."""

    def _range(self) -> _Range:
        return _C.entropy_range(self._state, self._grid())


class PercentileObserver(HistogramObserver):
    """The range of all values but a few at its ends, as in ONNX Runtime.

    Args:
        percentile: How many values lie within, in percent.
    """

    def __init__(self, *args: Any, percentile: float = 99.999, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.percentile = percentile

    def _range(self) -> _Range:
        return _C.percentile_range(self._state, self._grid(), self.percentile)


class WeightObserver(MinMaxObserver):
    """Symmetric scales of least squared error for a weight, -127..127; channels of zeros get the
    largest scale of the others.

    It looks at a weight when it sees it for the first time, and at its values once more when
    asked for the scale.
    """

    weight: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Observes the weight ``x``, float32 ``[C, ...]`` or ``[..., C, ...]``, and returns it."""
        # It is a constant: batches after the first show it again.
        if x is not self.weight or not self.min_val.numel():
            self.reset()
            super().forward(x)
            object.__setattr__(self, "weight", x)  # not a parameter of the observer's own
        return x

    def calculate_qparams(self, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Scales, float32 ``[C]`` or ``[1]``, and zero points, int64, all 0."""
        if self.weight is None:
            return super().calculate_qparams()
        scales = _C.least_squares_scales(self._rows(self.weight.detach()))
        return scales, torch.zeros(scales.shape, dtype=torch.int64)


class _PerChannel(Observer):
    """Per channel by default. torchao passes ``ch_axis`` to classes with PerChannel in the name."""

    def __init__(
        self,
        dtype: torch.dtype = torch.int8,
        qscheme: torch.qscheme = torch.per_channel_affine,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype, qscheme, **kwargs)


class PerChannelMinMaxObserver(_PerChannel, MinMaxObserver):
    """:class:`MinMaxObserver` for every channel."""


class PerChannelMovingAverageObserver(_PerChannel, MovingAverageObserver):
    """:class:`MovingAverageObserver` for every channel."""


class PerChannelHistogramObserver(_PerChannel, HistogramObserver):
    """:class:`HistogramObserver` for every channel: 32 KiB each."""


class PerChannelEntropyObserver(_PerChannel, EntropyObserver):
    """:class:`EntropyObserver` for every channel: 32 KiB each."""


class PerChannelPercentileObserver(_PerChannel, PercentileObserver):
    """:class:`PercentileObserver` for every channel: 32 KiB each."""


class PerChannelWeightObserver(_PerChannel, WeightObserver):
    """:class:`WeightObserver` for every channel."""


#: Per-tensor observers for activations. Adding an observer: a name in ``ObserverName``, a row here.
#: torch calls the criterion of least squared error "histogram", others "mse".
ACTIVATION_OBSERVERS: dict[ObserverName, type[Observer]] = {
    "histogram": HistogramObserver,
    "mse": HistogramObserver,
    "entropy": EntropyObserver,
    "percentile": PercentileObserver,
    "minmax": MinMaxObserver,
    "moving_average": MovingAverageObserver,
}
