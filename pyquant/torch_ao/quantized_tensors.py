"""Float tensors that remember the scale and zero point of the quantized tensors they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


@dataclass(frozen=True)
class Affine:
    """Per-tensor qparams of an activation as torch.ao has them: quint8 or qint8."""

    scale: float
    zero_point: int
    dtype: torch.dtype = torch.quint8

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and greatest integer."""
        return (0, 255) if self.dtype is torch.quint8 else (-128, 127)

    def quantize_dequantize(self, value: Tensor) -> Tensor:
        """``value`` on the grid; in a graph, a quantize and a dequantize operator."""
        plain = torch.uint8 if self.dtype is torch.quint8 else torch.int8
        operators = torch.ops.quantized_decomposed
        args = (self.scale, self.zero_point, *self.bounds, plain)
        quantized = operators.quantize_per_tensor.default(value, *args)
        result = operators.dequantize_per_tensor.default(quantized, *args)
        assert isinstance(result, Tensor)
        return result


class QuantizedTensors:
    """The tensors of one run that stand for quantized ones.

    The model's code holds a *handle*; its *value* is the tensor whose numbers count now. The two
    differ after an in-place operator.
    """

    def __init__(self) -> None:
        # Handles are kept alive, so that no other tensor gets their id.
        self._entries: dict[int, tuple[Tensor, _Entry]] = {}

    def quantize(self, value: Tensor, affine: Affine) -> Tensor:
        """A new handle for ``value`` on the grid of ``affine``."""
        result = affine.quantize_dequantize(value)
        return self._add(result, _Entry(result, affine))

    def move(self, value: Tensor, affine: Affine) -> Tensor:
        """A new handle for a ``value`` that is on the grid already, because it only moved.

        Its quantize and dequantize operators are put behind the last of several moves.
        """
        return self._add(value, _Entry(value, affine, moved=True))

    def assign(self, handle: Tensor, source: Tensor) -> None:
        """What an in-place operator does: ``handle`` stands for what ``source`` stands for."""
        self._add(handle, self._entries[id(source)][1])

    def affine(self, handle: Any) -> Affine | None:
        """The qparams; ``None`` for anything that stands for no quantized tensor."""
        found = self._entries.get(id(handle))
        return None if found is None else found[1].affine

    def value(self, item: Any) -> Any:
        """The value of a handle; anything else as it is."""
        found = self._entries.get(id(item))
        if found is None:
            return item
        entry = found[1]
        if entry.moved:
            entry.value, entry.moved = entry.affine.quantize_dequantize(entry.value), False
        return entry.value

    def values(self, tree: Any) -> Any:
        """Nested containers with handles replaced by their values."""
        return pytree.tree_map(self.value, tree)

    def moved_values(self, tree: Any) -> Any:
        """The same for an operator that itself only moves."""
        return pytree.tree_map(
            lambda item: self._entries[id(item)][1].value if id(item) in self._entries else item,
            tree,
        )

    def _add(self, handle: Tensor, entry: _Entry) -> Tensor:
        self._entries[id(handle)] = (handle, entry)
        return handle


@dataclass
class _Entry:
    value: Tensor
    affine: Affine
    moved: bool = False
