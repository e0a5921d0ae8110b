"""One-dimensional networks: signals [N, C, L]."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pyquant
from lowering.quantizers import assert_whole, by_pyquant, kinds, sqnr, steps_apart

SIGNAL = (torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(1)),)


class Classifier(nn.Module):
    """Convolutions with batch norms, a residual, pooling and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm1d(8), nn.ReLU(inplace=True)
        )
        self.branch = nn.Sequential(
            nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=2), nn.BatchNorm1d(8), nn.SiLU()
        )
        self.same = nn.Conv1d(8, 6, 4, padding="same")
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool1d(self.stem(x), 3, 2, 1)
        x = F.relu(x + self.branch(x))
        x = F.avg_pool1d(F.pad(self.same(x), (1, 0)), 2, count_include_pad=False)
        result: Tensor = self.head(F.adaptive_avg_pool1d(x, 1).flatten(1))
        return result


class Denoiser(nn.Module):
    """A signal for a signal."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(3, 16, 9, padding=4), nn.Hardswish(), nn.Conv1d(16, 3, 1), nn.Tanh()
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class WaveUNet(nn.Module):
    """Strided convolutions down, gates, transposed ones up, and a skip that is cut to fit."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(
            nn.Conv1d(3, 8, 8, 4), nn.GELU(), nn.Conv1d(8, 16, 1), nn.GLU(dim=1)
        )
        self.deep = nn.Sequential(nn.Conv1d(8, 16, 3, padding=1), nn.GLU(dim=-2))
        self.up = nn.Sequential(
            nn.ConvTranspose1d(16, 8, 8, 4, padding=1, output_padding=2), nn.ReLU()
        )
        self.out = nn.ConvTranspose1d(8, 2, 3, groups=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(x)
        y = torch.cat([self.deep(skip)[..., 1:9], skip[..., 1:9]], 1)
        result: Tensor = self.out(self.up(y))
        return result


CONVOLUTIONS = {Classifier: 3, Denoiser: 2, WaveUNet: 3}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_signals(kind: type[nn.Module]) -> None:
    model = kind().eval()
    graph = by_pyquant(model, SIGNAL)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    assert kinds(lowered).count("Conv2d") == CONVOLUTIONS[kind]
    assert steps_apart(graph, lowered, *SIGNAL) <= 2.01
    longer = torch.randn(3, 3, 91)
    assert steps_apart(graph, lowered, longer) <= 2.01
    with torch.no_grad():
        assert sqnr(model(*SIGNAL), graph(*SIGNAL)) > 20


def test_the_signal_is_turned_once_on_the_way_in_and_out() -> None:
    lowered = pyquant.lower(by_pyquant(Denoiser(), SIGNAL))
    assert kinds(lowered).count("Reshape") == 2


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_a_captured_model_computes_the_same(kind: type[nn.Module]) -> None:
    model = kind().eval()
    captured = pyquant.capture.capture(model, SIGNAL)
    with torch.no_grad():
        torch.testing.assert_close(captured(*SIGNAL), model(*SIGNAL), rtol=1e-5, atol=1e-5)
    aten = torch.ops.aten
    for target in (aten.conv1d.default, aten.conv_transpose1d.default, aten.glu.default):
        assert not captured.graph.find_nodes(op="call_function", target=target)


class Gates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 4, 1) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        first, second, third = (conv(x) for conv in self.convs)
        return F.glu(first, 1), F.glu(second), F.glu(third, 0)


def test_gates_along_any_dimension_but_the_batch() -> None:
    model, x = Gates().eval(), torch.randn(2, 3, 6, 8)
    captured = pyquant.capture.capture(model, (x,))
    glu = torch.ops.aten.glu.default
    assert len(captured.graph.find_nodes(op="call_function", target=glu)) == 1
    with torch.no_grad():
        for expected, actual in zip(model(x), captured(x), strict=True):
            torch.testing.assert_close(actual, expected)
    lowered = pyquant.lower(by_pyquant(model, (x,)))
    assert [stayed.target for stayed in lowered.float_operators] == ["aten.glu.default"]
