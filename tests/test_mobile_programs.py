"""Hand-made Programs for the mobile tests, and a plain interpreter that says what they compute.

The interpreter is written from csrc/include/pyquant/operator.h, in float64 and int64 where that
cannot change a bit, and shares nothing with what it judges.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from pyquant.ir import ops
from pyquant.ir.program import DType, Node, Program, Tensor

_F32 = np.float32


class Builder:
    """Appends operators to a Program; every method takes and returns tensor indices."""

    def __init__(self, shape: tuple[int, ...] = (2, 3, 11, 11), seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.program = Program(name="hand_made")
        self.input = self.program.add_tensor(Tensor("x", DType.float32, shape))
        self.program.inputs = [self.input]

    def emit(
        self,
        op: ops.Op,
        inputs: list[int],
        shape: tuple[int, ...],
        scale: float = 0.05,
        zero_point: int = 128,
        dtype: DType = DType.uint8,
    ) -> int:
        scales = np.asarray([scale] if dtype == DType.uint8 else [], _F32)
        name = f"{type(op).__name__.lower()}_{len(self.program.nodes)}"
        output = self.program.add_tensor(Tensor(name, dtype, shape, scales, zero_point))
        self.program.nodes.append(Node(name, op, inputs, output))
        return output

    def quantize(self, scale: float = 0.03, zero_point: int = 120) -> int:
        shape = self.program.tensors[self.input].shape
        if len(shape) == 4:
            shape = (shape[0], shape[2], shape[3], shape[1])
        return self.emit(ops.Quantize(), [self.input], shape, scale, zero_point)

    def constant(self, name: str, data: npt.NDArray[np.generic], scale: object = ()) -> int:
        dtype = DType[str(data.dtype)]
        scales = np.asarray(scale, _F32)
        return self.program.add_tensor(Tensor(name, dtype, data.shape, scales, 0, data))

    def weights(self, shape: tuple[int, ...]) -> list[int]:
        """Random int8 weights with one scale a channel, and biases large and small."""
        channels = shape[0]
        weight = self.rng.integers(-127, 128, shape).astype(np.int8)
        scale = self.rng.uniform(0.5, 1.5, channels) / 73 / np.sqrt(np.prod(shape[1:]))
        bias = self.rng.integers(-3000, 3000, channels).astype(np.int32)
        return [self.constant("weight", weight, scale), self.constant("bias", bias)]

    def conv(
        self, x: int, channels: int, window: ops.Window, groups: int = 1, **options: object
    ) -> int:
        n, h, w, c = self.program.tensors[x].shape
        bounds = {key: options.pop(key) for key in ("output_min", "output_max") if key in options}
        height = window_size(
            h,
            window.kernel_h,
            window.stride_h,
            window.pad_top + window.pad_bottom,
            window.dilation_h,
        )
        width = window_size(
            w,
            window.kernel_w,
            window.stride_w,
            window.pad_left + window.pad_right,
            window.dilation_w,
        )
        constants = self.weights((channels, window.kernel_h, window.kernel_w, c // groups))
        op = ops.Conv2d(window, groups, **bounds)  # type: ignore[arg-type]
        return self.emit(op, [x, *constants], (n, height, width, channels), **options)  # type: ignore[arg-type]

    def linear(self, x: int, features: int, **options: object) -> int:
        shape = self.program.tensors[x].shape
        bounds = {key: options.pop(key) for key in ("output_min", "output_max") if key in options}
        op = ops.Linear(**bounds)  # type: ignore[arg-type]
        constants = self.weights((features, shape[-1]))
        return self.emit(op, [x, *constants], (*shape[:-1], features), **options)  # type: ignore[arg-type]

    def like(self, op: ops.Op, x: int, shape: tuple[int, ...]) -> int:
        """An operator that keeps the qparams of ``x``."""
        tensor = self.program.tensors[x]
        return self.emit(op, [x], shape, float(tensor.scale[0]), tensor.zero_point)

    def finish(self, *outputs: int) -> Program:
        """Dequantizes what is uint8 and makes it the Program's outputs."""
        for output in outputs:
            tensor = self.program.tensors[output]
            if len(tensor.shape) == 4 or tensor.dtype == DType.uint8:
                n, *rest = tensor.shape
                shape = (n, rest[-1], *rest[:-1]) if len(rest) == 3 else tensor.shape
                output = self.emit(ops.Dequantize(), [output], shape, dtype=DType.float32)
            self.program.outputs.append(output)
        return self.program


def window_size(size: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    return (size + pad - dilation * (kernel - 1) - 1) // stride + 1


#: What a sum can repeat, of a tensor [2, 12, 12, 6] inside of the Program.
REPEATED: dict[str, tuple[ops.Op, tuple[int, ...]]] = {
    "pixels": (ops.MaxPool2d(ops.Window(12, 12)), (2, 1, 1, 6)),
    "rows": (ops.MaxPool2d(ops.Window(12, 1)), (2, 1, 12, 6)),
    "channels": (ops.Slice(3, 2, 3), (2, 12, 12, 1)),
}


def repeating_sum(repeated: str, swapped: bool = False) -> Program:
    """A sum that repeats values, and behind it what depends on the layout of its result."""
    builder = Builder(shape=(2, 6, 12, 12))
    q = builder.quantize()
    small = builder.like(REPEATED[repeated][0], q, REPEATED[repeated][1])
    operands = [small, q] if swapped else [q, small]
    total = builder.emit(ops.Add(70, 180, broadcast=True), operands, (2, 12, 12, 6), 0.037, 77)
    return builder.finish(builder.like(ops.MaxPool2d(ops.Window(2, 2, 2, 2)), total, (2, 6, 6, 6)))


def interpret(program: Program, *inputs: torch.Tensor) -> list[torch.Tensor]:
    """The Program's float32 outputs for float32 inputs, to the bit."""
    values: dict[int, npt.NDArray[np.generic]] = {}
    for index, tensor in zip(program.inputs, inputs, strict=True):
        values[index] = tensor.numpy()
    for index, constant in enumerate(program.tensors):
        if constant.data is not None:
            values[index] = constant.data
    for node in program.nodes:
        operands = [(program.tensors[i], values[i]) for i in node.inputs]
        values[node.output] = _compute(node.op, operands, program.tensors[node.output])
    return [torch.from_numpy(np.ascontiguousarray(values[i])) for i in program.outputs]


_Operand = tuple[Tensor, npt.NDArray[np.generic]]


def _scale(tensor: Tensor) -> np.float32:
    return _F32(tensor.scale[0])


def _round(
    x: npt.NDArray[np.float32], y: Tensor, low: int = 0, high: int = 255
) -> npt.NDArray[np.uint8]:
    return np.clip(np.rint(x) + _F32(y.zero_point), low, high).astype(np.uint8)


def _compute(op: ops.Op, operands: list[_Operand], y: Tensor) -> npt.NDArray[np.generic]:
    x, q = operands[0]
    match op:
        case ops.Quantize():
            values = q.transpose(0, 2, 3, 1) if q.ndim == 4 else q
            return _round(values * (_F32(1) / _scale(y)), y)
        case ops.Dequantize():
            real = q if x.dtype == DType.float32 else _real(x, q)
            return real.transpose(0, 3, 1, 2) if real.ndim == 4 else real
        case ops.Conv2d():
            w = op.window
            border = ((0, 0), (w.pad_top, w.pad_bottom), (w.pad_left, w.pad_right), (0, 0))
            image = np.pad(q.astype(np.float64) - x.zero_point, border)
            total = functional.conv2d(
                torch.from_numpy(image.transpose(0, 3, 1, 2)),
                torch.from_numpy(operands[1][1].astype(np.float64).transpose(0, 3, 1, 2)),
                None,
                (w.stride_h, w.stride_w),
                0,
                (w.dilation_h, w.dilation_w),
                op.groups,
            )
            return _requantize(op, total.numpy().transpose(0, 2, 3, 1), operands, y)
        case ops.Linear():
            weight = operands[1][1].astype(np.float64)
            return _requantize(op, (q.astype(np.float64) - x.zero_point) @ weight.T, operands, y)
        case ops.Add():
            terms = [
                value * (_F32(1) / _scale(y))
                if tensor.dtype == DType.float32
                else (value.astype(_F32) - _F32(tensor.zero_point)) * (_scale(tensor) / _scale(y))
                for tensor, value in operands
            ]
            return _round(terms[0] + terms[1], y, op.output_min, op.output_max)
        case ops.MaxPool2d():
            return _pool(op.window, q, 0).max(axis=(-1, -2)).astype(np.uint8)
        case ops.AvgPool2d():
            shifted = q.astype(np.int64) - x.zero_point
            inside = _pool(op.window, np.ones_like(shifted), int(op.count_include_pad))
            count = op.divisor_override or inside.sum(axis=(-1, -2)).astype(_F32)
            total_ = _pool(op.window, shifted, 0).sum(axis=(-1, -2)).astype(_F32)
            return _round(total_ * (_scale(x) / (_scale(y) * count)).astype(_F32), y)
        case ops.AdaptiveAvgPool2d():
            return _adaptive(op, x, q, y)
        case ops.AdaptiveMaxPool2d():
            assert (op.output_h, op.output_w) == (1, 1)
            return q.max(axis=(1, 2), keepdims=True)
        case ops.Flatten():
            ordered = q.transpose(0, 3, 1, 2) if q.ndim == 4 else q
            return ordered.reshape(len(q), -1)
        case ops.Pad():
            h, w_ = q.shape[1:3]
            cropped = q[:, max(0, -op.top) : h + min(0, op.bottom)]
            cropped = cropped[:, :, max(0, -op.left) : w_ + min(0, op.right)]
            sides = ((0, 0), (max(0, op.top), max(0, op.bottom)),
                     (max(0, op.left), max(0, op.right)), (0, 0))  # fmt: skip
            return np.pad(cropped, sides, constant_values=x.zero_point)
        case ops.LookupTable():
            return np.frombuffer(op.values, np.uint8)[q]
        case ops.Reshape():
            ordered = (q.transpose(0, 3, 1, 2) if q.ndim == 4 else q).reshape(len(q), *op.sizes)
            return ordered.transpose(0, 2, 3, 1) if ordered.ndim == 4 else ordered
        case ops.Mul():
            factors = [value.astype(np.int64) - tensor.zero_point for tensor, value in operands]
            multiplier = (_scale(x) * _scale(operands[1][0])) / _scale(y)
            product = (factors[0] * factors[1]).astype(_F32)
            return _round(product * multiplier, y, op.output_min, op.output_max)
        case ops.Concat():
            values = [value for _, value in operands]
            if op.interleaved:
                return np.stack(values, -1).reshape(*q.shape[:-1], -1)
            return np.concatenate(values, op.axis)
        case ops.Slice():
            return q[(slice(None),) * op.axis + (slice(op.begin, op.end or None),)]
        case ops.ChannelShuffle():
            grouped = q.reshape(*q.shape[:3], op.groups, -1)
            return grouped.swapaxes(3, 4).reshape(q.shape)
        case ops.ResizeNearest() | ops.ResizeBilinear():
            return _resize(op, x, q, y)
    raise AssertionError(op)


def _resize(
    op: ops.ResizeNearest | ops.ResizeBilinear, x: Tensor, q: npt.NDArray[np.generic], y: Tensor
) -> npt.NDArray[np.generic]:
    """By torch in float32, whose positions are those of operator.h."""
    image = torch.from_numpy((q.astype(_F32) - _F32(x.zero_point)).transpose(0, 3, 1, 2).copy())
    size = [op.output_h, op.output_w] if op.output_h else None
    scales = None if size else [op.scale_h, op.scale_w]
    if isinstance(op, ops.ResizeNearest):
        resized = functional.interpolate(image, size, scales)
    else:
        resized = functional.interpolate(image, size, scales, "bilinear", op.align_corners)
    return _round(resized.numpy().transpose(0, 2, 3, 1) * (_scale(x) / _scale(y)), y)


def _real(x: Tensor, q: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    real: npt.NDArray[np.float32] = (q.astype(_F32) - _F32(x.zero_point)) * _scale(x)
    return real


def _requantize(
    op: ops.Conv2d | ops.Linear,
    total: npt.NDArray[np.float64],
    operands: list[_Operand],
    y: Tensor,
) -> npt.NDArray[np.generic]:
    accumulator = (total + operands[2][1]).astype(np.int64).astype(_F32)
    multiplier = _scale(operands[0][0]) * operands[1][0].scale
    if y.dtype == DType.float32:
        return accumulator * multiplier
    return _round(accumulator * (multiplier / _scale(y)), y, op.output_min, op.output_max)


def _pool(w: ops.Window, q: npt.NDArray[np.generic], fill: int) -> npt.NDArray[np.generic]:
    """All windows: [N, H', W', C, kernel_h, kernel_w]."""
    border = ((0, 0), (w.pad_top, w.pad_bottom), (w.pad_left, w.pad_right), (0, 0))
    image = np.pad(q, border, constant_values=fill)
    extent = (w.dilation_h * (w.kernel_h - 1) + 1, w.dilation_w * (w.kernel_w - 1) + 1)
    windows = np.lib.stride_tricks.sliding_window_view(image, extent, axis=(1, 2))
    return windows[:, :: w.stride_h, :: w.stride_w, :, :: w.dilation_h, :: w.dilation_w]


def _adaptive(
    op: ops.AdaptiveAvgPool2d, x: Tensor, q: npt.NDArray[np.generic], y: Tensor
) -> npt.NDArray[np.uint8]:
    n, h, w, c = q.shape
    result = np.empty((n, op.output_h, op.output_w, c), np.uint8)
    shifted = q.astype(np.int64) - x.zero_point
    for i in range(op.output_h):
        rows = slice(i * h // op.output_h, -(-(i + 1) * h // op.output_h))
        for j in range(op.output_w):
            columns = slice(j * w // op.output_w, -(-(j + 1) * w // op.output_w))
            window = shifted[:, rows, columns]
            count = _F32(window.shape[1] * window.shape[2])
            factor = _scale(x) / (_scale(y) * count)
            result[:, i, j] = _round(window.sum(axis=(1, 2)).astype(_F32) * factor, y)
    return result


def test_the_interpreter_on_a_case_worked_out_by_hand() -> None:
    builder = Builder(shape=(1, 1, 1, 2))
    x = builder.quantize(scale=0.5, zero_point=10)
    weight = builder.constant("w", np.full((1, 1, 1, 1), 3, np.int8), [0.25])
    bias = builder.constant("b", np.asarray([4], np.int32))
    op = ops.Conv2d(ops.Window(), output_max=20)
    y = builder.emit(op, [x, weight, bias], (1, 1, 2, 1), scale=0.25, zero_point=7)
    # x = 1, 5 -> q = 12, 20 -> acc = 2*3+4 = 10, 34 -> *0.5 + 7 = 12, 24 -> clamped 20 -> real
    (out,) = interpret(builder.finish(y), torch.tensor([[[[1.0, 5.0]]]]))
    assert out.flatten().tolist() == [(12 - 7) * 0.25, (20 - 7) * 0.25]
