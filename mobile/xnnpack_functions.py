"""Which XNNPACK operators compute a Program's table.

Between int8 values XNNPACK makes a table of most unary functions when it loads the graph. It has no
operator that takes a table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pyquant.errors import UnsupportedError
from pyquant.ir.program import Node
from pyquant.mobile.affine_tables import affine_layer
from pyquant.mobile.stock_layers import qparams
from pyquant.mobile.table_functions import function_of, identity
from pyquant.mobile.xnnpack_translation import Translation


def _between_int8(to: Translation, node: Node, kind: str, **fields: Any) -> None:
    """XNNPACK makes a table of it."""
    to.unary(kind, to.read(node.inputs[0]), to.write(node.output), **fields)


def _clamp(to: Translation, node: Node, low: float, high: float) -> None:
    scale, zero_point = qparams(to.tensor(node.output))
    bounds = (max(low, -zero_point * scale), min(high, (255 - zero_point) * scale))
    if bounds[0] >= bounds[1]:
        raise UnsupportedError("all results are the same")
    _between_int8(to, node, "XNNClamp", bounds=bounds)


def _silu(to: Translation, node: Node) -> None:
    real = to.to_real(node.inputs[0])
    gate, result = (to.graph.real(to.shapes[node.output]) for _ in range(2))
    to.unary("XNNSigmoid", real, gate)
    to.graph.node("XNNMultiply", input1_id=real, input2_id=gate, output_id=result)
    to.unary("XNNConvert", result, to.write(node.output))


def _hardsigmoid(to: Translation, node: Node) -> None:
    """A linear layer with one weight: a plain operand cannot be a constant."""
    op: Any = node.op
    weight, scale, bias = affine_layer(op, *map(to.tensor, _ends(node)), slope=1 / 6, offset=0.5)
    scales = np.asarray([scale], np.float32)
    size = int(np.prod(to.shapes[node.output]))
    column, result = (to.like(index, (size, 1)) for index in (node.inputs[0], node.output))
    y = to.write(node.output)
    to.reshape(to.read(node.inputs[0]), column)
    to.graph.node(
        "XNNFullyConnected",
        bounds=(0.0, 1.0),
        input1_id=column,
        filter_id=to.graph.weight(np.asarray([[weight]], np.int8), scales, 0),
        bias_id=to.graph.bias(np.asarray([bias], np.int32), scales),
        output_id=result,
    )
    to.reshape(result, y)


def _ends(node: Node) -> tuple[int, int]:
    return node.inputs[0], node.output


_Rule = Callable[[Translation, Node], None]

#: The functions of :mod:`pyquant.mobile.table_functions`. XNNPACK lacks the others.
_FUNCTIONS: dict[Callable[..., Tensor], _Rule] = {
    identity: partial(_clamp, low=-math.inf, high=math.inf),
    torch.relu: partial(_clamp, low=0.0, high=math.inf),
    functional.relu6: partial(_clamp, low=0.0, high=6.0),
    functional.hardswish: partial(_between_int8, kind="XNNHardswish"),
    functional.hardsigmoid: _hardsigmoid,
    functional.silu: _silu,
    torch.sigmoid: partial(_between_int8, kind="XNNSigmoid"),
    torch.tanh: partial(_between_int8, kind="XNNTanh"),
    functional.gelu: partial(_between_int8, kind="XNNGelu"),
    functional.elu: partial(_between_int8, kind="XNNELU", alpha=1.0),
    torch.abs: partial(_between_int8, kind="XNNAbs"),
    torch.neg: partial(_between_int8, kind="XNNNegate"),
}


def table(to: Translation, node: Node) -> None:
    """Appends what computes a ``LookupTable``; raises :class:`UnsupportedError` if nothing does."""
    op: Any = node.op
    function = function_of(op, *map(to.tensor, _ends(node)))
    rule = _FUNCTIONS.get(function) if function is not None else None
    if rule is None:
        raise UnsupportedError("XNNPACK has no operator for this table")
    rule(to, node)
