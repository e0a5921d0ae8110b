"""Models that torch.export refuses: what dynamo captures of them runs in int8."""

from __future__ import annotations

import gc

import pytest
import torch
from compiled_nets import Branching, Plain, ThirdParty, check_close, images, make, quantized
from torch import nn

import pyquant
from pyquant.analysis.sqnr import sqnr
from pyquant.errors import CaptureError

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def test_a_whole_graph_is_the_model_that_quantize_makes() -> None:
    model, x = make(Plain), images()

    q = quantized(model, x)

    expected = pyquant.quantize(model, x, [x], progress=False)
    assert torch.equal(q(x), expected(x))
    assert q.report().int8_share == 1.0


def test_both_branches_are_int8_if_both_are_calibrated() -> None:
    model, bright, dark = make(Branching), images(shift=1.0), images(shift=-1.0)
    with pytest.raises(CaptureError):
        pyquant.quantize(model, bright, [bright])

    q = quantized(model, bright, dark)

    check_close(model, q, bright)
    check_close(model, q, dark)
    report = q.report()
    assert report.int8_share == 1.0
    assert len(report.subgraphs) == 3
    assert [entry.calls for entry in report.subgraphs] == [4, 2, 2]
    assert len(q._session.graphs) == 3  # nothing is compiled a second time
    assert report.graph_breaks
    assert "compiled_nets.py" in report.subgraphs[0].location
    assert "100.0% of the multiply-adds run in int8" in str(report)


def test_a_branch_that_no_calibration_took_stays_float_and_is_reported() -> None:
    model, bright, dark = make(Branching), images(shift=1.0), images(shift=-1.0)

    q = quantized(model, bright)

    check_close(model, q, bright)
    check_close(model, q, dark)  # its stem is int8
    stayed = [entry for entry in q.report().subgraphs if entry.state == "float"]
    assert [entry.reason for entry in stayed] == ["no calibration call took this path"]
    assert stayed[0].calls == 1
    assert "because no calibration call took this path" in str(q.report())


class Looping(nn.Module):
    """Runs its block until the sum is small: how often depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            x = self.block(x) * 0.5
            if x.abs().max().item() < 0.2:
                break
        return x


def test_a_loop_runs_its_block_in_int8_however_often() -> None:
    model = make(Looping)
    long, short = images(shift=2.0), images() * 1e-3

    q = quantized(model, long, short)

    check_close(model, q, long)
    assert sqnr(model(images(seed=5)).detach(), q(images(seed=5))) > 20


def test_third_party_code_runs_between_int8_subgraphs() -> None:
    model, x = make(ThirdParty), images()

    q = quantized(model, x)

    check_close(model, q, x)
    assert q.report().int8_share == 1.0
    assert len([entry for entry in q.report().subgraphs if entry.state == "int8"]) == 2


def test_inference_mode_works_in_either_phase() -> None:
    model, x = make(Branching), images(shift=1.0)
    quantizer = pyquant.CompiledQuantizer(model, strict=True)
    with torch.inference_mode():
        quantizer(x)
        quantizer(images(shift=1.0))
    quantizer(x)
    q = quantizer.convert()

    with torch.inference_mode():
        inside = q(x)
    assert torch.equal(inside, q(x))


def test_two_instances_of_a_class_do_not_mix() -> None:
    first, second, x = make(Branching, 0), make(Branching, 1), images(shift=1.0)

    q = quantized(first, x)
    other = quantized(second, x * 3)

    check_close(first, q, x)
    check_close(second, other, x * 3)
    assert sqnr(q(x), other(x)) < 10


class Twice(nn.Module):
    """Two modules of one class, between graph breaks: dynamo has one graph for both."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            torch._dynamo.graph_break()
            x = block(x) * 3
        return x


def test_modules_that_share_a_graph_keep_their_own_weights_and_ranges() -> None:
    model, x = make(Twice), images()

    q = quantized(model, x)

    check_close(model, q, x)
    assert q.report().int8_share == 1.0


def test_changed_weights_are_not_served_by_the_old_program() -> None:
    model, x = make(Branching), images(shift=1.0)
    q = quantized(model, x)
    q(x)

    with torch.no_grad():
        model.head.weight.mul_(-2)

    assert sqnr(model(x).detach(), q(x)) > 25


def test_a_model_that_goes_takes_its_subgraphs_along() -> None:
    q = quantized(make(Branching), images(shift=1.0))
    session = q._session
    assert len(session._subgraphs) == 2

    del q
    gc.collect()

    assert not session._subgraphs
