"""A Program as a module of float operators between quantize and dequantize: PT2E's q/dq form.

This is what ExecuTorch's partitioners take. Activations are int8 there: the Program's uint8 minus
128. Everything that lowering has tidied up stays so: padding is in the convolutions, a clamp is in
the qparams, and what must share its qparams does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pyquant.errors import ExportError
from pyquant.ir import ops
from pyquant.ir.program import DType, Node, Program
from pyquant.ir.program import Tensor as IrTensor
from pyquant.mobile.stock_layers import (
    channels_to_back,
    channels_to_front,
    qparams,
    split_padding,
)
from pyquant.mobile.stock_moves import size_or_scale, torch_dim
from pyquant.mobile.table_functions import function_of

_qd: Any = torch.ops.quantized_decomposed

#: From the node's float32 inputs (activations; images NCHW) to its float32 result.
_Compute = Callable[..., Tensor]


class QdqModule(nn.Module):
    """A Program's inputs to its outputs, float32, NCHW if rank 4.

    Args:
        program: A Program with float32 inputs and outputs.

    Raises:
        ExportError: A layer cannot be expressed; the message names it.
    """

    def __init__(self, program: Program) -> None:
        from pyquant.quantization import pt2e  # noqa: F401  registers quantized_decomposed

        super().__init__()
        self.program = program
        self.steps = [self._step(node) for node in program.nodes]
        for index in (*program.inputs, *program.outputs):
            tensor = program.tensors[index]
            if tensor.dtype != DType.float32:
                raise ExportError(
                    f"ExecuTorch files have float32 inputs and outputs, but {tensor.name} is "
                    f"{tensor.dtype.name}"
                )

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """See the class."""
        values = dict(zip(self.program.inputs, inputs, strict=True))
        for compute, operands, output in self.steps:
            result = compute(*(self._read(index, values) for index in operands))
            values[output] = _quantized(result, self.program.tensors[output])
        outputs = tuple(self._read(index, values) for index in self.program.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def _step(self, node: Node) -> tuple[_Compute, list[int], int]:
        weighted = isinstance(node.op, ops.Conv2d | ops.ConvTranspose2d | ops.Linear)
        if weighted:
            self._register(node)
        compute = _COMPUTE[type(node.op)](self, node)
        bounded = _bounded(compute, node.op, self.program.tensors[node.output])
        return bounded, node.inputs[:1] if weighted else node.inputs, node.output

    def _register(self, node: Node) -> None:
        """Weight as torch has it, scales and bias of a layer, as buffers."""
        x, weight, bias = (self.program.tensors[index] for index in node.inputs)
        if weight.data is None or bias.data is None:
            raise ExportError(f"layer {node.name}: weight and bias must be constants")
        values = torch.from_numpy(np.array(weight.data, dtype=np.int8))
        channels = values.shape[0]
        scales = np.broadcast_to(weight.scale.reshape(-1), (channels,)).astype(np.float32)
        real = bias.data.astype(np.float64) * (qparams(x)[0] * scales.astype(np.float64))
        self.register_buffer(f"weight{node.output}", channels_to_front(values).contiguous())
        self.register_buffer(f"scales{node.output}", torch.from_numpy(scales.copy()))
        self.register_buffer(f"zeros{node.output}", torch.zeros(channels, dtype=torch.int64))
        self.register_buffer(f"bias{node.output}", torch.from_numpy(real.astype(np.float32)))

    def weight(self, node: Node) -> Tensor:
        """The float32 weight, ``[O, I / groups, kH, kW]`` or ``[O, I]``, by way of int8."""
        weight, scales, zeros = (
            self.get_buffer(f"{name}{node.output}") for name in ("weight", "scales", "zeros")
        )
        result: Tensor = _qd.dequantize_per_channel(weight, scales, zeros, 0, -127, 127, torch.int8)
        return result

    def bias(self, node: Node) -> Tensor:
        """float32 ``[O]``."""
        return self.get_buffer(f"bias{node.output}")

    def _read(self, index: int, values: dict[int, Tensor]) -> Tensor:
        tensor = self.program.tensors[index]
        if index not in values:
            values[index] = _constant(tensor)
        if tensor.dtype != DType.uint8:
            return values[index]
        scale, zero_point = qparams(tensor)
        result: Tensor = _qd.dequantize_per_tensor(
            values[index], scale, zero_point - 128, -128, 127, torch.int8
        )
        return result


def _quantized(x: Tensor, tensor: IrTensor) -> Tensor:
    if tensor.dtype != DType.uint8:
        return x
    scale, zero_point = qparams(tensor)
    result: Tensor = _qd.quantize_per_tensor(x, scale, zero_point - 128, -128, 127, torch.int8)
    return result


def _constant(tensor: IrTensor) -> Tensor:
    """An activation operand that is a constant, in torch's layout, int8 if it is quantized."""
    value = torch.from_numpy(np.array(tensor.data))
    if tensor.dtype == DType.uint8:
        value = (value.to(torch.int16) - 128).to(torch.int8)
    return channels_to_front(value)


def _bounded(compute: _Compute, op: ops.Op, output: IrTensor) -> _Compute:
    """``compute`` within the operator's bounds, where the grid's own end is not the bound."""
    low, high = getattr(op, "output_min", 0), getattr(op, "output_max", 255)
    if output.dtype != DType.uint8 or (low, high) == (0, 255):
        return compute
    scale, zero_point = qparams(output)
    if (low, high) == (zero_point, 255):
        return lambda *inputs: torch.relu(compute(*inputs))
    limits = ((low - zero_point) * scale, (high - zero_point) * scale)
    return lambda *inputs: functional.hardtanh(compute(*inputs), *limits)


def _pass(_module: QdqModule, _node: Node) -> _Compute:
    return lambda x: x


def _conv2d(module: QdqModule, node: Node) -> _Compute:
    op: Any = node.op
    window = op.window
    padding, border = split_padding(window)

    def compute(x: Tensor) -> Tensor:
        return functional.conv2d(
            functional.pad(x, border) if border else x,
            module.weight(node),
            module.bias(node),
            [window.stride_h, window.stride_w],
            padding,
            [window.dilation_h, window.dilation_w],
            op.groups,
        )

    return compute


def _linear(module: QdqModule, node: Node) -> _Compute:
    def compute(x: Tensor) -> Tensor:
        y = functional.linear(channels_to_back(x), module.weight(node), module.bias(node))
        return channels_to_front(y)

    return compute


def _max_pool2d(module: QdqModule, node: Node) -> _Compute:
    op: Any = node.op
    window = op.window
    padding, border = split_padding(window, largest=True)
    scale, zero_point = qparams(module.program.tensors[node.inputs[0]])
    if border and op.ceil_mode:
        raise ExportError(f"layer {node.name}: ceil_mode needs padding that is symmetric")

    def compute(x: Tensor) -> Tensor:
        if border:
            x = functional.pad(x, border, value=-zero_point * scale)
        return functional.max_pool2d(
            x,
            [window.kernel_h, window.kernel_w],
            [window.stride_h, window.stride_w],
            padding,
            [window.dilation_h, window.dilation_w],
            op.ceil_mode,
        )

    return compute


def _avg_pool2d(_module: QdqModule, node: Node) -> _Compute:
    op: Any = node.op
    window = op.window
    padding, border = split_padding(window, largest=True)
    if border and (op.ceil_mode or not op.count_include_pad):
        raise ExportError(
            f"layer {node.name}: average pooling with ceil_mode, or without counting the padding, "
            "needs padding that is symmetric"
        )
    return lambda x: functional.avg_pool2d(
        functional.pad(x, border) if border else x,
        [window.kernel_h, window.kernel_w],
        [window.stride_h, window.stride_w],
        padding,
        op.ceil_mode,
        op.count_include_pad,
        op.divisor_override or None,
    )


def _adaptive_avg_pool2d(_module: QdqModule, node: Node) -> _Compute:
    op: Any = node.op
    if (op.output_h, op.output_w) == (1, 1):
        return lambda x: x.mean((2, 3), keepdim=True)  # XNNPACK has no other global pooling
    return lambda x: functional.adaptive_avg_pool2d(x, (op.output_h, op.output_w))


def _adaptive_max_pool2d(_module: QdqModule, node: Node) -> _Compute:
    op: Any = node.op

    def compute(x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        if height % op.output_h or width % op.output_w:
            raise ExportError(f"layer {node.name}: max pooling needs windows of one size")
        window = [height // op.output_h, width // op.output_w]
        return functional.max_pool2d(x, window, window)

    return compute


def _pad(_module: QdqModule, node: Node) -> _Compute:
    op: Any = node.op
    return lambda x: functional.pad(x, [op.left, op.right, op.top, op.bottom])


def _table(module: QdqModule, node: Node) -> _Compute:
    op: Any = node.op
    x, output = (module.program.tensors[index] for index in (node.inputs[0], node.output))
    function = function_of(op, x, output)
    if function is functional.hardsigmoid:
        return _hardsigmoid(module)
    if function is not None:
        return function
    scale, zero_point = qparams(output)
    in_scale, in_zero_point = qparams(x)
    values = torch.from_numpy(np.frombuffer(op.values, dtype=np.uint8).copy())
    module.register_buffer(f"table{node.output}", (values.float() - zero_point) * scale)

    def compute(real: Tensor) -> Tensor:
        steps = torch.round(real / in_scale) + in_zero_point
        return module.get_buffer(f"table{node.output}")[steps.to(torch.int64)]

    return compute


def _hardsigmoid(module: QdqModule) -> _Compute:
    """With tensors for its constants: ExecuTorch computes with numbers outside of its delegates."""
    module.register_buffer("hardsigmoid_slope", torch.tensor([1 / 6]))
    module.register_buffer("hardsigmoid_middle", torch.tensor([0.5]))

    def compute(x: Tensor) -> Tensor:
        slope, middle = (module.get_buffer(f"hardsigmoid_{name}") for name in ("slope", "middle"))
        return functional.hardtanh(x * slope + middle, 0.0, 1.0)

    return compute


def _concat(module: QdqModule, node: Node) -> _Compute:
    op: Any = node.op
    rank = len(module.program.tensors[node.output].shape)
    dim, groups = torch_dim(op.axis, rank), len(node.inputs)
    if op.interleaved and rank != 4:
        raise ExportError(f"layer {node.name}: only channels of images can be interleaved")
    if op.interleaved:
        return lambda *parts: functional.channel_shuffle(torch.cat(parts, dim), groups)
    return lambda *parts: torch.cat(parts, dim)


def _slice(module: QdqModule, node: Node) -> _Compute:
    op: Any = node.op
    dim = torch_dim(op.axis, len(module.program.tensors[node.output].shape))
    return lambda x: torch.ops.aten.slice.Tensor(x, dim, op.begin, op.end or None)


def _channel_shuffle(_module: QdqModule, node: Node) -> _Compute:
    op: Any = node.op
    return lambda x: functional.channel_shuffle(x, op.groups)


def _resize(_module: QdqModule, node: Node) -> _Compute:
    op: Any = node.op
    size, scale = size_or_scale(op)
    if isinstance(op, ops.ResizeNearest):
        return lambda x: functional.interpolate(x, size, scale)
    return lambda x: functional.interpolate(x, size, scale, "bilinear", op.align_corners)


def _conv_transpose2d(module: QdqModule, node: Node) -> _Compute:
    op: Any = node.op
    window = op.window
    padding, border = split_padding(window)
    if border:
        raise ExportError(f"layer {node.name}: the padding of a ConvTranspose2d is not symmetric")

    def compute(x: Tensor) -> Tensor:
        weight = module.weight(node)  # [O, I / groups, kH, kW]; torch wants [I, O / groups, ...]
        by_group = weight.reshape(op.groups, -1, *weight.shape[1:]).transpose(1, 2)
        return functional.conv_transpose2d(
            x,
            by_group.flatten(0, 1),
            module.bias(node),
            [window.stride_h, window.stride_w],
            padding,
            [op.output_pad_h, op.output_pad_w],
            op.groups,
            [window.dilation_h, window.dilation_w],
        )

    return compute


def _add(_module: QdqModule, _node: Node) -> _Compute:
    return torch.add


def _mul(_module: QdqModule, _node: Node) -> _Compute:
    return torch.mul


def _flatten(_module: QdqModule, _node: Node) -> _Compute:
    return partial(torch.flatten, start_dim=1)


def _reshape(_module: QdqModule, node: Node) -> _Compute:
    op: Any = node.op
    sizes: Sequence[int] = op.sizes
    return lambda x: x.reshape([x.shape[0], *sizes])


#: How each operator is computed. Adding an operator is adding a row.
_COMPUTE: dict[type, Callable[[QdqModule, Node], _Compute]] = {
    ops.Quantize: _pass,
    ops.Dequantize: _pass,
    ops.Conv2d: _conv2d,
    ops.ConvTranspose2d: _conv_transpose2d,
    ops.Linear: _linear,
    ops.Add: _add,
    ops.Mul: _mul,
    ops.MaxPool2d: _max_pool2d,
    ops.AvgPool2d: _avg_pool2d,
    ops.AdaptiveAvgPool2d: _adaptive_avg_pool2d,
    ops.AdaptiveMaxPool2d: _adaptive_max_pool2d,
    ops.Flatten: _flatten,
    ops.Reshape: _reshape,
    ops.Pad: _pad,
    ops.LookupTable: _table,
    ops.Concat: _concat,
    ops.Slice: _slice,
    ops.ChannelShuffle: _channel_shuffle,
    ops.ResizeNearest: _resize,
    ops.ResizeBilinear: _resize,
}
