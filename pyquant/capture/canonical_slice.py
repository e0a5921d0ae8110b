"""Splits become slices."""

from __future__ import annotations

import operator
import sys
from itertools import accumulate

import torch
from torch import fx

from pyquant.capture.node import arguments, insert_call, is_call, replace

_aten = torch.ops.aten
_SPLITS = (
    _aten.chunk.default,
    _aten.split.Tensor,
    _aten.split.sizes,
    _aten.split_with_sizes.default,
    _aten.tensor_split.sections,
    _aten.tensor_split.indices,
)


def canonicalize_slice(module: fx.GraphModule) -> None:
    """Rewrites chunk, split and narrow, in place, as ``aten.slice.Tensor(x, dim, start, end)``.

    Those along the first dimension stay: their bounds depend on the batch size.

    Args:
        module: A functional graph of ATen calls.
    """
    for node in list(module.graph.nodes):
        if is_call(node, *_SPLITS):
            _replace_parts(node)
        elif is_call(node, _aten.narrow.default):
            values = arguments(node)
            dim, start, length = (values[name] for name in ("dim", "start", "length"))
            if dim != 0:
                end = start + length
                args = (values["self"], dim, start, sys.maxsize if start < 0 == end else end)
                replace(node, insert_call(node, _aten.slice.Tensor, args, node))
    module.graph.eliminate_dead_code()


def _replace_parts(split: fx.Node) -> None:
    values = arguments(split)
    parts = split.meta.get("val")
    if not isinstance(parts, (list, tuple)) or values["dim"] == 0:
        return
    sizes = [part.shape[values["dim"]] for part in parts]
    ends = list(accumulate(sizes))
    for user in list(split.users):
        if user.target is not operator.getitem:
            continue
        index = user.args[1]
        assert isinstance(index, int)
        args = (values["self"], values["dim"], ends[index] - sizes[index], ends[index])
        replace(user, insert_call(user, _aten.slice.Tensor, args, user))
