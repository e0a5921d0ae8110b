"""Convolutions as linear layers over patches: each output pixel's inputs are one row."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyquant.dynamic.linear import DynamicLinear
from pyquant.dynamic.packing import DynamicModule
from pyquant.errors import InvalidInputError


class DynamicConv(DynamicModule):
    """What Conv1d and Conv2d share.

    Every group is a linear layer, one after the other: many groups are slow. Each patch has qparams
    of its own.
    """

    rank: ClassVar[int]

    def __init__(self, module: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.in_channels, self.out_channels = module.in_channels, module.out_channels
        self.kernel_size, self.stride = tuple(module.kernel_size), tuple(module.stride)
        self.dilation, self.groups = tuple(module.dilation), module.groups
        self.pads = tuple(module._reversed_padding_repeated_twice)
        self.pad_mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        rows = module.weight.detach().flatten(1).chunk(module.groups)
        biases = (
            [None] * module.groups
            if module.bias is None
            else list(module.bias.detach().chunk(module.groups))
        )
        self.linears = nn.ModuleList(map(DynamicLinear, rows, biases))

    @classmethod
    def from_float(cls, module: nn.Conv1d | nn.Conv2d) -> DynamicConv:
        """The same layer with int8 weights."""
        return cls(module)

    def forward(self, x: Tensor) -> Tensor:
        """``[N, C, …]`` or ``[C, …]``, as the float module.

        Raises:
            InvalidInputError: A wrong shape, or no dense floating tensor on the CPU.
        """
        single = x.dim() == self.rank + 1
        x = x.unsqueeze(0) if single else x
        if x.dim() != self.rank + 2 or x.shape[1] != self.in_channels:
            raise InvalidInputError(
                f"{type(self).__name__} takes [batch, {self.in_channels}, …] of {self.rank} "
                f"spatial dimensions, not {list(x.shape)}"
            )
        padded = functional.pad(x, self.pads, mode=self.pad_mode) if any(self.pads) else x
        patches, sizes = self._patches(padded)
        groups = patches.chunk(self.groups, dim=-1)
        rows = [linear(group) for linear, group in zip(self.linears, groups, strict=True)]
        y = torch.cat(rows, -1).transpose(1, 2).reshape(x.shape[0], self.out_channels, *sizes)
        return y.squeeze(0) if single else y

    def _patches(self, x: Tensor) -> tuple[Tensor, list[int]]:
        """``[N, output pixels, C * kernel pixels]`` and the output's spatial sizes."""
        for axis, (kernel, stride, dilation) in enumerate(
            zip(self.kernel_size, self.stride, self.dilation, strict=True)
        ):
            reach = dilation * (kernel - 1) + 1
            if x.shape[2 + axis] < reach:
                raise InvalidInputError(
                    f"{type(self).__name__}: the kernel reaches over {reach} pixels, the padded "
                    f"input has {x.shape[2 + axis]}"
                )
            x = x.unfold(2 + axis, reach, stride)[..., ::dilation]
        sizes = list(x.shape[2 : 2 + self.rank])
        spatial = range(2, 2 + self.rank)
        window = range(2 + self.rank, 2 + 2 * self.rank)
        rows = x.permute(0, *spatial, 1, *window)
        width = self.in_channels * torch.Size(self.kernel_size).numel()
        return rows.reshape(x.shape[0], torch.Size(sizes).numel(), width), sizes

    def extra_repr(self) -> str:
        """For ``print``."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}, groups={self.groups}"
        )


class DynamicConv1d(DynamicConv):
    """``nn.Conv1d`` with int8 weights."""

    float_type, rank = nn.Conv1d, 1


class DynamicConv2d(DynamicConv):
    """``nn.Conv2d`` with int8 weights."""

    float_type, rank = nn.Conv2d, 2
