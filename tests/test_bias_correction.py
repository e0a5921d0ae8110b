"""pyquant.quantization.bias_correction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn

from pyquant.errors import CalibrationError
from pyquant.quantization import QuantizationConfig, calibrate, convert, prepare
from pyquant.quantization.bias_correction import InputMean, input_means

aten = torch.ops.aten
LAYERS = (aten.conv2d.default, aten.linear.default, aten.conv_transpose2d.input)


def biases(graph: fx.GraphModule) -> list[torch.Tensor]:
    """The bias of each layer, in order; zeros where there is none."""
    result = []
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target in LAYERS:
            bias = node.args[2] if len(node.args) > 2 else None
            result.append(torch.zeros(1) if bias is None else getattr(graph, bias.target).detach())
    return result


def converted(model: nn.Module, data: torch.Tensor, **options: Any) -> fx.GraphModule:
    prepared = prepare(model, data[:1], QuantizationConfig(**options))
    calibrate(prepared, data)
    return convert(prepared)


def constant_images(*shape: int) -> torch.Tensor:
    """Each channel of each sample is one number, so borders and centre have the same mean."""
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(*shape[:2], generator=generator) + torch.linspace(-1, 2, shape[1])
    return values.reshape(*shape[:2], *[1] * (len(shape) - 2)).expand(shape).contiguous()


@pytest.mark.parametrize(
    ("make_layer", "shape"),
    [
        (lambda: nn.Conv2d(6, 5, 3), (9, 6, 8, 7)),
        (lambda: nn.Conv2d(6, 5, 3, padding=1, stride=2, bias=False), (9, 6, 8, 7)),
        (lambda: nn.Conv2d(6, 4, 3, padding=1, groups=2), (9, 6, 1, 1)),
        (lambda: nn.Conv2d(6, 12, (3, 1), padding=(2, 0), dilation=2, groups=6), (9, 6, 8, 7)),
        (lambda: nn.Conv1d(6, 5, 3, padding=1), (9, 6, 8)),
        (lambda: nn.ConvTranspose2d(6, 5, 3, stride=2, padding=1), (9, 6, 4, 4)),
        (lambda: nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2, bias=False), (9, 6, 4, 4)),
        (lambda: nn.Linear(6, 5), (9, 6)),
    ],
)
@pytest.mark.parametrize("per_channel", [True, False])
def test_the_mean_output_is_that_of_the_float_layer(
    make_layer: Callable[[], nn.Conv2d], shape: tuple[int, ...], per_channel: bool
) -> None:
    layer = make_layer()
    with torch.no_grad():  # coarse steps, so that rounding is plain to see
        layer.weight.view(-1)[::4] = 20
    data = constant_images(*shape)
    model = nn.Sequential(layer).eval()
    before = converted(model, data, bias_correction=False, per_channel=per_channel)
    after = converted(model, data, per_channel=per_channel)
    dequantized = {}
    for node in after.graph.nodes:  # what the weight became
        if "dequantize" in str(node.target) and node.args[0].op == "get_attr":
            args = [getattr(after, a.target) if isinstance(a, fx.Node) else a for a in node.args]
            dequantized["weight"] = node.target(*args)
    rounded = nn.Sequential(layer).eval()
    with torch.no_grad():
        expected = rounded(data)
        kept = layer.weight.detach().clone()
        layer.weight.copy_(dequantized["weight"].reshape(kept.shape))
        error = expected - rounded(data)
        layer.weight.copy_(kept)
    shift = error.mean([dim for dim in range(error.dim()) if dim != 1])
    assert shift.abs().max() > 0.03
    torch.testing.assert_close(biases(after)[0] - biases(before)[0], shift, rtol=0.05, atol=5e-3)


def test_linear_on_sequences() -> None:
    data = torch.rand(6, 7, 16)
    layer = nn.Linear(16, 4)
    with torch.no_grad():
        layer.weight[:, 0] = 20
    model = nn.Sequential(layer).eval()
    outputs = [converted(model, data, bias_correction=on)(data) for on in (False, True)]
    with torch.no_grad():
        errors = [(model(data) - output).mean((0, 1)).abs().max() for output in outputs]
    assert errors[1] < errors[0] / 3


def test_layers_that_share_weight_and_bias_get_their_own_correction() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> Any:
            return self.conv(self.conv(x) + 5 * x)

    model = Twice().eval()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        model.conv.weight[:, 0] = 20
        kept["conv.weight"] = model.conv.weight.clone()
    first, second = biases(converted(model, constant_images(9, 4, 5, 5)))
    assert not torch.allclose(first, second, rtol=0, atol=1e-3)
    for name, value in model.state_dict().items():
        assert torch.equal(value, kept[name]), name


def test_feeding_the_prepared_model_by_hand_is_enough() -> None:
    data = constant_images(8, 6, 5, 5)
    model = nn.Sequential(nn.Conv2d(6, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3)).eval()
    prepared = prepare(model, data[:1])
    assert len(input_means(prepared)) == 2
    with torch.no_grad():
        for sample in data:
            prepared(sample[None])
    torch.testing.assert_close(biases(convert(prepared)), biases(converted(model, data)))


def test_it_can_be_switched_off() -> None:
    data = constant_images(8, 6, 5, 5)
    model = nn.Sequential(nn.Conv2d(6, 5, 3)).eval()
    prepared = prepare(model, data[:1], QuantizationConfig(bias_correction=False))
    assert not input_means(prepared)
    (bias,) = biases(converted(model, data, bias_correction=False))
    torch.testing.assert_close(bias, model[0].bias.detach(), rtol=0, atol=1e-4)


def test_readers_of_one_tensor_share_one_mean() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(6, 5, 1), nn.Conv2d(6, 5, 3, padding=1)

        def forward(self, x: torch.Tensor) -> Any:
            return self.one(x) + self.two(x)

    assert len(input_means(prepare(Fork().eval(), torch.randn(1, 6, 5, 5)))) == 1


def test_a_failing_batch_leaves_no_trace() -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1, bias=False)).eval()
    nn.init.constant_(model[0].weight, 3e38)
    prepared = prepare(model, torch.zeros(1, 2, 2, 2))
    calibrate(prepared, torch.zeros(4, 2, 2, 2))
    with pytest.raises(CalibrationError, match="NaN or infinite"):
        calibrate(prepared, torch.ones(4, 2, 2, 2))
    (mean,) = input_means(prepared)
    assert int(mean.count) == 16
    assert not mean.mean().any()


@pytest.mark.parametrize(("axis", "shape"), [(1, (5, 3, 4, 6)), (-1, (5, 7, 3)), (-1, (5, 3))])
def test_the_mean_of_shards_is_the_mean_of_all(axis: int, shape: tuple[int, ...]) -> None:
    data = torch.randn(shape, dtype=torch.float32) * 3 + 100
    whole, first, second = (InputMean(3, axis) for _ in range(3))
    assert whole(data) is data
    first(data[:2])
    first(data[:0])
    second(data[2:])
    first.merge(second)
    dims = [dim for dim in range(len(shape)) if dim != axis % len(shape)]
    expected = data.double().mean(dims).float()
    torch.testing.assert_close(whole.mean(), expected)
    torch.testing.assert_close(first.mean(), expected)
    assert not InputMean(3, axis).mean().any()


def test_efficientnet_gains(efficientnet_lite0: nn.Module, photo_crops: Any) -> None:
    data, unseen = photo_crops(8, 0), photo_crops(6, 1)
    noise = []
    for on in (False, True):
        graph = converted(efficientnet_lite0, data, bias_correction=on)
        with torch.no_grad():
            noise.append((efficientnet_lite0(unseen) - graph(unseen)).square().sum())
    assert noise[1] < 0.7 * noise[0]
