"""What an analysis of a quantized model says, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Histogram:
    """Counts of values in bins of equal width over ``low`` to ``high``."""

    low: float
    high: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class TensorStatistics:
    """The float values of one tensor (all batches together) and the grid they were given.

    Attributes:
        minimum: Smallest value.
        maximum: Largest value.
        histogram: Of the float values.
        scales: One, or one per channel; empty if the tensor is not quantized.
        zero_point: On the uint8 grid 0..255 for activations, 0 for weights; 0 without a grid.
        representable: Smallest and largest value of the grid (of the widest channel).
        clipped: Share of the values outside of the grid, 0..1.
        dead_channels: Channels of which all values are the same (an all-zero weight; an activation
            that never moves).
        channels: Number of channels; 1 for a tensor without them.
    """

    minimum: float
    maximum: float
    histogram: Histogram
    scales: tuple[float, ...]
    zero_point: int
    representable: tuple[float, float]
    clipped: float
    dead_channels: int
    channels: int


@dataclass(frozen=True)
class LayerAnalysis:
    """One layer: what the quantizer treats as one operator, as conv + batch norm + relu.

    Attributes:
        name: The module's path in the model, as ``features.3.conv.1``; unique.
        operator: As ``conv2d + relu``.
        output_shape: Of one batch, NCHW order as in the float graph.
        int8: Whether it is quantized.
        multiply_adds: Of one batch.
        parameter_bytes: Of weights and bias in float32.
        sqnr: dB, of the layer's output in the quantized model against the float model: with all
            error that came with its inputs. ``inf`` for equal outputs.
        own_sqnr: dB, of the *model's* outputs when only this layer is quantized; ``None`` if not
            measured, or if the layer is float32.
        output: Of the output in the float model.
        weight: ``None`` without a constant weight.
        inputs: Names of the layers whose outputs it takes; the model's own inputs are left out.
        nodes: Names of the graph's nodes that it is made of, as the steps of a
            :class:`pyquant.targets.profile.Profile` list them.
    """

    name: str
    operator: str
    output_shape: tuple[int, ...]
    int8: bool
    multiply_adds: int
    parameter_bytes: int
    sqnr: float
    own_sqnr: float | None
    output: TensorStatistics
    weight: TensorStatistics | None
    inputs: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TargetComparison:
    """One way to run the model against the float model, on the same inputs.

    Attributes:
        name: As ``"q/dq graph"``, ``"Program"``, ``"ExecuTorch (.pte)"``.
        sqnr: dB, of all outputs.
        cosine: Similarity of all outputs, -1..1.
        largest_error: Largest absolute difference.
        agreement: Share of samples with the same largest output; ``None`` if outputs are no scores.
        size: Bytes of the file; ``None`` without one.
        milliseconds: Median of a run at batch 1; ``None`` if not measured.
    """

    name: str
    sqnr: float
    cosine: float
    largest_error: float
    agreement: float | None
    size: int | None
    milliseconds: float | None


@dataclass(frozen=True)
class Analysis:
    """Of one model on given data.

    Attributes:
        model: Its name.
        samples: How many the data had.
        layers: In the order in which they run.
        targets: The float model's own line is first, with an SQNR of ``inf``.
    """

    model: str
    samples: int
    layers: tuple[LayerAnalysis, ...]
    targets: tuple[TargetComparison, ...]
