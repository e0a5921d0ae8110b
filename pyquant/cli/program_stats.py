"""What a Program costs: multiply-adds and bytes of constants, by node."""

from __future__ import annotations

import math

from pyquant.ir.ops import Conv2d, ConvTranspose2d, Dequantize, Linear, Quantize
from pyquant.ir.program import Node, Program, Tensor


def multiply_adds(program: Program, node: Node) -> int:
    """Multiply-adds of a convolution or linear layer for the example input; 0 for others."""
    if not isinstance(node.op, Conv2d | ConvTranspose2d | Linear):
        return 0
    weight = program.tensors[node.inputs[1]]
    if isinstance(node.op, ConvTranspose2d):  # every input meets the whole kernel of its group
        outputs = math.prod(weight.shape[:3]) // node.op.groups
        return math.prod(program.tensors[node.inputs[0]].shape) * outputs
    return math.prod(program.tensors[node.output].shape) * math.prod(weight.shape[1:])


def constant_bytes(program: Program, node: Node) -> int:
    """Bytes of the weights and biases that the node reads."""
    return sum(
        tensor.data.nbytes
        for tensor in (program.tensors[index] for index in node.inputs)
        if tensor.data is not None
    )


def batch_size(program: Program) -> int:
    """The batch size of the example inputs; 1 for inputs without dimensions."""
    shapes = [program.tensors[index].shape for index in program.inputs]
    return shapes[0][0] if shapes and shapes[0] else 1


def shape_text(tensor: Tensor) -> str:
    """``1x112x112x32``."""
    return "x".join(map(str, tensor.shape)) or "scalar"


def quantized_form(program: Program, index: int) -> Tensor:
    """The uint8 tensor that a Program's input becomes, or that its output comes from."""
    producer = program.producer(index)
    if producer is not None and isinstance(producer.op, Dequantize):
        return program.tensors[producer.inputs[0]]
    consumers = program.consumers(index)
    if consumers and isinstance(consumers[0].op, Quantize):
        return program.tensors[consumers[0].output]
    return program.tensors[index]
