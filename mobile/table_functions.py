"""Which function a table of 256 values stands for.

A Program keeps unary functions as tables. Other runtimes have the functions themselves; one that
gives a table's values for all of its inputs may take its place.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pyquant.ir import ops
from pyquant.ir.program import Tensor as IrTensor


def identity(x: Tensor) -> Tensor:
    """Its argument."""
    return x


#: By what most networks use. The identity between different qparams is a requantization.
FUNCTIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    identity,
    torch.relu,
    functional.hardswish,
    functional.hardsigmoid,
    functional.silu,
    torch.sigmoid,
    functional.relu6,
    torch.tanh,
    functional.gelu,
    functional.elu,
    functional.leaky_relu,
    functional.selu,
    functional.mish,
    functional.softplus,
    torch.abs,
    torch.neg,
)


def function_of(op: ops.LookupTable, x: IrTensor, output: IrTensor) -> Callable[..., Tensor] | None:
    """The function with exactly ``op``'s results on float32 tensors, or ``None``.

    Args:
        op: The table.
        x, output: Its uint8 input and output, which hold the qparams.
    """
    values = np.frombuffer(op.values, dtype=np.uint8)
    inputs = (np.arange(256) - x.zero_point).astype(np.float32) * x.scale.reshape(-1)[0]
    inverse = np.float32(1) / np.float32(output.scale.reshape(-1)[0])
    for function in FUNCTIONS:
        results = function(torch.from_numpy(inputs)).numpy()
        steps = np.rint(results * inverse) + output.zero_point
        if np.array_equal(np.clip(steps, 0, 255).astype(np.uint8), values):
            return function
    return None
