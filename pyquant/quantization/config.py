"""What a user may choose about quantization."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch

from pyquant.errors import QuantizationError

#: From the lowest to the highest real number of interest.
Interval: TypeAlias = tuple[float, float]
REALS: Interval = (-math.inf, math.inf)
ObserverName: TypeAlias = Literal[
    "histogram", "mse", "entropy", "percentile", "minmax", "moving_average"
]


@dataclass(frozen=True)
class QuantizationConfig:
    """How ranges are found and weights are scaled.

    Activations are always int8 affine per tensor, -128..127, all eight bits; weights int8
    symmetric, -127..127; biases stay float in the graph.

    Attributes:
        observer: How activation ranges are found: "histogram" (least squared error; may clip
            outliers), "mse" (another name of it), "entropy" (least Kullback-Leibler divergence,
            as TensorRT), "percentile" (99.999 % of all values), "minmax" (never clips what
            calibration showed; fastest) or "moving_average" (of each batch's extremes).
        per_channel: One weight scale per output channel instead of one per tensor.
        keep_float: What stays float32: names of modules (with all in them) and of layers, as
            ``"features.0"``; or, where nothing has the name, operators, as ``"linear"``. May hold
            ``*``, ``?`` and ``[...]``. ``prepare`` refuses names that the model does not have.
        bias_correction: Correct biases for the mean error that rounding the weights causes on the
            calibration data. Costs next to nothing.
        equalize: Equal weight ranges for the channels between two layers (cross-layer
            equalization). For weights with one scale per tensor; with one per channel it did
            harm where it was measured.
        adaround: Learn how to round the weights (``pyquant.adaround``) in ``pyquant.quantize``,
            with the calibration data. Takes minutes. On the staged path call it yourself.

    Raises:
        QuantizationError: ``observer`` is no known name, or ``keep_float`` one string.
    """

    observer: ObserverName = "histogram"
    per_channel: bool = True
    keep_float: tuple[str, ...] = ()
    bias_correction: bool = True
    equalize: bool = False
    adaround: bool = False

    def __post_init__(self) -> None:
        if self.observer not in get_args(ObserverName):
            names = ", ".join(repr(name) for name in get_args(ObserverName))
            raise QuantizationError(f"unknown observer {self.observer!r}; choose one of {names}")
        if isinstance(self.keep_float, str):
            raise QuantizationError(f"keep_float takes several names: ({self.keep_float!r},)")

    def activation_spec(self, interval: Interval = REALS) -> Any:
        """A new torchao ``QuantizationSpec`` for activations whose range lies in ``interval``."""
        from pyquant.quantization import pt2e
        from pyquant.quantization.observers import ACTIVATION_OBSERVERS

        return pt2e.QuantizationSpec(
            dtype=torch.int8,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=ACTIVATION_OBSERVERS[self.observer].with_args(
                interval=interval
            ),
        )

    def weight_spec(self, axis: int = 0) -> Any:
        """A new torchao ``QuantizationSpec`` for weights with output channels at ``axis``."""
        from pyquant.quantization.observers import PerChannelWeightObserver, WeightObserver

        return _weight_spec(
            (PerChannelWeightObserver if self.per_channel else WeightObserver).with_args(),
            torch.per_channel_symmetric if self.per_channel else torch.per_tensor_symmetric,
            axis,
        )


@dataclass(frozen=True)
class QatConfig(QuantizationConfig):
    """How ``prepare_qat`` quantizes in training.

    Weights are scaled by their largest value, ``max |w| / 127``, in every pass anew.

    Attributes:
        observer: "moving_average" (of each batch's extremes) or "minmax" (all extremes seen).
        bias_correction: Off: training has seen what rounding does.
        averaging_constant: The weight of a new batch in the moving average.
        learned_step_size: Scales are parameters that the optimizer trains (LSQ: Esser et al.,
            "Learned Step Size Quantization", 2020, with its gradient scale 1 / sqrt(N * Qp)). They
            start from the first batch's ranges; zero points stay where that put them. The
            parameters are named ``...scale``; weight decay is no good for them, and their learning
            rate should be small beside their size, some hundredths.
        learned_offset: So is what the lowest integers of activations stand for, and with it the
            zero point (LSQ+: Bhalgat et al., "LSQ+: Improving low-bit quantization through
            learnable offsets and better initialization", 2020, rounded so that 0 stays on the
            grid). Needs ``learned_step_size``; the parameters are named ``...offset``.

    Raises:
        QuantizationError: Another observer is asked for, or a correction that works on weights
            after training (``bias_correction``, ``equalize``, ``adaround``).
    """

    observer: ObserverName = "moving_average"
    bias_correction: bool = False
    averaging_constant: float = 0.01
    learned_step_size: bool = False
    learned_offset: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.observer not in ("moving_average", "minmax"):
            raise QuantizationError(
                f"observer {self.observer!r} does not follow a model in training; "
                "choose 'moving_average' or 'minmax'"
            )
        for name in ("bias_correction", "equalize", "adaround"):
            if getattr(self, name):
                raise QuantizationError(f"{name} would undo what training has learned")
        if not 0 < self.averaging_constant <= 1:
            raise QuantizationError("averaging_constant must be above 0 and at most 1")
        if self.learned_offset and not self.learned_step_size:
            raise QuantizationError("learned_offset needs learned_step_size")

    def activation_spec(self, interval: Interval = REALS) -> Any:
        """A new torchao ``QuantizationSpec`` with a fake quantizer instead of an observer."""
        from pyquant.quantization import pt2e
        from pyquant.quantization.fake_quantize import FakeQuantize

        average = self.averaging_constant if self.observer == "moving_average" else None
        return pt2e.QuantizationSpec(
            dtype=torch.int8,
            quant_min=-128,
            quant_max=127,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=FakeQuantize.with_args(
                interval=interval,
                averaging_constant=average,
                learned=self.learned_step_size,
                learned_offset=self.learned_offset,
            ),
        )

    def weight_spec(self, axis: int = 0) -> Any:
        """Likewise for weights with output channels at ``axis``."""
        from pyquant.quantization.fake_quantize import (
            PerChannelWeightFakeQuantize,
            WeightFakeQuantize,
        )

        kind = PerChannelWeightFakeQuantize if self.per_channel else WeightFakeQuantize
        return _weight_spec(
            kind.with_args(learned=self.learned_step_size),
            torch.per_channel_symmetric if self.per_channel else torch.per_tensor_symmetric,
            axis,
        )


def _weight_spec(observer: Any, qscheme: torch.qscheme, axis: int) -> Any:
    from pyquant.quantization import pt2e

    return pt2e.QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=qscheme,
        ch_axis=axis,
        observer_or_fake_quant_ctr=observer,
    )
