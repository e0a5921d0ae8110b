"""``quantize_dynamic`` first, then compiling: both kinds of int8 in one model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import pyquant
from pyquant.analysis.sqnr import sqnr
from pyquant.compile.first_run import MacCounter
from pyquant.errors import InvalidInputError

pytestmark = pytest.mark.usefixtures("fresh_dynamo")

STEPS, BATCH = 20, 2
CONVOLUTION_MACS = STEPS * BATCH * (8 * 2 * 8 + 2 * 16)
LSTM_MACS = STEPS * BATCH * 2 * (4 * 8 * (8 + 8) + 4 * 8 * (16 + 8))


def same_graph(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return function(x)


def own_graph(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    torch._dynamo.graph_break()
    y = function(x)
    torch._dynamo.graph_break()
    return y


@torch._dynamo.disable
def eager(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    return function(x)


class Recurrent(nn.Module):
    def __init__(self, call: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 8, 4)
        self.lstm = nn.LSTM(8, 8, bidirectional=True, num_layers=2)
        self.out = nn.Conv1d(16, 2, 1)
        self.call = call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).relu().permute(2, 0, 1)
        y = self.call(lambda rows: self.lstm(rows)[0], y)
        return self.out(y.permute(1, 2, 0))


def make(call: Callable[..., torch.Tensor]) -> nn.Module:
    torch.manual_seed(0)
    return Recurrent(call).eval()


def signals(seed: int, batch: int = BATCH, length: int = 84) -> torch.Tensor:
    return torch.randn(batch, 2, length, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("call", [same_graph, own_graph, eager])
def test_a_dynamic_lstm_is_int8_wherever_it_runs(call: Callable[..., torch.Tensor]) -> None:
    model = make(call)
    dynamic = pyquant.quantize_dynamic(model, {nn.LSTM})
    quantizer = pyquant.CompiledQuantizer(dynamic, strict=True)
    for seed in range(3):
        quantizer(signals(seed))

    q = quantizer.convert()

    x = signals(9)
    with torch.no_grad():
        assert sqnr(model(x), q(x)) > 30
    report = q.report()
    assert report.int8_share == 1.0
    assert report.macs == 3 * (CONVOLUTION_MACS + LSTM_MACS)
    inside = call is same_graph
    assert report.outside_macs == report.outside_int8_macs == (0 if inside else 3 * LSTM_MACS)
    assert ("of these in int8" in str(report)) != inside
    with MacCounter() as counter:  # does not look into Programs
        q(x)
    assert counter.macs == counter.int8_macs == LSTM_MACS


def test_in_a_float_subgraph_the_dynamic_layers_alone_are_int8() -> None:
    dynamic = pyquant.quantize_dynamic(make(same_graph), {nn.LSTM})
    quantizer = pyquant.CompiledQuantizer(
        dynamic, pyquant.QuantizationConfig(keep_float=("conv", "out"))
    )
    quantizer(signals(0))

    report = quantizer.convert().report()

    assert [entry.state for entry in report.subgraphs] == ["float"]
    assert report.int8_share == pytest.approx(LSTM_MACS / (LSTM_MACS + CONVOLUTION_MACS))


def test_other_lengths_and_batch_sizes_run_in_int8() -> None:
    model = make(same_graph)
    dynamic = pyquant.quantize_dynamic(model, {nn.LSTM})
    quantizer = pyquant.CompiledQuantizer(dynamic, strict=True)
    for seed in range(3):
        quantizer(signals(seed))
    q = quantizer.convert()

    for x in (signals(4, batch=3), signals(5, length=120), signals(6)):
        with torch.no_grad():
            assert sqnr(model(x), q(x)) > 25

    assert {entry.state for entry in q.report().subgraphs} == {"int8"}


def test_in_one_step_the_dynamic_lstm_is_captured_with_its_convolutions() -> None:
    model = make(same_graph)
    dynamic = pyquant.quantize_dynamic(model, {nn.LSTM})
    compiled = torch.compile(dynamic, backend="pyquant", options={"calibration_steps": 2})
    with torch.no_grad():
        for seed in range(4):
            compiled(signals(seed))

        assert sqnr(model(signals(9)), compiled(signals(9))) > 25
    report = pyquant.compile_report(compiled)
    assert report.int8_share == 1.0
    (entry,) = report.subgraphs
    assert {at.target for at in entry.dynamic_operators} == {"pyquant.dynamic_recurrent.default"}
    assert not any(at.is_dynamic for at in entry.float_operators)
    lines = str(report).splitlines()
    assert "          int8 (dynamic): pyquant.dynamic_recurrent.default" in lines
    assert not any(line.strip().startswith("float: pyquant") for line in lines)


@pytest.mark.parametrize("call", [own_graph, eager])
def test_the_report_of_one_step_knows_the_whole_model_if_it_is_run(
    call: Callable[..., torch.Tensor],
) -> None:
    model = make(call)
    dynamic = pyquant.quantize_dynamic(model, {nn.LSTM})
    compiled = torch.compile(dynamic, backend="pyquant", options={"calibration_steps": 1})
    with torch.no_grad():
        compiled(signals(0))
        compiled(signals(1))

    subgraphs = pyquant.compile_report(compiled)
    whole = pyquant.compile_report(compiled, (signals(2),))

    assert not subgraphs.complete
    assert "not counted: what runs outside of subgraphs" in str(subgraphs)
    assert subgraphs.outside_macs == 0
    assert whole.complete and "not counted" not in str(whole)
    assert whole.macs == CONVOLUTION_MACS + LSTM_MACS
    assert whole.outside_macs == whole.outside_int8_macs == LSTM_MACS
    assert whole.int8_share == 1.0
    with pytest.raises(InvalidInputError, match="no subgraph"):
        pyquant.compile_report(dynamic, signals(3))
