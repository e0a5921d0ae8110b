"""A layer as a product of matrices: sampled rows of its input, and its weight to match."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pyquant.capture.node import arguments
from pyquant.quantization.weighted_layers import WeightedLayer


class LayerRows:
    """The rows that a convolution, transposed convolution or linear layer multiplies.

    An output ``[O]`` at one place is ``product(row, matrix)`` plus the bias, where the row
    ``[groups, K]`` holds what the kernel covers there.
    """

    def __init__(self, layer: WeightedLayer) -> None:
        self._layer = layer
        values = arguments(layer.node)
        self.groups = int(values.get("groups", 1))
        self._transposed = layer.is_transposed
        if not layer.is_linear:
            self._kernel = tuple(layer.weight.shape[2:])
            self._stride = tuple(values["stride"])
            self._padding = tuple(values["padding"])
            self._dilation = tuple(values["dilation"])
            self._extra = tuple(values.get("output_padding", (0, 0)))

    def matrix(self, weight: torch.Tensor) -> torch.Tensor:
        """``weight`` as ``[groups, outputs per group, K]``."""
        if self._transposed:  # [I, O / groups, kH, kW]; the kernel runs backwards
            inputs, outputs = weight.shape[:2]
            split = weight.flip(2, 3).reshape(self.groups, inputs // self.groups, outputs, -1)
            return split.transpose(1, 2).flatten(2)
        return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)

    def weight(self, matrix: torch.Tensor) -> torch.Tensor:
        """The inverse of :meth:`matrix`."""
        shape = self._layer.weight.shape
        if self._transposed:
            split = matrix.reshape(self.groups, shape[1], -1, shape[2] * shape[3]).transpose(1, 2)
            return split.reshape(shape).flip(2, 3)
        return matrix.reshape(shape)

    def sample(
        self, inputs: list[torch.Tensor], count: int, generator: torch.Generator
    ) -> torch.Tensor:
        """``count`` rows (fewer if there are not as many) of random samples and places.

        Args:
            inputs: The layer's inputs, float32 ``[N, C, H, W]`` or ``[..., C]``, of any number.
            count: How many; spread evenly over the inputs.
            generator: One in the same state takes the same places.

        Returns:
            float32 ``[count, groups, K]``.
        """
        total = sum(value.shape[0] for value in inputs)
        rows = [
            self._sample(value, -(-count * value.shape[0] // total), generator) for value in inputs
        ]
        return torch.cat(rows)

    def _sample(self, x: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        if self._layer.is_linear:
            rows = x.reshape(-1, 1, x.shape[-1])
            return rows[torch.randperm(len(rows), generator=generator)[:count]]
        x, stride = self._padded(x)
        spans = [d * (k - 1) for d, k in zip(self._dilation, self._kernel, strict=True)]
        height, width = (
            (size - span - 1) // step + 1
            for size, span, step in zip(x.shape[2:], spans, stride, strict=True)
        )
        places = torch.randperm(x.shape[0] * height * width, generator=generator)[:count]
        sample, place = places // (height * width), places % (height * width)
        rows, columns = (
            (start * step)[:, None] + torch.arange(size) * dilation
            for start, step, size, dilation in zip(
                (place // width, place % width), stride, self._kernel, self._dilation, strict=True
            )
        )
        # Indices around the slice put its dimension last: [count, kH, kW, C].
        patches = x[sample[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        channels = x.shape[1] // self.groups
        split = patches.reshape(len(places), -1, self.groups, channels)
        return split.permute(0, 2, 3, 1).reshape(len(places), self.groups, -1)

    def _padded(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[int, ...]]:
        """The input with its zeros around it, and the stride over it."""
        if not self._transposed:
            rows, columns = (self._padding * 2)[:2]
            return F.pad(x, (columns, columns, rows, rows)), self._stride
        # A transposed convolution is a convolution, backwards, over an image with zeros between.
        size = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], self._stride, strict=True)]
        spread = x.new_zeros(*x.shape[:2], *size)
        spread[:, :, :: self._stride[0], :: self._stride[1]] = x
        before = [
            d * (k - 1) - p
            for d, k, p in zip(self._dilation, self._kernel, self._padding, strict=True)
        ]
        after = [b + e for b, e in zip(before, self._extra, strict=True)]
        return F.pad(spread, (before[1], after[1], before[0], after[0])), (1, 1)


def product(rows: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """The layer's output without bias for each row.

    Args:
        rows: float32 ``[N, groups, K]``.
        matrix: float32 ``[groups, O / groups, K]``.

    Returns:
        float32 ``[N, O]``.
    """
    if matrix.shape[0] == 1:
        return rows[:, 0] @ matrix[0].T
    if matrix.shape[1] == 1:  # depthwise: a batched product would be many times slower
        return (rows * matrix[:, 0]).sum(-1)
    return torch.einsum("ngk,gok->ngo", rows, matrix).flatten(1)
