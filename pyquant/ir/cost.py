"""What a Program costs: multiply-adds and bytes of constants, by node."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pyquant.ir.ops import Conv2d, ConvTranspose2d, Linear
from pyquant.ir.program import Node, Program


def multiply_adds(program: Program, node: Node, output_shape: Sequence[int] | None = None) -> int:
    """Multiply-adds of a convolution or linear layer; 0 for others. Those of a transposed
    convolution count what falls outside its output.

    Args:
        program: Where the node is.
        node: Which.
        output_shape: Of its output; without it, the example's.
    """
    if not isinstance(node.op, Conv2d | ConvTranspose2d | Linear):
        return 0
    weight = program.tensors[node.inputs[1]]
    outputs = program.tensors[node.output].shape if output_shape is None else output_shape
    if isinstance(node.op, ConvTranspose2d):  # every input meets the whole kernel of its group
        example = program.tensors[node.output].shape
        inputs = math.prod(program.tensors[node.inputs[0]].shape)
        inputs = inputs * math.prod(outputs) // math.prod(example)
        return inputs * math.prod(weight.shape[:3]) // node.op.groups
    return math.prod(outputs) * math.prod(weight.shape[1:])


def constant_bytes(program: Program, node: Node) -> int:
    """Bytes of the weights and biases that the node reads."""
    return sum(
        tensor.data.nbytes
        for tensor in (program.tensors[index] for index in node.inputs)
        if tensor.data is not None
    )
