"""Values inside of a Program."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from pyquant.ir.ops import Conv2d, ConvTranspose2d
from pyquant.ir.program import DType, Node, Program


@dataclass(frozen=True)
class Intermediate:
    """What one node of a Program computed.

    Attributes:
        name: The node's.
        operator: Its kind, as ``"Conv2d"``.
        values: As the runtime holds them: uint8 (rank 4 is NHWC), or float32.
        scale, zero_point: Of uint8 values; 1 and 0 for float32.
        channels_last: Whether ``values`` is NHWC.
    """

    name: str
    operator: str
    values: Tensor
    scale: float
    zero_point: int
    channels_last: bool

    @staticmethod
    def of(program: Program, node: Node, values: Tensor) -> Intermediate:
        """The value of ``node`` with what ``program`` says about it."""
        tensor = program.tensors[node.output]
        quantized = tensor.dtype == DType.uint8
        # Dequantize turns its result to NCHW; other float32 results are as the kernel wrote them.
        last = quantized or isinstance(node.op, Conv2d | ConvTranspose2d)
        return Intermediate(
            name=node.name,
            operator=type(node.op).__name__,
            values=values,
            scale=float(tensor.scale[0]) if quantized else 1.0,
            zero_point=tensor.zero_point if quantized else 0,
            channels_last=last and values.dim() == 4,
        )

    @property
    def is_quantized(self) -> bool:
        """Whether ``values`` is uint8."""
        return not self.values.is_floating_point()

    def dequantize(self) -> Tensor:
        """float32; images NCHW, as in the float model."""
        values = self.values.permute(0, 3, 1, 2) if self.channels_last else self.values
        return (values.float() - self.zero_point) * self.scale if self.is_quantized else values
