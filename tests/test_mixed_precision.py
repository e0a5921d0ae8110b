"""Layers that stay float32: by name, and by search."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pyquant
from pyquant import QuantizationConfig
from pyquant.errors import LoweringError, QuantizationError
from pyquant.quantization.named_layers import find_layers
from pyquant.quantization.prepare import float_graph
from pyquant.targets import QuantizedModule


class Net(nn.Module):
    """Three convolutions, of which two can be spoilt, and a head."""

    def __init__(self, spoilt: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()
        )
        self.last = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16, 6)
        with torch.no_grad():
            for name in spoilt:
                # One output is 1000 times the others, and of no use: the next layer ignores it.
                self.get_submodule(name).weight[0] *= 1000
            if "features.0" in spoilt:
                self.features[2].weight[:, 0] = 0
            if "features.2" in spoilt:
                self.last.weight[:, 0] = 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.last(self.features(x))
        result: Tensor = self.head(F.adaptive_avg_pool2d(x + x.relu(), 1).flatten(1))
        return result


MINMAX = QuantizationConfig(observer="minmax")


@pytest.fixture(scope="module")
def data() -> Tensor:
    return torch.randn(8, 3, 12, 12, generator=torch.Generator().manual_seed(3))


def int8_layers(model: nn.Module, x: Tensor, *kept: str) -> list[str]:
    quantized = pyquant.quantize(model, x, x, QuantizationConfig(keep_float=kept), progress=False)
    analysis = pyquant.analyze(model, quantized, x, latency=False, progress=False)
    assert min(layer.sqnr for layer in analysis.layers) > 20
    return [layer.name for layer in analysis.layers if layer.weight and layer.weight.scales]


# --- Names.


@pytest.mark.parametrize(
    ("kept", "left"),
    [
        ((), ["features.0", "features.2", "last", "head"]),
        (("features.0",), ["features.2", "last", "head"]),
        (("features",), ["last", "head"]),
        (("features.*",), ["last", "head"]),
        (("conv2d",), ["head"]),
        (("linear", "l?st"), ["features.0", "features.2"]),
        (("relu", "add"), ["features.0", "features.2", "last", "head"]),
    ],
)
def test_what_is_named_stays_float(data: Tensor, kept: tuple[str, ...], left: list[str]) -> None:
    assert int8_layers(Net().eval(), data, *kept) == left


def test_a_module_comes_before_an_operator_of_its_name(data: Tensor) -> None:
    class Linears(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.other = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.other(self.linear(x))
            return result

    assert int8_layers(Linears().eval(), torch.randn(4, 4), "linear") == ["other"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("feature.0", "did you mean 'features.0'"),
        ("conv2", "did you mean 'conv2d'"),
        ("zzz", "names are as 'features.0', 'features.2'"),
    ],
)
def test_an_unknown_name_is_refused(data: Tensor, name: str, hint: str) -> None:
    with pytest.raises(QuantizationError, match=f"{name}.*{hint}"):
        pyquant.prepare(Net().eval(), data, QuantizationConfig(keep_float=(name,)))


def test_keeping_everything_is_refused(data: Tensor) -> None:
    with pytest.raises(QuantizationError, match="all of them are kept float"):
        pyquant.prepare(Net().eval(), data, QuantizationConfig(keep_float=("*",)))


def test_one_string_is_refused() -> None:
    with pytest.raises(QuantizationError, match="several names"):
        QuantizationConfig(keep_float="features.0")  # type: ignore[arg-type]


def test_names_of_layers_are_unique_and_name_one_layer(data: Tensor) -> None:
    class Repeats(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 3, 1), nn.Hardswish()

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.conv(x)) + x
            return self.act(self.conv(x)) + x

    layers = find_layers(float_graph(Repeats().eval(), data).graph)

    names = [layer.name for layer in layers]
    assert names == ["conv", "act", "add:1", "conv:2", "act:2", "add:2"]
    assert [layer.operators for layer in layers[:3]] == [("conv2d",), ("hardswish",), ("add",)]


# --- The search.


def search(model: nn.Module, data: Tensor, **options: object) -> pyquant.MixedPrecision:
    return pyquant.quantize_mixed(
        model,
        data[:1],
        data,
        config=MINMAX,
        progress=False,
        **options,  # type: ignore[arg-type]
    )


def outputs_sqnr(model: nn.Module, quantized: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        expected = model(x)
    noise = (expected - quantized(x)).square().sum()
    return float(10 * torch.log10(expected.square().sum() / noise))


def test_nothing_is_kept_if_int8_is_good_enough(data: Tensor, tmp_path: Path) -> None:
    model = Net().eval()

    found = search(model, data, target=15.0)

    assert found.config == MINMAX
    assert [step.kept for step in found.steps] == [()]
    found.model.save(tmp_path / "model.pyq")


@pytest.mark.parametrize("spoilt", ["features.0", "features.2"])
def test_the_spoilt_layer_is_found_and_kept(data: Tensor, spoilt: str) -> None:
    torch.manual_seed(2)
    model = Net((spoilt,)).eval()

    found = search(model, data, target=25.0)

    first, chosen = found.steps[0], found.steps[found.chosen]
    # The layer behind it reads the same coarse values: either may come first.
    assert spoilt in list(found.sensitivity)[:2]
    assert first.score < 20 and first.slowdown == 1.0
    assert spoilt in chosen.kept and len(chosen.kept) <= 2
    assert chosen.score >= 25.0
    assert outputs_sqnr(model, found.model, data) == pytest.approx(chosen.score, abs=0.1)
    again = pyquant.quantize(model, data[:1], data, found.config, progress=False)
    assert torch.equal(again(data), found.model(data))
    lines = str(found).splitlines()
    assert [line[0] for line in lines].index("*") == found.chosen + 1
    assert len(lines) == len(found.steps) + 2
    with pytest.raises(LoweringError, match="stayed float32"):
        found.model.save("model.pyq")


def test_superfluous_layers_are_dropped(data: Tensor) -> None:
    """By a metric to which one layer matters, and not the most sensitive one."""
    torch.manual_seed(2)
    model = Net().eval()
    ranked = search(model, data, target=1.0, metric=lambda m: has_float_layer(m, "head"))
    modules = dict(model.named_modules())
    wanted = [name for name in ranked.sensitivity if name in modules][1]

    found = search(model, data, target=1.0, metric=lambda m: float(has_float_layer(m, wanted)))

    assert found.steps[found.chosen].kept == (wanted,)
    assert max(len(step.kept) for step in found.steps) > 1


def has_float_layer(model: nn.Module, name: str) -> bool:
    """Whether a model, or the float model itself, computes this layer in float32."""
    if not isinstance(model, QuantizedModule):
        return True
    assert model.graph is not None
    (layer,) = (layer for layer in find_layers(model.graph.graph) if layer.name == name)
    inputs = [str(node.target) for node in layer.first.all_input_nodes]
    return not any("dequantize_per_channel" in target for target in inputs)


def test_the_users_metric_decides(data: Tensor) -> None:
    torch.manual_seed(2)
    model = Net(("features.2",)).eval()
    with torch.no_grad():
        labels = model(data).argmax(1)
    asked = []

    def accuracy(candidate: nn.Module) -> float:
        asked.append(candidate)
        return float((candidate(data).argmax(1) == labels).float().mean())

    found = search(model, data, target=1.0, metric=accuracy)

    assert found.float_score == 1.0
    assert len(asked) == len(found.steps) + 1
    assert accuracy(found.model) == 1.0


def test_a_target_beyond_reach_is_refused(data: Tensor) -> None:
    model = Net().eval()
    with pytest.raises(QuantizationError, match=r"float model itself scores 0.5, below .* 0.9"):
        search(model, data, target=0.9, metric=lambda _: 0.5)
    with pytest.raises(QuantizationError, match="only the float model reaches it"):
        search(model, data, target=200.0)
