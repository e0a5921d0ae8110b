"""``pyquant.analyze``: its numbers against plain computations, and faults that it must show."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lowering.nets import IMAGE, NETS, Residual, Stem
from lowering.quantizers import by_xnnpack
from torch import Tensor, nn
from torch.nn import functional as F

import pyquant
from pyquant.analysis.analysis import Analysis, LayerAnalysis
from pyquant.analysis.targets import Target
from pyquant.errors import CalibrationError, InvalidInputError
from pyquant.targets import ProgramModule, QuantizedModule


class Net(nn.Module):
    """What a mobile network is made of, with ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(8, 2)
        self.depthwise = nn.Conv2d(8, 8, 3, 1, 1, groups=8)
        self.project = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.project(F.relu(self.depthwise(x)))
        result: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return result


@pytest.fixture(scope="module")
def data() -> Tensor:
    return torch.randn(20, 3, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def net() -> Net:
    torch.manual_seed(4)
    return Net().eval()


@pytest.fixture(scope="module")
def quantized(net: Net, data: Tensor) -> QuantizedModule:
    return pyquant.quantize(net, data[:1], data, progress=False)


def analyze(model: nn.Module, quantized: Any, data: Any, **options: Any) -> Analysis:
    return pyquant.analyze(model, quantized, data, progress=False, latency=False, **options)


def layer(analysis: Analysis, name: str) -> LayerAnalysis:
    (found,) = (layer for layer in analysis.layers if layer.name == name)
    return found


def plain_sqnr(expected: Tensor, found: Tensor) -> float:
    noise = float((expected.double() - found.double()).square().sum())
    return 10 * math.log10(float(expected.double().square().sum()) / noise)


# --- The numbers.


def test_the_numbers_are_those_of_a_plain_computation(
    net: Net, quantized: QuantizedModule, data: Tensor
) -> None:
    analysis = analyze(net, quantized, data)

    names = ["stem.conv", "depthwise", "project", "add", "adaptive_avg_pool2d", "flatten", "head"]
    assert [layer.name for layer in analysis.layers] == names
    assert analysis.samples == 20
    assert all(layer.int8 for layer in analysis.layers)
    seen: dict[str, Tensor] = {}
    net.project.register_forward_hook(lambda _, __, output: seen.update(project=output))
    with torch.no_grad():
        outputs = net(data)
    inside = {value.name: value for value in quantized.programs[0].intermediates(data)}
    assert quantized.program is not None
    found = layer(analysis, "project")
    assert found.operator == "conv2d"
    assert found.output_shape == (1, 8, 8, 8)
    assert found.multiply_adds == 8 * 8 * 8 * 8
    assert found.parameter_bytes == 4 * (64 + 8)
    assert found.sqnr == pytest.approx(
        plain_sqnr(seen["project"], inside["conv2d_2"].dequantize()), abs=0.01
    )
    statistics = found.output
    assert statistics.minimum == pytest.approx(float(seen["project"].min()))
    assert statistics.maximum == pytest.approx(float(seen["project"].max()))
    assert statistics.scales == (inside["conv2d_2"].scale,)
    assert statistics.zero_point == inside["conv2d_2"].zero_point
    assert sum(statistics.histogram.counts) == seen["project"].numel()
    assert found.weight is not None
    assert found.weight.channels == len(found.weight.scales) == 8
    assert found.weight.maximum == pytest.approx(float(net.project.weight.detach().max()))
    assert layer(analysis, "stem.conv").operator == "conv2d + relu6"
    assert layer(analysis, "add").weight is None
    assert layer(analysis, "add").inputs == ("stem.conv", "project")
    assert layer(analysis, "depthwise").nodes == ("conv2d_1", "relu")
    assert layer(analysis, "stem.conv").inputs == ()
    floats, graph, program = analysis.targets
    assert (floats.name, floats.sqnr, floats.agreement) == ("float model", math.inf, 1.0)
    assert (graph.name, program.name) == ("q/dq graph", "Program")
    assert program.sqnr == pytest.approx(plain_sqnr(outputs, quantized(data)), abs=0.01)
    # The float model rounds otherwise in batches of another size.
    assert program.largest_error == pytest.approx(
        float((outputs - quantized(data)).abs().max()), rel=1e-3
    )
    same = (outputs.argmax(1) == quantized(data).argmax(1)).float().mean()
    assert program.agreement == pytest.approx(float(same))
    assert layer(analysis, "head").sqnr == pytest.approx(program.sqnr, abs=0.01)


def test_the_graph_the_program_and_its_file_have_the_same_layers(
    net: Net, quantized: QuantizedModule, data: Tensor, tmp_path: Path
) -> None:
    quantized.save(tmp_path / "model.pyq")

    runtime = analyze(net, quantized, data).layers
    graph = analyze(net, quantized.graph, data).layers
    loaded = analyze(net, pyquant.load(tmp_path / "model.pyq"), data).layers

    assert loaded == runtime
    for one, other in zip(runtime, graph, strict=True):
        assert one.name == other.name
        assert one.sqnr == pytest.approx(other.sqnr, abs=1.0)
        assert one.output == other.output
        assert (one.int8, one.operator, one.weight) == (other.int8, other.operator, other.weight)


def test_the_prepared_graph_is_as_good_as_the_model(net: Net, data: Tensor) -> None:
    prepared = pyquant.prepare(net, data[:1])
    pyquant.calibrate(prepared, data, progress=False)
    lowered = pyquant.lower(pyquant.convert(prepared))

    assert analyze(prepared, lowered, data).layers == analyze(net, lowered, data).layers


@pytest.mark.parametrize("form", ["batches", "samples", "generator", "with labels"])
def test_any_form_of_data_will_do(
    net: Net, quantized: QuantizedModule, data: Tensor, form: str
) -> None:
    forms: dict[str, Any] = {
        "batches": [data[:13], data[13:]],
        "samples": list(data),
        "generator": (batch for batch in data.split(4)),
        "with labels": [(data, torch.zeros(20))],
    }

    whole, parts = analyze(net, quantized, data), analyze(net, quantized, forms[form])

    assert parts.samples == 20
    for one, other in zip(whole.layers, parts.layers, strict=True):
        assert one.sqnr == pytest.approx(other.sqnr, abs=1e-3)
        assert one.output.histogram == other.output.histogram


def test_memory_does_not_grow_with_the_batch(
    net: Net, quantized: QuantizedModule, data: Tensor
) -> None:
    batches = []
    target = Target("watching", lambda x: batches.append(len(x)) or net(x))

    analyze(net, quantized, data, targets=[target])

    assert sum(batches) == 20 and max(batches) <= 8


def test_own_contributions(data: Tensor) -> None:
    torch.manual_seed(1)
    model = Net().eval()
    with torch.no_grad():  # one weight per channel is so large that the others vanish
        model.project.weight[:, 0] *= 300
    quantized = pyquant.quantize(
        model, data[:1], data, pyquant.QuantizationConfig(observer="minmax"), progress=False
    )

    analysis = analyze(model, quantized, data, own=True)

    own = {layer.name: layer.own_sqnr for layer in analysis.layers}
    assert all(value is not None for value in own.values())
    outputs = analysis.targets[2].sqnr
    # A layer by itself does less harm than all of them, and their noise adds up to about all.
    assert min(own.values()) > outputs - 1
    noise = sum(10 ** (-value / 10) for value in own.values() if value is not None)
    assert -10 * math.log10(noise) == pytest.approx(outputs, abs=6)


def test_the_only_layers_own_contribution_is_all_of_it(data: Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    quantized = pyquant.quantize(model, data[:1], data, progress=False)

    (found,) = analyze(model, quantized.graph, data, own=True).layers

    assert found.own_sqnr == pytest.approx(found.sqnr, abs=0.1)


def test_dead_channels_and_clipped_values_are_counted(data: Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].weight[2] = 0
        model[0].bias[2] = -5.0
    config = pyquant.QuantizationConfig(observer="minmax")
    quantized = pyquant.quantize(model, data[:1], data, config, progress=False)

    calibrated, twice = analyze(model, quantized, data), analyze(model, quantized, 2 * data)

    first = calibrated.layers[0]
    assert (first.output.dead_channels, first.output.channels) == (2, 4)
    assert first.weight is not None and first.weight.dead_channels == 2
    assert first.output.clipped == 0.0
    with torch.no_grad():
        values = model[:2](2 * data)
    highest = first.output.representable[1] + first.output.scales[0] / 2
    expected = float((values > highest).float().mean())
    assert twice.layers[0].output.clipped == pytest.approx(expected) and expected > 0.005


@pytest.mark.parametrize("name", NETS)
def test_every_net_can_be_analyzed(name: str) -> None:
    kind, inputs = NETS[name]
    model = kind().eval()
    quantized = pyquant.quantize(model, inputs, [inputs], progress=False)

    analysis = analyze(model, quantized, [inputs], own=True)
    graph = {
        layer.name: layer for layer in analyze(model, quantized.graph, [inputs], own=True).layers
    }

    for layer in analysis.layers:  # what the Program holds is what the graph says
        assert layer.own_sqnr == pytest.approx(graph[layer.name].own_sqnr, abs=0.2)
    assert len({layer.name for layer in analysis.layers}) == len(analysis.layers) >= 2
    assert min(layer.sqnr for layer in analysis.layers) > 25
    assert all(layer.own_sqnr is not None for layer in analysis.layers if layer.weight)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (nn.ConvTranspose2d(4, 6, 3, 2, groups=2), (2, 4, 5, 6)),
        (nn.Conv2d(4, 6, (3, 2), groups=2, bias=False), (2, 4, 5, 6)),
        (nn.Conv1d(4, 6, 3), (2, 4, 9)),
        (nn.Linear(4, 6, bias=False), (2, 4)),
    ],
    ids=["transposed", "grouped", "1d", "linear"],
)
def test_weights_of_every_layout(model: nn.Module, shape: tuple[int, ...]) -> None:
    model = nn.Sequential(model).eval()
    x = torch.randn(shape)
    with torch.no_grad():
        model[0].weight[0] *= 5  # to tell the channels apart
    quantized = pyquant.quantize(model, x, x, progress=False)

    program, graph = (
        next(layer for layer in analyze(model, one, x, own=True).layers if layer.weight)
        for one in (quantized, quantized.graph)
    )

    assert program.own_sqnr == pytest.approx(program.sqnr, abs=0.3)
    assert program.own_sqnr == pytest.approx(graph.own_sqnr, abs=0.3)
    assert program.weight is not None and graph.weight is not None
    assert program.weight.channels == 6
    assert max(program.weight.scales) == pytest.approx(max(graph.weight.scales))
    assert program.weight.clipped == pytest.approx(graph.weight.clipped, abs=0.02)
    outputs = math.prod(model(x).shape)
    weights = math.prod(model[0].weight.shape[1:])
    transposed = isinstance(model[0], nn.ConvTranspose2d)
    assert program.multiply_adds == (x.numel() if transposed else outputs) * weights


# --- Models of other kinds.


class Mixed(nn.Module):
    """Two inputs, two outputs, and a float operator between int8 ones."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.cumsum(self.a(x), 1)
        return self.c(z), F.relu(self.b(y))


def test_float_islands_and_several_inputs_and_outputs(data: Tensor) -> None:
    model = Mixed().eval()
    quantized = pyquant.quantize(model, (data[:1], data[:1]), [(data, data + 1)], progress=False)

    analysis = analyze(model, quantized, [(data, data + 1)], own=True)

    assert [(layer.name, layer.int8) for layer in analysis.layers] == [
        ("a", True),
        ("cumsum", False),
        ("c", True),
        ("b", True),
    ]
    assert layer(analysis, "cumsum").own_sqnr is None
    assert [target.name for target in analysis.targets][1:] == ["q/dq graph", "Programs and ATen"]
    assert analysis.targets[2].agreement is None
    assert analysis.targets[2].sqnr > 30


def test_a_graph_of_another_quantizer() -> None:
    model = Residual().eval()
    graph = by_xnnpack(model, IMAGE)
    exported = torch.export.export(model, IMAGE).module()

    for floats in (exported, model):
        analysis = analyze(floats, graph, [IMAGE], own=True)
        assert [layer.name for layer in analysis.layers if layer.weight] == [
            "stem.conv",
            "first",
            "second",
        ]
        assert min(layer.sqnr for layer in analysis.layers) > 10
    assert analyze(model, pyquant.lower(graph), [IMAGE]).targets[2].sqnr > 10


def test_a_model_that_is_bound_to_its_batch_size(data: Tensor) -> None:
    class Bound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.conv(x).view(4, 2 * 14 * 14)
            return result

    model = Bound().eval()
    quantized = pyquant.quantize(model, data[:2], data, progress=False)

    assert analyze(model, quantized, data).samples == 20
    with pytest.raises(InvalidInputError, match=r"takes 2 samples at once; a batch .* has 3"):
        analyze(model, quantized, data[:3])


# --- Faults.


def test_a_wrong_scale_in_the_program_shows_itself(
    net: Net, quantized: QuantizedModule, data: Tensor
) -> None:
    assert quantized.program is not None
    program = copy.deepcopy(quantized.program)
    (node,) = (node for node in program.nodes if node.name == "relu")
    program.tensors[node.output].scale *= 10
    broken = ProgramModule(program)

    healthy = analyze(net, quantized, data)
    analysis = analyze(net, QuantizedModule(broken, [broken], graph=quantized.graph), data)

    assert layer(analysis, "stem.conv").sqnr == layer(healthy, "stem.conv").sqnr
    drops = {
        one.name: other.sqnr - one.sqnr
        for one, other in zip(analysis.layers, healthy.layers, strict=True)
    }
    assert drops["depthwise"] > 10
    assert layer(analysis, "depthwise").sqnr == min(layer.sqnr for layer in analysis.layers[:2])
    assert analysis.targets[1].sqnr == healthy.targets[1].sqnr  # the graph is well


def test_a_file_of_another_model_shows_itself(
    net: Net, quantized: QuantizedModule, data: Tensor, tmp_path: Path
) -> None:
    mobile = pytest.importorskip("pyquant.mobile")
    torch.manual_seed(9)
    other, narrow = Net().eval(), Net().eval()
    narrow.head = nn.Linear(8, 4)
    paths = []
    for name, model in (("right", net), ("wrong", other), ("narrow", narrow)):
        lowered = quantized if model is net else pyquant.quantize(model, data[:1], data)
        mobile.export(
            lowered,
            tmp_path / name,
            targets=("torchscript",),
            example_inputs=data[:1],
            progress=False,
        )
        paths.append(tmp_path / name / "model.ptl")

    analysis = analyze(net, quantized, data, targets=mobile.targets(*paths))

    right, wrong, other_classes = analysis.targets[3:]
    assert right.name == "PyTorch Mobile (.ptl)" and str(paths[1]) in wrong.name
    assert right.sqnr > 20 and right.size == paths[0].stat().st_size
    assert wrong.sqnr < 10
    assert wrong.cosine < 0.9 < right.cosine
    assert (other_classes.sqnr, other_classes.cosine) == (-math.inf, 0.0)
    assert other_classes.agreement == 0.0


def test_nan_outputs_of_a_target_are_infinitely_wrong(
    net: Net, quantized: QuantizedModule, data: Tensor
) -> None:
    target = Target("broken", lambda x: net(x) * torch.nan)

    found = analyze(net, quantized, data, targets=[target]).targets[-1]

    assert (found.sqnr, found.cosine, found.largest_error) == (-math.inf, 0.0, math.inf)
    assert found.agreement == 0.0


def test_nan_in_the_float_model_names_the_layer(quantized: QuantizedModule, data: Tensor) -> None:
    model = Net().eval()
    with torch.no_grad():
        model.depthwise.weight.sign_().mul_(2e38)

    with pytest.raises(InvalidInputError, match=r"batch 0: NaN or infinite .* layer 'depthwise'"):
        analyze(model, quantized, data)


def test_another_model_is_refused(quantized: QuantizedModule, data: Tensor) -> None:
    wide = Net().eval()
    wide.project, wide.depthwise = nn.Conv2d(4, 8, 1), nn.Conv2d(8, 4, 3, 1, 1, groups=4)

    with pytest.raises(InvalidInputError, match=r"'depthwise' gives .* not the same model"):
        analyze(wide, quantized, data)
    with pytest.raises(InvalidInputError, match="no layer of the float model"):
        analyze(nn.Sequential(nn.BatchNorm2d(3), nn.Sigmoid()), quantized, data)


def test_bad_arguments_are_explained(net: Net, quantized: QuantizedModule, data: Tensor) -> None:
    with pytest.raises(CalibrationError, match="no data"):
        analyze(net, quantized, [])
    with pytest.raises(InvalidInputError, match="two targets have one name"):
        analyze(net, quantized, data, targets=[Target("Program", net)])
    with pytest.raises(InvalidInputError, match="crashing does not run: oh"):
        analyze(net, quantized, data, targets=[Target("crashing", _crash)])


def _crash(*_: Tensor) -> Tensor:
    raise RuntimeError("oh")


def test_latency_is_measured(net: Net, quantized: QuantizedModule, data: Tensor) -> None:
    analysis = pyquant.analyze(net, quantized, data[:1], progress=False)

    assert all(target.milliseconds and target.milliseconds > 0 for target in analysis.targets)
