"""The Program: its types, how a quantized graph is lowered to it, and its file format."""

from pyquant.ir.program import DType, Node, Program, Tensor

__all__ = ["DType", "Node", "Program", "Tensor"]
