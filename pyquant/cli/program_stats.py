"""What the commands say about a Program's tensors."""

from __future__ import annotations

from pyquant.ir.ops import Dequantize, Quantize
from pyquant.ir.program import Program, Tensor


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
