"""Learning which way to round the weights of one layer: AdaRound's optimization problem.

Nagel et al. 2020, arXiv:2004.10568, eq. 21-25. The rows come from the quantized network and the
target from the float one (their eq. 25), so that rounding also makes up for errors before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pyquant.quantization.layer_rows import product

#: Eq. 23: the sigmoid is stretched by these and clipped to 0..1, so that it gets there.
_ZETA, _GAMMA = 1.1, -0.1
#: Eq. 24: the exponent falls from the one to the other, and rounding gets sharper.
_BETA = (20.0, 2.0)
#: The first part of the iterations goes without the regularizer.
_WARM_UP = 0.2


@dataclass(frozen=True)
class RoundingProblem:
    """One layer as matrices.

    Attributes:
        rows: What the layer multiplies in the quantized network, float32 ``[N, groups, K]``.
        target: What it should yield, after the activation function, float32 ``[N, O]``.
        weight: In steps of its scale, float32 ``[groups, O / groups, K]``.
        scale: float32 ``[groups, O / groups, 1]``.
        bias: float32 ``[O]``, what goes with weights rounded to nearest.
        activation: The activation function behind the layer.
        low: The smallest quantized weight.
        high: The largest.
    """

    rows: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor
    scale: torch.Tensor
    bias: torch.Tensor
    activation: Callable[[torch.Tensor], torch.Tensor]
    low: int
    high: int

    def loss(
        self, rounded: torch.Tensor, bias: torch.Tensor, index: slice | torch.Tensor = slice(None)
    ) -> torch.Tensor:
        """Mean squared error of the output with the weight ``rounded``, in steps (eq. 25)."""
        output = product(self.rows[index], rounded.clamp(self.low, self.high) * self.scale) + bias
        return (self.activation(output) - self.target[index]).square().mean()

    def nearest(self) -> torch.Tensor:
        """The weight rounded to nearest, in steps."""
        return self.weight.round().clamp(self.low, self.high)


def learn_rounding(
    problem: RoundingProblem,
    *,
    iterations: int,
    batch_size: int = 256,
    learning_rate: float = 1e-2,
    strength: float = 0.1,
    generator: torch.Generator,
) -> torch.Tensor:
    """Rounds every weight up or down so that the layer's output, not the weight, is nearest.

    Args:
        problem: The layer.
        iterations: Steps of Adam.
        batch_size: Rows in each.
        learning_rate: Of Adam.
        strength: Of the regularizer, relative to the loss of rounding to nearest.
        generator: Picks the rows.

    Returns:
        The weight in steps, whole numbers, each the next below or above the given one; or
        all rounded to nearest if that does better on the last quarter of the rows, which is not
        learned from: few rows and many weights would fit the rows and nothing else.
    """
    below = problem.weight.floor()
    share = ((problem.weight - below) - _GAMMA) / (_ZETA - _GAMMA)
    slack = torch.logit(share).requires_grad_()  # V of eq. 22, where h(V) is the plain weight
    nearest = problem.nearest()
    count = len(problem.rows)
    learned_from = count - count // 4
    held_out = slice(learned_from, None) if learned_from < count else slice(None)
    with torch.no_grad():
        reference = problem.loss(nearest, problem.bias, slice(learned_from))
    if not float(reference) > 0:
        return nearest
    optimizer = torch.optim.Adam([slack], lr=learning_rate)
    with torch.enable_grad():
        for iteration in range(iterations):
            size = min(batch_size, learned_from)
            index = torch.randint(learned_from, (size,), generator=generator)
            up = _rectified_sigmoid(slack)
            loss = problem.loss(below + up, problem.bias, index) / reference
            progress = (iteration / iterations - _WARM_UP) / (1 - _WARM_UP)
            if progress > 0:
                first, last = _BETA
                beta = last + (first - last) * 0.5 * (1 + math.cos(math.pi * progress))
                loss = loss + strength * (1 - (2 * up - 1).abs().pow(beta)).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        learned = (below + (_rectified_sigmoid(slack) >= 0.5)).clamp(problem.low, problem.high)
        losses = [problem.loss(steps, problem.bias, held_out) for steps in (learned, nearest)]
    return learned if bool(losses[0] < losses[1]) else nearest


def _rectified_sigmoid(slack: torch.Tensor) -> torch.Tensor:
    return (torch.sigmoid(slack) * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)
