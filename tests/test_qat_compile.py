"""Quantization in training inside of torch.compile."""

from __future__ import annotations

import copy
import shutil

import pytest
import torch
from torch import nn

import pyquant

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, padding=1),
        nn.Hardswish(),
        nn.Flatten(),
        nn.Linear(8 * 36, 5),
    )


BACKENDS = [
    "aot_eager",
    "aot_eager_decomp_partition",  # computes some values again for the gradient
    pytest.param(
        "inductor",
        marks=pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs g++"),
    ),
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("learned", [False, True])
def test_a_compiled_graph_trains_as_the_graph_itself(learned: bool, backend: str) -> None:
    batches = torch.randn(3, 4, 3, 8, 8) * torch.tensor([1.0, 2.0, 1.5]).view(3, 1, 1, 1, 1)
    config = pyquant.QatConfig(averaging_constant=0.5, learned_step_size=learned)
    first = pyquant.prepare_qat(net(), batches[0], config)
    second = copy.deepcopy(first)
    compiled = torch.compile(second, backend=backend, fullgraph=True)
    for graph in (first, compiled):
        for x in batches:
            graph(x).square().mean().backward()

    for (name, own), other in zip(second.named_parameters(), first.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-4, msg=name)
    for name, value in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, msg=name)
    assert torch.equal(pyquant.convert(compiled)(batches[0]), pyquant.convert(second)(batches[0]))


def test_nan_is_refused_by_a_compiled_graph() -> None:
    x = torch.randn(4, 3, 8, 8)
    prepared = pyquant.prepare_qat(net(), x)
    compiled = torch.compile(prepared, backend="aot_eager")
    compiled(x)
    x[0] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        compiled(x)
