"""Graphs that are no whole Program, and what ``lower`` refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pyquant
from lowering.nets import IMAGE, NETS, Mlp, Residual, Stem
from lowering.quantized_operator import lowered_operator
from lowering.quantizers import Quantizer, by_pyquant, by_xnnpack, kinds, steps_apart
from pyquant.errors import LoweringError
from pyquant.ir.lower import lower_graph

# --- Graphs that are no whole Program.


class Island(nn.Module):
    """Convolutions around something that has no int8 operator."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem = Stem()
        self.function = function
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(self.function(self.stem(x)))
        return result


class Across(Island):
    """An int8 value is used before and behind an island."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv(self.function(self.conv(x)))
        return F.relu(x + y)


class Branches(nn.Module):
    """Islands of different depth in parallel branches, crossing each other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.a = nn.Conv2d(8, 8, 1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(x)
        left = torch.cumsum(self.a(x), 1)
        right = F.relu(self.b(x))
        right = self.c(F.softmax(right, 1) + right)
        joined = self.b(left + torch.cumsum(right, 2))
        return joined, F.max_pool2d(right, 2), x


ISLANDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "cumsum": (lambda x: torch.cumsum(x, 1), "cumsum"),
    "softmax": (lambda x: F.softmax(x, 1), "softmax"),
    "fft": (lambda x: torch.fft.fft(x).real.contiguous(), "fft"),
    "deep": (lambda x: torch.sin(F.relu(torch.cumsum(x, 1) * 0.5)) + x, "sin"),
}


@pytest.mark.parametrize("quantizer", [by_pyquant, by_xnnpack])
@pytest.mark.parametrize("net", [Island, Across])
@pytest.mark.parametrize("island", ISLANDS)
def test_island(island: str, net: type[Island], quantizer: Quantizer, tmp_path: Any) -> None:
    function, name = ISLANDS[island]
    graph = quantizer(net(function), IMAGE)
    lowered = pyquant.lower(graph)
    assert steps_apart(graph, lowered, *IMAGE) <= 3.01
    assert lowered.program is None
    assert "Conv2d" in kinds(lowered)
    (operator,) = [entry for entry in lowered.float_operators if name in entry.target]
    assert operator.why
    with pytest.raises(LoweringError, match=rf"(?s){name}.*\.pt2"):
        lowered.save(tmp_path / "model.pyq")
    assert not list(tmp_path.iterdir())
    with pytest.raises(LoweringError, match=name):
        pyquant.lower(graph, whole=True)


@pytest.mark.parametrize("quantizer", [by_pyquant, by_xnnpack])
def test_islands_in_parallel_branches(quantizer: Quantizer) -> None:
    graph = quantizer(Branches(), IMAGE)
    lowered = pyquant.lower(graph)
    assert steps_apart(graph, lowered, *IMAGE) <= 4.01
    assert len(lowered.programs) >= 2
    targets = " ".join(operator.target for operator in lowered.float_operators)
    assert targets.count("cumsum") == 2
    assert targets.count("softmax") == 1


def test_a_mixed_model_reports_wrong_inputs() -> None:
    lowered = pyquant.lower(by_pyquant(Island(ISLANDS["cumsum"][0]), IMAGE))
    with pytest.raises(pyquant.PyquantError):
        lowered(IMAGE[0][:, :2])


# --- What lower() refuses.


def test_a_float_graph_is_refused() -> None:
    graph = torch.export.export(Mlp().eval(), NETS["mlp"][1]).module()
    with pytest.raises(LoweringError, match="quantize"):
        pyquant.lower(graph)


def test_a_prepared_graph_is_refused() -> None:
    with pytest.raises(LoweringError):
        pyquant.lower(pyquant.prepare(Mlp().eval(), NETS["mlp"][1]))


@pytest.mark.parametrize(
    "form",
    [(0.05, 0, -32768, 32767, torch.int16), (float("nan"), 0, 0, 255, torch.uint8)],
    ids=["int16", "NaN"],
)
def test_foreign_qparams_that_cannot_be_run_are_refused(form: tuple[Any, ...]) -> None:
    with pytest.raises(LoweringError):
        lowered_operator(F.relu, form, torch.randn(3, 4))


def test_unknown_engine() -> None:
    with pytest.raises(pyquant.errors.UnsupportedError, match="warp"):
        pyquant.lower(by_pyquant(Mlp(), NETS["mlp"][1]), engine="warp")


def test_lowering_does_not_change_the_graph() -> None:
    graph = by_pyquant(Residual(), IMAGE)
    before, expected = str(graph.graph), graph(*IMAGE)
    lower_graph(graph)
    assert str(graph.graph) == before
    assert torch.equal(graph(*IMAGE), expected)
