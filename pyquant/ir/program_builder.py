"""Writes a Program operator by operator while a graph is lowered."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch.fx import Node as FxNode

from pyquant.errors import LoweringError
from pyquant.ir.lowering_rules import FloatValue, Lowered, QuantizedValue, Value
from pyquant.ir.ops import Conv2d, ConvTranspose2d, Dequantize, Op
from pyquant.ir.program import DType, Node, Program, Tensor
from pyquant.ir.quantized_graph import QuantizedGraph, QuantizedWeight

#: A bias beyond this would leave no room for the products in an int32 accumulator.
BIAS_LIMIT = 2.0**30


class ProgramBuilder:
    """One Program in the making.

    Attributes:
        inputs: The graph's nodes whose float32 values the Program takes, in order.
        outputs: The graph's nodes whose float32 values it gives, in order.
        tensors: The index of each value's tensor.
    """

    def __init__(self, graph: QuantizedGraph) -> None:
        self.graph = graph
        self.program = Program()
        self.inputs: list[FxNode] = []
        self.outputs: list[FxNode] = []
        self.tensors: dict[Value, int] = {}
        self._input_tensors: dict[FxNode, int] = {}

    def input(self, value: FloatValue) -> int:
        """The tensor of a float32 value that comes from outside."""
        if value in self.tensors:
            return self.tensors[value]
        if value.node not in self._input_tensors:
            shape = self.graph.shape(value.node)
            index = self.program.add_tensor(Tensor(value.node.name, DType.float32, shape))
            self._input_tensors[value.node] = index
            self.inputs.append(value.node)
        return self._input_tensors[value.node]

    def output(self, value: FloatValue) -> None:
        """Makes a float32 value an output of the Program."""
        if value.node not in self.outputs:
            self.outputs.append(value.node)

    def add_operator(self, value: Value, op: Op, operands: list[int]) -> int:
        """Appends an operator that gives ``value``; returns its tensor."""
        index = self.program.add_tensor(self._activation(value, op))
        self.program.nodes.append(Node(value.node.name, op, operands, index))
        self.tensors[value] = index
        return index

    def add_lowered(self, value: Value, lowered: Lowered, operands: list[int]) -> int:
        """Appends a lowered operator with its weight and bias."""
        if lowered.weight is not None and lowered.bias is not None:
            first = lowered.operands[0]
            assert isinstance(first, QuantizedValue)
            weight, bias = _quantize_bias(
                lowered.weight, lowered.bias, first.qparams.scale, value.node.name
            )
            name = value.node.name
            operands = [
                *operands,
                self.program.add_tensor(
                    Tensor(
                        f"{name}.weight",
                        DType.int8,
                        weight.values.shape,
                        weight.scales,
                        data=weight.values,
                    )
                ),
                self.program.add_tensor(Tensor(f"{name}.bias", DType.int32, bias.shape, data=bias)),
            ]
        return self.add_operator(value, lowered.op, operands)

    def _activation(self, value: Value, op: Op) -> Tensor:
        shape = self.graph.shape(value.node)
        if isinstance(value, FloatValue):
            shape = _channels_last(shape) if isinstance(op, (Conv2d, ConvTranspose2d)) else shape
            return Tensor(value.node.name, DType.float32, shape)
        return Tensor(
            value.node.name,
            DType.uint8,
            _channels_last(shape),
            np.array([value.qparams.scale], np.float32),
            value.qparams.zero_point,
        )

    def finish(self, order: dict[FxNode, int]) -> Program:
        """The Program, with its inputs in the order of the graph's nodes."""
        self.inputs.sort(key=order.__getitem__)
        self.outputs.sort(key=order.__getitem__)
        self.program.inputs = [self._input_tensors[node] for node in self.inputs]
        self.program.outputs = [self._float_output(node) for node in self.outputs]
        return self.program

    def _float_output(self, node: FxNode) -> int:
        """Operators with a float32 result give NHWC; outputs are NCHW."""
        index = self.tensors[FloatValue(node)]
        producer = self.program.producer(index)
        if producer is None or not isinstance(producer.op, (Conv2d, ConvTranspose2d)):
            return index
        name = f"{node.name}.nchw"
        output = self.program.add_tensor(Tensor(name, DType.float32, self.graph.shape(node)))
        self.program.nodes.append(Node(name, Dequantize(), [index], output))
        return output


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """NCHW to NHWC; other ranks as they are."""
    return (shape[0], shape[2], shape[3], shape[1]) if len(shape) == 4 else shape


def _quantize_bias(
    weight: QuantizedWeight,
    bias: npt.NDArray[np.float32],
    input_scale: float,
    name: str,
) -> tuple[QuantizedWeight, npt.NDArray[np.int32]]:
    """The bias at scale ``input_scale * weight.scales``, as int32.

    A channel whose bias would not fit (its weights are almost zero) gets a larger weight scale, at
    which the bias fits and its weights still matter by far less than a step.
    """
    if not np.isfinite(bias).all():
        raise LoweringError(f"the bias of '{name}' holds NaN or infinity")
    smallest = np.abs(bias.astype(np.float64)) / (input_scale * BIAS_LIMIT)
    scales = np.maximum(weight.scales, smallest.astype(np.float32))
    values = weight.values
    enlarged = scales > weight.scales
    if enlarged.any():
        ratio = (weight.scales / scales).reshape(-1, *[1] * (values.ndim - 1))
        values = np.where(ratio < 1, np.rint(values * ratio), values).astype(np.int8)
    quantized = np.rint(bias.astype(np.float64) / (input_scale * scales.astype(np.float64)))
    return QuantizedWeight(values, scales), quantized.astype(np.int32)
