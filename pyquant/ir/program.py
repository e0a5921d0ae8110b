"""The Program: pyquant's small typed IR, int8 operators over NHWC tensors with their qparams."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pyquant.ir.ops import Op


class DType(enum.IntEnum):
    """Element types, numbered as in the file."""

    uint8 = 0
    int8 = 1
    int32 = 2
    float32 = 3


@dataclass
class Tensor:
    """An activation or a constant.

    Attributes:
        name: For people; unique within a Program.
        dtype: uint8 for quantized activations, int8 weights, int32 biases, float32 else.
        shape: For the example inputs; activations may have other sizes at run time. Rank-4
            uint8 activations are NHWC; float32 Program inputs and outputs are NCHW.
        scale: float32 array; one element, or one per output channel of a weight; empty for
            float32 tensors and biases.
        zero_point: 0..255 for activations; 0 for weights.
        data: The constant's values, or ``None`` for an activation.
    """

    name: str
    dtype: DType
    shape: tuple[int, ...]
    scale: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    zero_point: int = 0
    data: npt.NDArray[Any] | None = None

    @property
    def is_constant(self) -> bool:
        """Whether the values are part of the Program."""
        return self.data is not None


@dataclass
class Node:
    """One operator. ``inputs`` and ``output`` are indices into ``Program.tensors``."""

    name: str
    op: Op
    inputs: list[int]
    output: int


@dataclass
class Program:
    """Operators in execution order, and the tensors between them.

    ``metadata`` is a JSON-able dict for people and tools (the runtime does not read it).
    """

    name: str = "program"
    tensors: list[Tensor] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def add_tensor(self, tensor: Tensor) -> int:
        """Appends ``tensor`` and returns its index."""
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def same_qparams(self, a: int, b: int) -> bool:
        """Whether two uint8 activations mean the same numbers by the same bytes."""
        first, second = self.tensors[a], self.tensors[b]
        return (
            first.dtype == second.dtype == DType.uint8
            and first.zero_point == second.zero_point
            and np.array_equal(first.scale, second.scale)
        )

    def producer(self, tensor: int) -> Node | None:
        """The node that writes ``tensor``, or ``None`` for an input or a constant."""
        return next((node for node in self.nodes if node.output == tensor), None)

    def consumers(self, tensor: int) -> list[Node]:
        """The nodes that read ``tensor``."""
        return [node for node in self.nodes if tensor in node.inputs]
