"""Compiled models with other batch sizes and image sizes than those of calibration."""

from __future__ import annotations

import pytest
import torch
from compiled_nets import Branching, Plain, check_close, images, make, quantized
from torch import nn

from pyquant.analysis.sqnr import sqnr
from pyquant.errors import InvalidInputError
from pyquant.targets.program_module import ProgramModule

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


@pytest.mark.parametrize("size", [1, 7])
def test_another_batch_size_runs_the_same_programs(size: int) -> None:
    model, x = make(Branching), images(shift=1.0)
    q = quantized(model, x)

    other = images(size, shift=1.0, seed=3)

    check_close(model, q, other)
    assert torch.equal(q(torch.cat([other[:1], x])), torch.cat([q(other[:1]), q(x)]))
    assert all(entry.state == "int8" for entry in q.report().subgraphs)


class Viewing(nn.Module):
    """Spells its sizes out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.next = nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).relu()
        n, c, h, w = y.shape
        y = y.view(n, c, h // 2, 2, w).transpose(2, 3).reshape(n, c * 2, h // 2, w)
        return self.next(y)


def test_other_sizes_take_the_ranges_that_are_known() -> None:
    model, x = make(Viewing), images()
    q = quantized(model, x)

    for other in (images(2, size=12), images(3, size=6), images(1)):
        check_close(model, q, other, at_least=20)
    (entry,) = q.report().subgraphs
    assert entry.state == "int8"
    assert entry.observed == 1


class Cutting(nn.Module):
    """Reads from the end of the image and of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu()[-2:, :, :, 1:-1]


def test_slices_from_the_end_follow_the_sizes() -> None:
    model, x = make(Cutting), images()
    q = quantized(model, x)

    for other in (images(4, size=12), images(6), images(3)):
        check_close(model, q, other, at_least=20)


def test_an_empty_batch_is_no_harm() -> None:
    model, x = make(Plain), images()
    q = quantized(model, x)
    before = q(x)

    assert q(x[:0]).shape == (0, 5)
    assert torch.equal(q(x), before)
    assert q.report().subgraphs[0].state == "int8"


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_program_that_refuses_a_batch_size_is_replaced(
    stubborn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ProgramModule.forward

    def refuse(self: ProgramModule, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        made_for = self.program.tensors[self.program.inputs[0]].shape[0]
        if inputs[0].shape[0] != made_for or (stubborn and made_for == 7):
            raise InvalidInputError("not this batch size")
        return run(self, *inputs)

    model, x = make(Plain), images()
    q = quantized(model, x)
    monkeypatch.setattr(ProgramModule, "forward", refuse)

    y = q(images(7))

    assert torch.equal(y, model(images(7))) == stubborn
    assert sqnr(model(images(7)).detach(), y) > 25
    reasons = {entry.reason for entry in q.report().subgraphs}
    assert ("not this batch size" in reasons) == stubborn
