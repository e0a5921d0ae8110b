"""Observers in graphs: batches that fail, states, and other quantizers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torchao.quantization.pt2e import observer as torchao
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
)

import pyquant
from pyquant.errors import CalibrationError
from pyquant.quantization import observers as ours
from pyquant.quantization.convert import observers


def state(observer: Any) -> dict[str, list[Any]]:
    return {name: value.tolist() for name, value in observer.state_dict().items()}


class Fragile(nn.Module):
    """Fails in its last layers for inputs that are large: by NaN, or by an exception."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.fragile = Root()
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.fragile(self.first(x)).view(-1, 4, 8, 8))


class Root(nn.Module):
    def forward(self, y: Tensor) -> Tensor:
        return y * (100 - y.abs().amax()).sqrt()


IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ours.ACTIVATION_OBSERVERS)
def test_a_batch_that_fails_leaves_observers_as_before(name: Any) -> None:
    model = Fragile()
    config = pyquant.QuantizationConfig(observer=name)
    once, again = (pyquant.prepare(model, IMAGES, config) for _ in range(2))
    pyquant.calibrate(once, [IMAGES, IMAGES * 2], progress=False)
    for bad in ([IMAGES, IMAGES * 1e4], [IMAGES * 2, IMAGES * 1e37]):
        with pytest.raises(CalibrationError, match=r"batch 1.*layer 'fragile'"):
            pyquant.calibrate(again, bad, progress=False)
    for (_, expected), (_, actual) in zip(observers(once), observers(again), strict=True):
        assert state(actual) == state(expected)


def test_the_state_of_a_graph_is_all_there_is() -> None:
    model = Fragile()
    prepared, restored = (pyquant.prepare(model, IMAGES) for _ in range(2))
    pyquant.calibrate(prepared, IMAGES, progress=False)
    restored.load_state_dict(prepared.state_dict())
    first, second = (pyquant.convert(graph) for graph in (prepared, restored))
    assert first.code == second.code
    with torch.no_grad():
        assert torch.equal(first(IMAGES), second(IMAGES))


def test_data_of_half_precision() -> None:
    model, outputs = Fragile(), []
    for data in (IMAGES.bfloat16(), IMAGES.bfloat16().float()):
        prepared = pyquant.prepare(model, IMAGES)
        pyquant.calibrate(prepared, data, progress=False)
        with torch.no_grad():
            outputs.append(pyquant.convert(prepared)(IMAGES))
    assert torch.equal(outputs[0], outputs[1])


class WithObservers(Quantizer):  # type: ignore[misc]
    """Somebody's PT2E quantizer: convolutions only."""

    def __init__(self, activation: Any, weight: Any) -> None:
        super().__init__()
        self.activation = QuantizationSpec(
            dtype=torch.uint8,
            quant_min=0,
            quant_max=255,
            qscheme=torch.per_tensor_affine,
            observer_or_fake_quant_ctr=activation.with_args(),
        )
        self.weight = QuantizationSpec(
            dtype=torch.int8,
            quant_min=-127,
            quant_max=127,
            qscheme=torch.per_channel_symmetric,
            ch_axis=0,
            observer_or_fake_quant_ctr=weight.with_args(),
        )

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        for node in model.graph.find_nodes(
            op="call_function", target=torch.ops.aten.conv2d.default
        ):
            node.meta["quantization_annotation"] = QuantizationAnnotation(
                input_qspec_map={node.args[0]: self.activation, node.args[1]: self.weight},
                output_qspec=self.activation,
                _annotated=True,
            )
        return model

    def validate(self, model: fx.GraphModule) -> None:
        pass


def prepared_by_torchao(activation: Any, weight: Any) -> fx.GraphModule:
    module = torch.export.export(Fragile().eval(), (IMAGES,)).module()
    return prepare_pt2e(module, WithObservers(activation, weight))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("activation", "weight"),
    [
        (ours.MinMaxObserver, ours.PerChannelMinMaxObserver),
        (ours.MovingAverageObserver, ours.PerChannelMovingAverageObserver),
        (ours.HistogramObserver, ours.PerChannelHistogramObserver),
        (ours.PercentileObserver, ours.PerChannelPercentileObserver),
        (ours.EntropyObserver, ours.PerChannelWeightObserver),
    ],
)
def test_in_another_quantizer(activation: Any, weight: Any) -> None:
    prepared = prepared_by_torchao(activation, weight)
    with torch.no_grad():
        expected = prepared(IMAGES)
        actual = convert_pt2e(prepared)(IMAGES)
    error = (expected - actual).square().mean() / expected.square().mean()
    assert 0 < error < 0.01


def test_calibrate_watches_over_observers_of_others() -> None:
    prepared = prepared_by_torchao(torchao.MinMaxObserver, torchao.PerChannelMinMaxObserver)
    pyquant.calibrate(prepared, IMAGES, progress=False)
    before = {name: value.clone() for name, value in prepared.state_dict().items()}
    with pytest.raises(CalibrationError, match=r"batch 0.*layer 'fragile'"):
        pyquant.calibrate(prepared, IMAGES * 1e4, progress=False)
    for name, value in prepared.state_dict().items():
        assert torch.equal(value, before[name])
