"""A Program on its way into an XNNPACK graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyquant.errors import UnsupportedError
from pyquant.ir.program import DType, Node, Program
from pyquant.ir.program import Tensor as IrTensor
from pyquant.mobile.stock_layers import qparams
from pyquant.mobile.xnnpack_graph import Shape, XnnpackGraph

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
_ANY_BATCH = 0  # a size that a reshape infers


@dataclass
class Translation:
    """What has been said of a Program, and how to say more.

    Attributes:
        program: What is translated.
        graph: What has been translated of it.
        shapes: Of all activations, by their index in the Program, as the Program holds them.
        any_batch: Whether the batch may be smaller than in ``shapes``, and change from run to run.
        values: The graph's values by the same index.
    """

    program: Program
    graph: XnnpackGraph
    shapes: Mapping[int, tuple[int, ...]]
    any_batch: bool = False
    values: dict[int, int] = field(default_factory=dict)

    def tensor(self, index: int) -> IrTensor:
        """What the Program says of an activation or constant."""
        return self.program.tensors[index]

    def step(self, index: int) -> float:
        """The scale of a quantized activation."""
        tensor = self.tensor(index)
        if tensor.dtype != DType.uint8:
            raise UnsupportedError(f"{tensor.name} is {tensor.dtype.name} inside of the network")
        return qparams(tensor)[0]

    def read(self, index: int) -> int:
        """The int8 value of a quantized activation."""
        self.step(index)
        if self.tensor(index).is_constant:
            raise UnsupportedError(f"the operand {self.tensor(index).name} is a constant")
        return self.values[index]

    def write(self, index: int) -> int:
        """A new int8 value for a quantized activation."""
        self.step(index)
        self.values[index] = self.like(index, self.shapes[index])
        return self.values[index]

    def like(self, index: int, shape: Shape) -> int:
        """A new int8 value with the qparams of an activation."""
        scale, zero_point = qparams(self.tensor(index))
        return self.graph.quantized(shape, scale, zero_point - 128)

    def unary(self, kind: str, x: int, y: int, **fields: Any) -> None:
        """An operator with one operand."""
        self.graph.node(kind, input_id=x, output_id=y, **fields)

    def in_float(self, kind: str, node: Node, **fields: Any) -> None:
        """A node with one operand, computed in float32."""
        x, y = self.to_real(node.inputs[0]), self.graph.real(self.shapes[node.output])
        self.unary(kind, x, y, **fields)
        self.unary("XNNConvert", y, self.write(node.output))

    def to_real(self, index: int) -> int:
        """A new float32 value of an activation."""
        real = self.graph.real(self.shapes[index])
        self.unary("XNNConvert", self.read(index), real)
        return real

    def planes(self, index: int) -> int:
        """A new int8 value: an image as NCHW; an activation of another rank as it is."""
        x = self.read(index)
        if len(self.shapes[index]) != 4:
            return x
        y = self.like(index, [self.shapes[index][axis] for axis in TO_NCHW])
        self.transpose(x, y, TO_NCHW)
        return y

    def transpose(self, x: int, y: int, perm: tuple[int, ...]) -> None:
        """Dimension ``i`` of the result is dimension ``perm[i]`` of ``x``."""
        self.unary("XNNStaticTranspose", x, y, num_dims=len(perm), perm=list(perm))

    def reshape(self, x: int, y: int) -> None:
        """To the shape of ``y`` for any batch size."""
        shape = [_ANY_BATCH, *self.graph.shapes[y][1:]]
        self.unary("XNNStaticReshape", x, y, num_dims=len(shape), new_shape=shape)
