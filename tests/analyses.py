"""Analyses to show: of a few layers by hand, and of a real model's layers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyquant.analysis.analysis import (
    Analysis,
    Histogram,
    LayerAnalysis,
    TargetComparison,
    TensorStatistics,
)
from pyquant.targets.profile import Profile, ProfiledStep


def statistics(
    value: Tensor, scales: tuple[float, ...] = (), limits: tuple[float, float] = (0.0, 0.0)
) -> TensorStatistics:
    """Of ``value``, channels first; clipped are the values beyond ``limits``."""
    low, high = float(value.min()), float(value.max())
    counts = torch.histc(value, 256, low, high) if high > low else torch.tensor([value.numel()])
    rows = value.flatten(1)
    beyond = (value < limits[0]) | (value > limits[1])
    return TensorStatistics(
        minimum=low,
        maximum=high,
        histogram=Histogram(low, high, tuple(map(int, counts))),
        scales=scales,
        zero_point=0,
        representable=limits,
        clipped=float(beyond.float().mean()) if scales else 0.0,
        dead_channels=int((rows.amax(1) == rows.amin(1)).sum()),
        channels=len(rows),
    )


def layer(
    name: str,
    sqnr: float = 30.0,
    own: float | None = 40.0,
    *,
    int8: bool = True,
    operator: str = "conv2d + relu",
    inputs: tuple[str, ...] = (),
    nodes: tuple[str, ...] = (),
) -> LayerAnalysis:
    """With normally distributed weights, and outputs that a range of 0 to 2 clips."""
    values = torch.randn(8, 256)
    return LayerAnalysis(
        name=name,
        operator=operator,
        output_shape=(1, 8, 16, 16),
        int8=int8,
        multiply_adds=8 * 27 * 256,
        parameter_bytes=4 * 8 * 28,
        sqnr=sqnr,
        own_sqnr=own if int8 else None,
        output=statistics(values.relu(), (2 / 255,) if int8 else (), (0.0, 2.0)),
        weight=statistics(values[:, :27], (4 / 127,) * 8 if int8 else (), (-4.0, 4.0)),
        inputs=inputs,
        nodes=nodes,
    )


def targets(sqnr: float = 25.0) -> tuple[TargetComparison, ...]:
    """A float model and two ways to run it in int8."""
    return (
        TargetComparison("float model", math.inf, 1.0, 0.0, 1.0, 4_000_000, 4.0),
        TargetComparison("q/dq graph", sqnr, 0.998, 0.25, 0.95, None, None),
        TargetComparison("Program", sqnr - 0.1, 0.998, 0.26, 0.95, 1_000_000, 1.0),
    )


def three_layers(first: str = "stem") -> Analysis:
    """A chain with an edge around its middle; the names sort otherwise than they run."""
    return Analysis(
        "net",
        64,
        (
            layer(first, 40.0, 44.0, nodes=("conv2d", "relu")),
            layer("body.2", 35.0, 31.5, inputs=(first,), nodes=("conv2d_1",)),
            layer("body.10", 33.0, None, int8=False, operator="add", inputs=(first, "body.2")),
        ),
        targets(),
    )


def profile() -> Profile:
    """Of :func:`three_layers`; the first step is no layer's."""
    return Profile(
        "net",
        (
            ProfiledStep(("input_1",), ("Quantize",), "native", (1, 16, 16, 3), 0, (2e-6, 3e-6)),
            ProfiledStep(("conv2d",), ("Conv2d",), "native", (1, 16, 16, 8), 55296, (4e-5, 6e-5)),
            ProfiledStep(("conv2d_1",), ("Conv2d",), "native", (1, 16, 16, 8), 1, (2e-5, 2e-5)),
        ),
    )


def of_model(model: nn.Module, images: Tensor) -> Analysis:
    """Of the convolutions and linear layers of ``model``, each rounded to int8 by itself."""
    found: list[LayerAnalysis] = []
    names = {module: name for name, module in model.named_modules()}

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d | nn.Linear)
        weight = module.weight.detach()
        scales = tuple((weight.flatten(1).abs().amax(1) / 127).tolist())
        low, high = min(0.0, float(output.min())), float(output.quantile(0.9999))
        scale = (high - low) / 255
        noise = output - (output.clamp(low, high) / scale).round() * scale
        signal = 10 * math.log10(float(output.square().sum() / noise.square().sum()))
        widest = 127 * max(scales)
        found.append(
            LayerAnalysis(
                name=names[module],
                operator=type(module).__name__.lower(),
                output_shape=(1, *output.shape[1:]),
                int8=True,
                multiply_adds=output[0].numel() * weight[0].numel(),
                parameter_bytes=4 * weight.numel(),
                sqnr=signal - 0.2 * len(found),
                own_sqnr=signal,
                output=statistics(output.transpose(0, 1), (scale,), (low, high)),
                weight=statistics(weight, scales, (-widest, widest)),
                inputs=(found[-1].name,) if found else (),
            )
        )

    hooks = [
        module.register_forward_hook(look)
        for module in model.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    return Analysis(type(model).__name__, len(images), tuple(found), targets())
