"""Networks trained on real data keep their accuracy in int8."""

from __future__ import annotations

from collections.abc import Callable

import digits_nets
import pytest
import torch

import pyquant

#: A share of the held-out images: 0.3 points.
TOLERANCE = 0.003


@pytest.mark.parametrize("name", digits_nets.NETS)
def test_int8_is_as_accurate_as_float(
    name: str,
    digits: digits_nets.Digits,
    digits_net: Callable[[str], torch.nn.Module],
) -> None:
    net = digits_net(name)
    expected = digits.accuracy(net)
    assert expected > 0.98

    prepared = pyquant.prepare(net, digits.train_images[:2])
    pyquant.calibrate(prepared, digits.train_images[:64].split(32))
    graph = pyquant.convert(prepared)
    program = pyquant.lower(graph, whole=True)

    assert digits.accuracy(graph) >= expected - TOLERANCE
    assert digits.accuracy(program) >= expected - TOLERANCE


def test_the_weights_are_kept(digits_net: Callable[[str], torch.nn.Module]) -> None:
    before = digits_net("resnet").state_dict()
    digits_nets.trained.cache_clear()

    after = digits_net("resnet").state_dict()

    assert all(torch.equal(value, after[name]) for name, value in before.items())
