"""pyquant.quantization: equalize and channel_groups."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyquant.quantization import QuantizationConfig, calibrate, convert, prepare
from pyquant.quantization.channel_groups import channel_groups
from pyquant.quantization.weighted_layers import weighted_layers

KINDS = ("plain", "depthwise", "grouped", "transposed")
ACTIVATIONS: dict[str, nn.Module] = {
    "none": nn.Identity(),
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "leaky": nn.LeakyReLU(0.1),
    "hardswish": nn.Hardswish(),
    "pool": nn.MaxPool2d(2, ceil_mode=True),
}


def layer(kind: str) -> nn.Module:
    if kind == "transposed":
        return nn.ConvTranspose2d(8, 8, 2, stride=2, groups=2)
    groups = {"plain": 1, "depthwise": 8, "grouped": 2}[kind]
    return nn.Conv2d(8, 8, 3, padding=1, groups=groups, bias=kind != "grouped")


class Net(nn.Module):
    """Layers in a chain, each perhaps with a residual sum; some share one module."""

    def __init__(self, steps: list[tuple[str, str, bool, bool]]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.again = nn.Conv2d(8, 8, 1)
        self.body = nn.ModuleList(layer(kind) for kind, *_ in steps)
        self.steps = steps
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.stem(x)
        for module, (_, activation, residual, shared) in zip(self.body, self.steps, strict=True):
            z = ACTIVATIONS[activation](module(y))
            y = y + z if residual and z.shape == y.shape else z
            y = torch.relu(self.again(y)) if shared else y
        return self.head(nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))


def uneven(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(
                    torch.rand(parameter.shape[:2]).reshape(
                        *parameter.shape[:2], *[1] * (parameter.dim() - 2)
                    )
                    * 4
                )
    return model.eval()


def equalized(model: nn.Module, x: torch.Tensor) -> Any:
    return prepare(model, x, QuantizationConfig(equalize=True, observer="minmax"))


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS), st.sampled_from(list(ACTIVATIONS)), st.booleans(), st.booleans()
        ),
        min_size=1,
        max_size=3,
    )
)
def test_the_function_does_not_change(steps: list[tuple[str, str, bool, bool]]) -> None:
    torch.manual_seed(0)
    model, x = uneven(Net(steps)), torch.randn(2, 3, 8, 8) * 5
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        expected, actual = model(x), equalized(model, x)(x)
    assert (expected - actual).abs().max() <= 1e-5 * expected.abs().max()
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())


def test_ranges_are_equal_on_both_sides() -> None:
    model = uneven(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)))
    prepared = equalized(model, torch.randn(1, 3, 8, 8))
    first, second = (found.weight for found in weighted_layers(prepared))
    ratio = first.abs().amax((1, 2, 3)) / second.abs().amax((0, 2, 3))
    torch.testing.assert_close(ratio, ratio[:1].expand(8), rtol=1e-4, atol=0)


def test_a_residual_stream_is_one_group_and_clamps_are_left_alone() -> None:
    x = torch.randn(1, 3, 8, 8)
    stream = prepare(Net([("plain", "none", True, False)] * 2).eval(), x)
    # The stem and both branches write it; both branches and the head read it.
    assert [(len(g.writers), len(g.readers)) for g in channel_groups(stream)] == [(3, 3)]
    torch.manual_seed(0)
    clamped = uneven(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU6(), nn.Conv2d(8, 4, 1)))
    before = [found.weight for found in weighted_layers(prepare(clamped, x))]
    after = [found.weight for found in weighted_layers(equalized(clamped, x))]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_dead_channels_and_features_on_another_axis() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.wide, self.last = (
                nn.Conv2d(3, 8, 1),
                nn.Linear(8, 8),
                nn.Conv2d(8, 2, 1),
            )

        def forward(self, x: torch.Tensor) -> Any:
            return self.last(torch.relu(self.wide(torch.relu(self.conv(x)))))

    model, x = Odd().eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        model.conv.weight[2] = 0
        model.last.weight[:, 3] = 0
        torch.testing.assert_close(equalized(model, x)(x), model(x), rtol=1e-5, atol=1e-5)


def test_weights_with_one_scale_gain() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1)
    ).eval()
    with torch.no_grad():
        factor = torch.logspace(-1.5, 1.5, 16)
        for first, second in ((0, 2), (2, 4)):
            model[first].weight.mul_(factor[:, None, None, None])
            model[first].bias.mul_(factor)
            model[second].weight.div_(factor[:, None, None])
    x, noise = torch.randn(32, 3, 12, 12), []
    for equalize in (False, True):
        config = QuantizationConfig(per_channel=False, equalize=equalize)
        prepared = prepare(model, x[:1], config)
        calibrate(prepared, x)
        with torch.no_grad():
            noise.append(float((model(x) - convert(prepared)(x)).square().sum()))
    assert noise[1] < 0.1 * noise[0]
