"""pyquant.quantization: adaround, learn_rounding, layer_rows, twin_run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import fx, nn

import pyquant
from pyquant.errors import CalibrationError, PyquantError, QuantizationError
from pyquant.quantization import QuantizationConfig, calibrate, convert, prepare
from pyquant.quantization.layer_rows import LayerRows, product
from pyquant.quantization.learn_rounding import RoundingProblem, learn_rounding
from pyquant.quantization.twin_run import twin_run
from pyquant.quantization.weighted_layers import weighted_layers

aten = torch.ops.aten
LAYERS = (aten.conv2d.default, aten.linear.default, aten.conv_transpose2d.input)


class Net(nn.Module):
    """All kinds of layers: plain, depthwise, grouped and transposed convolutions, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
        self.grouped = nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=3)
        self.up = nn.ConvTranspose2d(12, 8, 3, stride=2, padding=1, output_padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> Any:
        y = nn.functional.relu6(self.stem(x))
        y = y + self.grouped(torch.relu(self.depthwise(y)))
        return self.head(torch.relu(self.up(y)).mean([2, 3]))


DATA = torch.randn(24, 3, 16, 16, generator=torch.Generator().manual_seed(1)).cumsum(3) / 4


def calibrated(model: nn.Module, data: torch.Tensor = DATA, **options: Any) -> fx.GraphModule:
    prepared = prepare(model.eval(), data[:1], QuantizationConfig(observer="minmax", **options))
    calibrate(prepared, data)
    return prepared


def coarse(model: nn.Module, factor: float = 8) -> nn.Module:
    """``model`` with a few weights so large that the steps of the others are wide."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.view(-1)[::7] *= factor
    return model.eval()


def noise(model: nn.Module, graph: nn.Module, data: torch.Tensor) -> float:
    with torch.no_grad():
        return float((model(data) - graph(data)).square().sum())


# ---------------------------------------------------------------------------------- the problem


def problem(rows: torch.Tensor, outputs: int, groups: int = 1) -> RoundingProblem:
    weight = torch.randn(groups, outputs // groups, rows.shape[-1]) * 4
    return RoundingProblem(
        rows=rows,
        target=product(rows, weight * 0.5).relu(),
        weight=weight,
        scale=torch.full((groups, outputs // groups, 1), 0.5),
        bias=torch.zeros(outputs),
        activation=torch.relu,
        low=-127,
        high=127,
    )


def test_it_gets_near_the_best_rounding_of_tiny_layers() -> None:
    """Against all combinations; the inputs are correlated, so nearest is not best."""
    places = []
    for seed in range(4):
        torch.manual_seed(seed)
        rows = torch.randn(200, 1, 2) @ torch.randn(2, 6) + 0.05 * torch.randn(200, 1, 6)
        tiny = problem(rows, 1)
        steps = learn_rounding(tiny, iterations=300, generator=torch.Generator())
        learned = float(tiny.loss(steps, tiny.bias))
        assert learned <= float(tiny.loss(tiny.nearest(), tiny.bias))
        losses = []
        for code in range(2**6):
            up = torch.tensor([code >> bit & 1 for bit in range(6)]).reshape(1, 1, 6)
            losses.append(float(tiny.loss(tiny.weight.floor() + up, tiny.bias)))
        places.append(sum(loss < learned * 0.999 for loss in losses))
    assert sorted(places)[1] < 3, places


@pytest.mark.parametrize(("groups", "width"), [(1, 12), (4, 9), (2, 6)])
def test_weights_stay_within_a_step_and_are_whole(groups: int, width: int) -> None:
    layer = problem(torch.randn(300, groups, width), 4, groups)
    layer.weight[0, 0, 0] = 500.3  # beyond the range
    steps = learn_rounding(layer, iterations=50, generator=torch.Generator())
    assert torch.equal(steps, steps.round())
    assert float(steps[0, 0, 0]) == 127
    inside = layer.weight.abs() < 126
    assert ((steps - layer.weight).abs()[inside] < 1).all()
    assert float(layer.loss(steps, layer.bias)) <= float(layer.loss(layer.nearest(), layer.bias))


def test_a_layer_of_zeros_stays_one() -> None:
    layer = problem(torch.randn(50, 1, 3), 2)
    layer.weight.zero_()
    layer.target.zero_()
    assert not learn_rounding(layer, iterations=5, generator=torch.Generator()).any()


# ------------------------------------------------------------------------------ layers as rows


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.Conv2d(6, 4, 3, stride=2, padding=(2, 1)), (3, 6, 9, 8)),
        (lambda: nn.Conv2d(6, 4, (3, 2), dilation=(2, 3), groups=2), (3, 6, 9, 8)),
        (lambda: nn.Conv2d(6, 12, 3, padding=1, groups=6), (3, 6, 5, 5)),
        (lambda: nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1), (3, 6, 5, 4)),
        (lambda: nn.ConvTranspose2d(6, 4, (3, 2), stride=(3, 1), groups=2), (3, 6, 5, 4)),
        (
            lambda: nn.ConvTranspose2d(
                6, 6, 3, stride=2, padding=1, output_padding=1, dilation=2, groups=6
            ),
            (3, 6, 5, 4),
        ),
        (lambda: nn.Linear(6, 4), (3, 6)),
        (lambda: nn.Linear(6, 4), (3, 7, 6)),
    ],
)
def test_rows_times_matrix_is_the_layer(
    make: Callable[[], nn.Conv2d], shape: tuple[int, ...]
) -> None:
    layer, x = make(), torch.randn(shape)
    prepared = calibrated(nn.Sequential(layer), x)
    (found,) = weighted_layers(prepared)
    rows = LayerRows(found)
    matrix = rows.matrix(found.weight)
    assert torch.equal(rows.weight(matrix), found.weight)
    with torch.no_grad():
        expected = layer(x)
    assert layer.bias is not None
    expected = expected if isinstance(layer, nn.Linear) else expected.movedim(1, -1)
    expected = (expected - layer.bias.detach()).reshape(-1, found.outputs)
    sampled = rows.sample(list(torch.split(x, 2)), 10**6, torch.Generator())
    actual = product(sampled, matrix)
    assert actual.shape == expected.shape
    # The rows come in random order.
    torch.testing.assert_close(actual.sum(0), expected.sum(0), rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(actual.sort(0).values, expected.sort(0).values, rtol=1e-4, atol=1e-4)
    few = [rows.sample([x], 5, torch.Generator().manual_seed(2)) for _ in range(2)]
    assert len(few[0]) == min(5, len(expected))
    assert torch.equal(few[0], few[1])


# -------------------------------------------------------------------------------- the twin run


def test_the_twins_are_the_float_and_the_quantized_network() -> None:
    model = Net().eval()
    prepared = calibrated(model, bias_correction=False)
    graph = convert(prepared)
    inputs = {}
    for name, network in (("float", prepared), ("quantized", graph)):
        recorder = _Recorder(network)
        with torch.no_grad():
            recorder.run(DATA[:4])
        inputs[name] = recorder.inputs
    stops = list(twin_run(prepared, [(DATA[:3],), (DATA[3:4],)]))
    assert len(stops) == 5
    for index, stop in enumerate(stops):
        torch.testing.assert_close(torch.cat(stop.float_inputs), inputs["float"][index])
        # One step apart where a sum of the graph falls between two: biases are rounded there.
        difference = torch.cat(stop.quantized_inputs) - inputs["quantized"][index]
        assert difference.abs().mean() < 1e-3


class _Recorder(fx.Interpreter):
    """Keeps what every layer reads."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.inputs: list[torch.Tensor] = []

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if target in LAYERS:
            self.inputs.append(args[0])
        return super().call_function(target, args, kwargs)


# ------------------------------------------------------------------------------- the whole path


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda: nn.Conv2d(6, 8, 3, padding=1), 0.8),
        # Nine weights to choose for a channel, and much of the error is its mean.
        (lambda: nn.Conv2d(6, 6, 3, groups=6, padding=1, bias=False), 1.001),
        (lambda: nn.Conv2d(6, 8, 3, padding=2, dilation=2, groups=2), 0.8),
        (lambda: nn.ConvTranspose2d(6, 8, 3, stride=2, padding=1), 0.8),
        # Far more weights than samples: rounding to nearest may be the best there is.
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(6 * 36, 8)), 1.1),
    ],
)
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_layer_gets_nearer_on_unseen_data(
    make: Callable[[], nn.Module], limit: float, per_channel: bool
) -> None:
    generator = torch.Generator().manual_seed(2)
    smooth = torch.randn(60, 6, 6, 6, generator=generator).cumsum(1).cumsum(2).cumsum(3)
    smooth = smooth - smooth.amin()
    smooth = (smooth / smooth.amax() * 255).round()  # so that only weights are rounded
    model = coarse(nn.Sequential(make()), 30)
    prepared = calibrated(model, smooth, per_channel=per_channel)
    (layer,) = weighted_layers(prepared)
    plain, nearest = layer.weight.clone(), layer.quantized_weight()
    pyquant.adaround(prepared, smooth[:32], iterations=300)
    after = convert(prepared)
    noises = []
    for weight in (nearest, layer.weight):
        unseen = smooth[32:].flatten(1) if layer.is_linear else smooth[32:]
        error = layer.apply(unseen, plain - weight, None).movedim(layer.channel_axis, 0).flatten(1)
        noises.append(float((error - error.mean(1, keepdim=True)).square().sum()))
    assert noises[1] < limit * noises[0]
    scale, _ = layer.observer.calculate_qparams()
    if scale.numel() > 1:
        shape = [1] * plain.dim()
        shape[layer.observer.ch_axis] = -1
        scale = scale.reshape(shape)
    steps = layer.weight / scale
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-3)
    inside = (plain / scale).abs() < 127
    assert ((layer.weight - plain).abs() / scale)[inside].max() < 1.001
    # The grid did not move, so the quantized graph holds what was learned.
    torch.testing.assert_close(layer.quantized_weight(), layer.weight)
    q = pyquant.lower(after, whole=True)
    output = next(n for n in reversed(after.graph.nodes) if "dequantize" in str(n.target))
    assert float((q(smooth) - after(smooth)).abs().max()) < 1.01 * output.args[1]


def test_the_users_model_is_not_touched() -> None:
    model = Net().eval()
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    pyquant.adaround(calibrated(model, per_channel=False), DATA, iterations=3)
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_layers_that_share_a_weight_are_rounded_each_for_itself() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> Any:
            return self.conv(torch.relu(self.conv(x)))

    model = coarse(Twice())
    prepared = calibrated(model)
    pyquant.adaround(prepared, DATA, iterations=100)
    first, second = (layer.weight for layer in weighted_layers(prepared))
    assert not torch.equal(first, second)
    assert noise(model, convert(prepared), DATA) < noise(model, convert(calibrated(model)), DATA)


def test_an_interrupted_run_leaves_a_working_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Net().eval()
    prepared = calibrated(model)
    learned = 0

    def interrupted(*args: Any, **kwargs: Any) -> torch.Tensor:
        nonlocal learned
        learned += 1
        if learned == 3:
            raise KeyboardInterrupt
        return learn_rounding(*args, **kwargs)

    # Not by its name: the package has a function of that name too.
    module = sys.modules["pyquant.quantization.adaround"]
    monkeypatch.setattr(module, "learn_rounding", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pyquant.adaround(prepared, DATA, iterations=20)
    with torch.no_grad():
        assert noise(model, convert(prepared), DATA) < 0.1 * float(model(DATA).square().sum())
        prepared(DATA)


def test_the_one_call_path_reads_a_generator_once() -> None:
    def batches() -> Iterator[torch.Tensor]:
        yield from torch.split(DATA, 8)

    model = coarse(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3)))
    config = QuantizationConfig(adaround=True)
    q = pyquant.quantize(model, DATA[:1], batches(), config, progress=False)
    plain = pyquant.quantize(model, DATA[:1], batches(), progress=False)
    assert noise(model, q, DATA) < noise(model, plain, DATA)


def test_a_graph_bound_to_its_batch_size() -> None:
    class Bound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> Any:
            return self.head(torch.relu(self.conv(x)).mean([2, 3]).reshape(2, 4))

    data = DATA[:8]
    prepared = prepare(Bound().eval(), data[:2])
    calibrate(prepared, data)
    pyquant.adaround(prepared, data, iterations=3)
    assert convert(prepared)(data[:2]).shape == (2, 2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"iterations": 0}, QuantizationError, "iterations must be at least 1, got 0"),
        ({"max_samples": -1}, QuantizationError, "max_samples must be at least 1"),
        ({"calibration_data": []}, CalibrationError, "empty"),
        ({"calibration_data": DATA[:, :2]}, CalibrationError, "expected shape"),
        ({"calibration_data": 3}, CalibrationError, "got int"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[PyquantError], message: str) -> None:
    prepared = calibrated(nn.Sequential(nn.Conv2d(3, 2, 1)))
    with pytest.raises(error, match=message):
        pyquant.adaround(prepared, **{"calibration_data": DATA, **options})


def test_it_wants_a_calibrated_graph() -> None:
    with pytest.raises(CalibrationError, match="no data reached"):
        pyquant.adaround(prepare(Net().eval(), DATA[:1]), DATA)
    with pytest.raises(QuantizationError, match="prepare"):
        pyquant.adaround(Net(), DATA)  # type: ignore[arg-type]
