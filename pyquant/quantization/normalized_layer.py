"""Layers with their batch norms, as training sees them.

Training normalises by each batch's statistics, inference by the running ones, which are folded into
the weight before it is quantized. So the weight that training quantizes is the one folded by the
running statistics; the output is scaled back, and normalised by the batch: Krishnamoorthi,
"Quantizing deep convolutional networks for efficient inference", 2018, section 3.2.2, and
torch.ao.nn.intrinsic.qat.ConvBn2d, whose division by a zero gamma is avoided here.

The modules hold no parameters: those stay where the model has them, and are passed in by the graph.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pyquant.quantization.fold_batch_norm import affine, fold, per_output
from pyquant.quantization.freezable import Freezable

#: A smaller factor of a channel is taken to be this while the channel's weight is rounded.
_SMALLEST_FACTOR = 2.0**-10


@torch.library.custom_op("pyquant::batch_norm_factor", mutates_args=())
def _batch_norm_factor(variance: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """What a batch norm multiplies by in eval mode, ``[C]``, not too small.

    An operator, because torch.compile would compute it once more for the gradient, from a running
    variance that has moved on by then. Results of operators that it does not know it keeps.
    """
    factor, _ = affine(torch.zeros_like(variance), variance, weight, None, eps)
    factor = factor.to(variance.dtype)
    smallest = torch.where(factor < 0, -_SMALLEST_FACTOR, _SMALLEST_FACTOR)
    return torch.where(factor.abs() < _SMALLEST_FACTOR, smallest, factor)


@_batch_norm_factor.register_fake
def _(variance: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    return torch.empty_like(variance)


class TrainedBatchNorm(Freezable):
    """A batch norm by itself.

    Args:
        eps: Added to variances.
        momentum: The weight of a new batch in the running statistics; ``None``: all batches count
            the same.
        frozen: Normalise by the running statistics in train mode, too, and leave them as they are.
    """

    def __init__(self, eps: float, momentum: float | None, frozen: bool) -> None:
        super().__init__()
        self.eps = eps
        self.momentum = momentum
        self.frozen = frozen

    @property
    def by_batch(self) -> bool:
        """Whether this batch's statistics count."""
        return self.training and not self.frozen

    def forward(
        self,
        x: Tensor,
        mean: Tensor,
        variance: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        batches: Tensor | None,
    ) -> Tensor:
        """``x``, ``[N, C, ...]``, normalised.

        Args:
            x: The input.
            mean: The running means ``[C]``, updated in train mode.
            variance: The running variances, likewise.
            weight: The factors gamma, ``[C]``; ``None`` for ones.
            bias: The sums beta, likewise.
            batches: How many there were, int64 ``[]``, likewise.
        """
        momentum = self.momentum
        if self.by_batch and batches is not None:
            batches.add_(1)
            if momentum is None:
                momentum = 1.0 / float(batches)
        return F.batch_norm(
            x, mean, variance, weight, bias, self.by_batch, momentum or 0.0, self.eps
        )

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"eps={self.eps}, momentum={self.momentum}, frozen={self.frozen}"


class NormalizedLayer(TrainedBatchNorm):
    """A convolution or linear layer with its batch norm.

    Args:
        target: The layer's operator, one of ``WEIGHTED``.
        settings: Its arguments behind the bias.
        weight_fake_quantize: Rounds the folded weight; ``None`` where the layer stays float.
        eps: As for :class:`TrainedBatchNorm`.
        momentum: Likewise.
        frozen: Likewise.
    """

    def __init__(
        self,
        target: Any,
        settings: tuple[Any, ...],
        weight_fake_quantize: torch.nn.Module | None,
        eps: float,
        momentum: float | None,
        frozen: bool,
    ) -> None:
        super().__init__(eps, momentum, frozen)
        self.target = target
        # torch.compile does not take fx's own kind of lists.
        self.settings = tuple(list(x) if isinstance(x, list) else x for x in settings)
        self.weight_fake_quantize = weight_fake_quantize

    def forward(  # type: ignore[override]
        self, x: Tensor, weight: Tensor, bias: Tensor | None, *norm: Tensor | None
    ) -> Tensor:
        """The layer and its batch norm on ``x``.

        Args:
            x: The input.
            weight: The layer's own, float32.
            bias: Likewise, ``[O]``.
            norm: The batch norm's mean, variance, weight, bias and number of batches.
        """
        if not self.by_batch:
            weight, bias = self.folded(weight, bias, *norm[:4])
            return self._layer(x, weight, bias)
        mean, variance, gamma, beta, batches = norm
        assert mean is not None and variance is not None
        gamma_value = None if gamma is None else gamma.detach()
        factor = _batch_norm_factor(variance, gamma_value, self.eps).to(weight.dtype)
        y = self._layer(x, weight * per_output(self.target, weight, factor), None)
        # The factor is a constant here: whatever it is, the next two lines take it out again.
        y = y / factor.reshape(1, -1, *[1] * (y.dim() - 2))
        if bias is not None:
            y = y + bias.reshape(1, -1, *[1] * (y.dim() - 2))
        return super().forward(y, mean, variance, gamma, beta, batches)

    def folded(
        self,
        weight: Tensor,
        bias: Tensor | None,
        mean: Tensor | None,
        variance: Tensor | None,
        gamma: Tensor | None,
        beta: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Weight and bias as in inference, not rounded."""
        assert mean is not None and variance is not None
        return fold(self.target, weight, bias, *affine(mean, variance, gamma, beta, self.eps))

    def _layer(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.weight_fake_quantize is not None:
            weight = self.weight_fake_quantize(weight)
        result: Tensor = self.target(x, weight, bias, *self.settings)
        return result
