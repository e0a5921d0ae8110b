"""The pattern table: which operators are quantized, and what counts as one operator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import fx
from torch._ops import OpOverload

from pyquant.capture.node import is_call, is_float
from pyquant.quantization.annotate import (
    Annotator,
    binary,
    concat,
    contiguous_slice,
    pass_through,
    reshape,
    spatial_maximum,
    total,
    unary,
    weighted,
    weighted_transposed,
)
from pyquant.quantization.config import REALS, Interval

_aten = torch.ops.aten

_NORM = (_aten.batch_norm.default,)
_CLAMP = (_aten.relu.default, _aten.hardtanh.default)
#: Elementwise functions of one tensor, perhaps with a number: tables of 256 values. Each with the
#: interval outside of which it is constant, to about a thousandth of its range.
_TABLES: dict[OpOverload, Interval] = {
    _aten.relu.default: (0.0, math.inf),
    _aten.hardtanh.default: REALS,
    _aten.clamp.default: REALS,
    _aten.hardswish.default: (-3.0, math.inf),
    _aten.hardsigmoid.default: (-3.0, 3.0),
    _aten.silu.default: (-8.0, math.inf),
    _aten.sigmoid.default: (-7.0, 7.0),
    _aten.tanh.default: (-4.0, 4.0),
    _aten.gelu.default: (-4.0, math.inf),
    _aten.elu.default: (-7.0, math.inf),
    _aten.selu.default: (-7.0, math.inf),
    _aten.celu.default: REALS,
    _aten.leaky_relu.default: REALS,
    _aten.prelu.default: REALS,
    _aten.softplus.default: REALS,
    _aten.mish.default: (-8.0, math.inf),
    _aten.neg.default: REALS,
    _aten.abs.default: REALS,
    _aten.add.Tensor: REALS,
    _aten.sub.Tensor: REALS,
    _aten.rsub.Scalar: REALS,
    _aten.mul.Tensor: REALS,
    _aten.div.Tensor: REALS,
}


@dataclass(frozen=True)
class Pattern:
    """One row.

    Attributes:
        anchor: The operator that the pattern begins with.
        annotator: What to do with a match.
        followers: For each optional next step, the operators that may take it. Between steps
            nothing is quantized, so ranges are those after the last one (after the clamp).
        on_demand: Quantize only next to something quantized: the input is quantized already, or
            a quantized operator reads the output. For operators that gain nothing by themselves.
    """

    anchor: OpOverload
    annotator: Annotator
    followers: tuple[tuple[OpOverload, ...], ...] = ()
    on_demand: bool = False

    def match(self, node: fx.Node) -> list[fx.Node] | None:
        """The nodes of the pattern that begins at ``node``, anchor first, or ``None``.

        A step is taken only if its operator is the one user of what comes before.
        """
        if not is_call(node, self.anchor) or not is_float(node):
            return None
        chain = [node]
        for step in self.followers:
            users = list(chain[-1].users)
            if len(users) == 1 and is_call(users[0], *step) and users[0].args[0] is chain[-1]:
                chain.append(users[0])
        return chain


#: Adding an operator is adding a row.
PATTERNS: tuple[Pattern, ...] = (
    Pattern(_aten.conv2d.default, weighted, followers=(_NORM, _CLAMP)),
    Pattern(_aten.linear.default, weighted, followers=(_CLAMP,)),
    Pattern(_aten.add.Tensor, total, followers=(_CLAMP,)),
    Pattern(_aten.add.Tensor, binary, followers=(_CLAMP,), on_demand=True),
    Pattern(_aten.mul.Tensor, binary, followers=(_CLAMP,), on_demand=True),
    *(Pattern(op, unary(interval), on_demand=True) for op, interval in _TABLES.items()),
    Pattern(_aten.avg_pool2d.default, pass_through, on_demand=True),
    Pattern(_aten.adaptive_avg_pool2d.default, pass_through, on_demand=True),
    Pattern(_aten.max_pool2d.default, pass_through, on_demand=True),
    Pattern(_aten.amax.default, spatial_maximum, on_demand=True),
    Pattern(_aten.flatten.using_ints, pass_through, on_demand=True),
    Pattern(_aten.reshape.default, reshape, on_demand=True),
    Pattern(_aten.squeeze.dim, reshape, on_demand=True),
    Pattern(_aten.squeeze.dims, reshape, on_demand=True),
    Pattern(_aten.unsqueeze.default, reshape, on_demand=True),
    Pattern(_aten.pad.default, pass_through, on_demand=True),
    Pattern(_aten.dropout.default, pass_through, on_demand=True),
    Pattern(_aten.conv_transpose2d.input, weighted_transposed, followers=(_NORM, _CLAMP)),
    Pattern(_aten.cat.default, concat, on_demand=True),
    Pattern(_aten.slice.Tensor, contiguous_slice, on_demand=True),
    Pattern(_aten.channel_shuffle.default, pass_through, on_demand=True),
    Pattern(_aten.upsample_nearest2d.vec, pass_through, on_demand=True),
    Pattern(_aten.upsample_nearest2d.default, pass_through, on_demand=True),
    Pattern(_aten.upsample_bilinear2d.vec, pass_through, on_demand=True),
    Pattern(_aten.upsample_bilinear2d.default, pass_through, on_demand=True),
)
