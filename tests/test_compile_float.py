"""What stays float in a compiled model, and why."""

from __future__ import annotations

import pytest
import torch
from compiled_nets import Branching, check_close, images, make, quantized
from torch import nn

import pyquant
from pyquant.analysis.sqnr import sqnr
from pyquant.errors import QuantizationError

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


@torch.library.custom_op("pyquant_tests::scaled_tanh", mutates_args=())
def scaled_tanh(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) * weight.float() / 127


@scaled_tanh.register_fake
def _(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Foreign(nn.Module):
    """With a layer that is quantized already, as an operator of its own with int8 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 3, padding=1)
        self.after = nn.Conv2d(8, 4, 3, padding=1)
        self.register_buffer("weight", torch.arange(1, 9, dtype=torch.int8).view(8, 1, 1) * 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(scaled_tanh(self.before(x), self.weight))


def test_custom_operators_stay_between_programs() -> None:
    model, x = make(Foreign), images()

    q = quantized(model, x)

    check_close(model, q, x)
    (entry,) = q.report().subgraphs
    assert entry.int8_macs == entry.macs
    assert [stayed.target for stayed in entry.float_operators] == [
        "pyquant_tests.scaled_tanh.default"
    ]


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        x[:, 0] = 0.0
        return self.conv(x)


def test_what_writes_into_its_inputs_stays_float() -> None:
    model, x = make(Writing), images()
    quantizer = pyquant.CompiledQuantizer(model)
    quantizer(x.clone())
    quantizer(x.clone())
    q = quantizer.convert()

    given = x.clone()
    y = q(given)

    assert float(model.calls) == 3
    assert not given[:, 0].any()
    assert torch.equal(y, model.conv(given))
    assert {entry.reason for entry in q.report().subgraphs} == {"it writes into its inputs"}


class ManyOutputs(nn.Module):
    """Hands on an input, numbers and integers, over a graph break."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.index = nn.Embedding(10, 4)

    def forward(self, x: torch.Tensor, rows: torch.Tensor, scale: int = 2) -> dict[str, object]:
        y = self.conv(x).relu()
        size = x.shape[0] * scale
        chosen = self.index(rows)
        torch._dynamo.graph_break()
        return {"sum": self.conv(x * scale) + y, "size": size, "x": x, "rows": (rows + 1, chosen)}


def test_outputs_of_all_kinds_come_back() -> None:
    model, x, rows = make(ManyOutputs), images(), torch.tensor([[1, 2], [3, 4]])
    quantizer = pyquant.CompiledQuantizer(model, strict=True)
    quantizer(x, rows, scale=3)
    q = quantizer.convert()

    for batch in (x, images(6), images(5)):
        actual, expected = q(batch, rows, scale=3), model(batch, rows, scale=3)
        assert actual["size"] == expected["size"]
        assert actual["x"] is batch
        assert torch.equal(actual["rows"][0], rows + 1)
        assert torch.equal(actual["rows"][1], expected["rows"][1])
        assert sqnr(expected["sum"].detach(), actual["sum"]) > 25


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 8, 4)
        self.lstm = nn.LSTM(8, 8, bidirectional=True, num_layers=2)
        self.out = nn.Conv1d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).relu().permute(2, 0, 1)
        return self.out(self.lstm(y)[0].permute(1, 2, 0))


def test_an_lstm_stays_float_and_counts_as_such() -> None:
    model, x = make(Recurrent), torch.randn(2, 2, 84)

    q = quantized(model, x)

    check_close(model, q, x)
    steps = 20
    convolutions = steps * 2 * (8 * 2 * 8 + 2 * 16)
    lstm = steps * 2 * 2 * (4 * 8 * (8 + 8) + 4 * 8 * (16 + 8))
    report = q.report()
    assert report.macs == convolutions + lstm
    assert report.int8_share == pytest.approx(convolutions / (convolutions + lstm))
    assert any("lstm" in stayed.target for stayed in report.subgraphs[0].float_operators)


def test_what_cannot_be_lowered_stays_float_unless_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise QuantizationError("not today")

    model, x = make(Branching), images(shift=1.0)
    monkeypatch.setattr("pyquant.compile.subgraph.convert", refuse)

    q = quantized(model, x, strict=False)

    assert torch.equal(q(x), model(x))
    assert {entry.reason for entry in q.report().subgraphs} == {"not today"}
    torch._dynamo.reset()
    with pytest.raises(QuantizationError, match="not today"):
        quantized(model, x, strict=True)


def test_named_modules_stay_float_in_whichever_subgraph_they_are() -> None:
    model, x = make(Branching), images(shift=1.0)
    config = pyquant.QuantizationConfig(keep_float=("bright", "linear"))
    quantizer = pyquant.CompiledQuantizer(model, config, strict=True)
    quantizer(x)
    q = quantizer.convert()

    check_close(model, q, x)  # its stem is int8
    first, second = q.report().subgraphs
    assert first.int8_macs == first.macs > 0
    assert (second.state, second.reason) == ("float", "keep_float names all of its layers")

    config = pyquant.QuantizationConfig(keep_float=("brihgt",))
    quantizer = pyquant.CompiledQuantizer(model, config)
    quantizer(x)
    with pytest.raises(QuantizationError, match="keep_float names 'brihgt'"):
        quantizer.convert()
