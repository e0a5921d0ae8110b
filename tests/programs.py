"""Programs written by hand, for the tests of the file format and of the runtime."""

from __future__ import annotations

import numpy as np
import torch

from pyquant.ir import ops
from pyquant.ir.program import DType, Node, Program, Tensor
from pyquant.operators import Kernel, QParams


class ProgramBuilder:
    """Appends operators one by one; shapes are the caller's to get right."""

    def __init__(self, seed: int = 0) -> None:
        self.program = Program(name="test")
        self._random = np.random.default_rng(seed)

    def floats(self, shape: tuple[int, ...], name: str | None = None) -> int:
        """A float32 tensor."""
        name = name or f"t{len(self.program.tensors)}"
        return self.program.add_tensor(Tensor(name, DType.float32, shape))

    def uint8(self, shape: tuple[int, ...], scale: float = 0.05, zero_point: int = 120) -> int:
        """A uint8 activation."""
        name = f"t{len(self.program.tensors)}"
        scales = np.array([scale], np.float32)
        return self.program.add_tensor(Tensor(name, DType.uint8, shape, scales, zero_point))

    def input(self, index: int) -> int:
        """Makes a tensor an input."""
        self.program.inputs.append(index)
        return index

    def node(self, op: ops.Op, inputs: list[int], output: int) -> int:
        """Appends an operator; returns its output."""
        name = f"n{len(self.program.nodes)}"
        self.program.nodes.append(Node(name, op, inputs, output))
        return output

    def conv(
        self,
        source: int,
        window: ops.Window,
        channels: int,
        shape: tuple[int, ...],
        op: ops.Op | None = None,
    ) -> int:
        """A convolution, or another operator with such weights, with random ones."""
        inputs = self.program.tensors[source].shape[-1]
        weight_shape = (channels, window.kernel_h, window.kernel_w, inputs)
        op = op or ops.Conv2d(window, 1, 0, 250)
        return self.weighted(op, source, weight_shape, self.uint8(shape))

    def linear(self, source: int, features: int) -> int:
        """A linear layer with a float32 result."""
        rows, inputs = self.program.tensors[source].shape
        result = self.floats((rows, features))
        return self.weighted(ops.Linear(), source, (features, inputs), result)

    def weighted(self, op: ops.Op, source: int, shape: tuple[int, ...], output: int) -> int:
        """An operator with random weights of that shape."""
        values = self._random.integers(-127, 128, shape, dtype=np.int8)
        scales = self._random.uniform(0.002, 0.004, shape[0]).astype(np.float32)
        bias = self._random.integers(-3000, 3000, shape[0], dtype=np.int32)
        number = len(self.program.tensors)
        weight = Tensor(f"weight{number}", DType.int8, shape, scales, data=values)
        constants = (weight, Tensor(f"bias{number}", DType.int32, bias.shape, data=bias))
        indices = [self.program.add_tensor(constant) for constant in constants]
        return self.node(op, [source, *indices], output)

    def finish(self, *outputs: int) -> Program:
        """The Program with these outputs."""
        self.program.outputs = list(outputs)
        return self.program


def table(seed: int) -> ops.LookupTable:
    """A random table."""
    values = np.random.default_rng(seed).integers(0, 256, 256, dtype=np.uint8)
    return ops.LookupTable(values.tobytes())


def by_kernels(
    program: Program, *inputs: torch.Tensor, engine: str = "reference"
) -> list[torch.Tensor]:
    """Runs a Program node by node: no plan, no arena, no views."""
    values: dict[int, torch.Tensor] = dict(zip(program.inputs, inputs, strict=True))
    for node in program.nodes:
        tensors = [program.tensors[index] for index in node.inputs]
        constants = [torch.from_numpy(t.data.copy()) for t in tensors if t.data is not None]

        def qparams(index: int) -> QParams | None:
            tensor = program.tensors[index]
            if tensor.dtype is DType.float32:
                return None
            return QParams(float(tensor.scale[0]), tensor.zero_point)

        activations = [i for i in node.inputs if not program.tensors[i].is_constant]
        weight, bias = constants or (None, None)
        kernel = Kernel(
            node.op,
            [qparams(index) for index in activations],
            qparams(node.output),
            weight=weight,
            weight_scales=torch.from_numpy(tensors[1].scale) if constants else None,
            bias=bias,
            engine=engine,
        )
        values[node.output] = kernel(*(values[index] for index in activations))
    return [values[index] for index in program.outputs]


def small_net() -> Program:
    """One of each kind of operator: [1, 3, 8, 9] float32 to [1, 6] float32."""
    build = ProgramBuilder()
    x = build.input(build.floats((1, 3, 8, 9), "image"))
    x = build.node(ops.Quantize(), [x], build.uint8((1, 8, 9, 3)))
    x = build.node(ops.Pad(1, 0, 0, 1), [x], build.uint8((1, 9, 10, 3)))
    x = build.conv(x, ops.Window(3, 3, 1, 1, 1, 1, 1, 1), 5, (1, 9, 10, 5))
    y = build.node(table(1), [x], build.uint8((1, 9, 10, 5), 0.1, 9))
    x = build.node(ops.Add(3, 250), [x, y], build.uint8((1, 9, 10, 5), 0.2, 100))
    window = ops.Window(3, 2, 2, 2, 1, 0, 1, 0)
    x = build.node(ops.MaxPool2d(window), [x], build.uint8((1, 5, 5, 5), 0.2, 100))
    average = ops.AvgPool2d(ops.Window(2, 2), False, True, 0)
    x = build.node(average, [x], build.uint8((1, 4, 4, 5), 0.1, 90))
    x = build.node(ops.AdaptiveAvgPool2d(2, 1), [x], build.uint8((1, 2, 1, 5), 0.1, 90))
    y = build.node(table(2), [x], build.uint8((1, 2, 1, 5), 0.02, 60))
    x = build.node(ops.Mul(2, 251), [x, y], build.uint8((1, 2, 1, 5), 0.1, 90))
    x = build.node(ops.Reshape((-1, 5, 1)), [x], build.uint8((1, 5, 1, 2), 0.1, 90))
    x = build.node(ops.Flatten(), [x], build.uint8((1, 10), 0.1, 90))
    program = build.finish(build.linear(x, 6))
    last = program.outputs[0]
    program.outputs = [build.node(ops.Dequantize(), [last], build.floats((1, 6), "logits"))]
    program.metadata = {"made by": "a test", "numbers": [1, 2.5, None], "é": "ü"}
    return program


def branching_net() -> Program:
    """One of each kind that joins, parts or resizes: [1, 4, 5, 6] to [1, 6, 10, 13], float32."""
    build = ProgramBuilder(3)
    x = build.input(build.floats((1, 4, 5, 6), "image"))
    x = build.node(ops.Quantize(), [x], build.uint8((1, 5, 6, 4)))
    a = build.node(ops.Slice(3, 0, 2), [x], build.uint8((1, 5, 6, 2)))
    b = build.node(ops.Slice(3, 2, 4), [x], build.uint8((1, 5, 6, 2)))
    x = build.node(ops.Concat(3, True), [b, a], build.uint8((1, 5, 6, 4)))
    x = build.node(ops.Concat(), [x, a], build.uint8((1, 5, 6, 6)))
    x = build.node(ops.ChannelShuffle(3), [x], build.uint8((1, 5, 6, 6)))
    x = build.node(ops.ResizeNearest(0, 5, 1.2, 0.0), [x], build.uint8((1, 6, 5, 6)))
    bilinear = ops.ResizeBilinear(5, 6, align_corners=True)
    x = build.node(bilinear, [x], build.uint8((1, 5, 6, 6), 0.1, 90))
    window = ops.Window(3, 3, 2, 2, 1, 0, 1, 0)
    up = ops.ConvTranspose2d(window, 1, 1, 0, 3, 250)
    x = build.conv(x, window, 6, (1, 10, 13, 6), up)
    return build.finish(build.node(ops.Dequantize(), [x], build.floats((1, 6, 10, 13))))


def repeating_net() -> Program:
    """Maxima, and sums that repeat them: [1, 3, 8, 9] to [1, 4, 8, 9] float32."""
    build = ProgramBuilder(5)
    x = build.input(build.floats((1, 3, 8, 9), "image"))
    x = build.node(ops.Quantize(), [x], build.uint8((1, 8, 9, 3)))
    x = build.conv(x, ops.Window(3, 3, 1, 1, 1, 1, 1, 1), 4, (1, 8, 9, 4))
    rows = build.node(ops.AdaptiveMaxPool2d(1, 9), [x], build.uint8((1, 1, 9, 4)))
    pixel = build.node(ops.AdaptiveMaxPool2d(), [rows], build.uint8((1, 1, 1, 4)))
    add = ops.Add(4, 251, broadcast=True)
    y = build.node(add, [pixel, x], build.uint8((1, 8, 9, 4), 0.1, 90))
    y = build.node(add, [y, rows], build.uint8((1, 8, 9, 4), 0.2, 80))
    return build.finish(build.node(ops.Dequantize(), [y], build.floats((1, 4, 8, 9))))


def fully_convolutional(height: int = 8, width: int = 9) -> Program:
    """[1, 3, H, W] float32 to [1, 4, H / 2, W / 2] and [1, 5, H, W] float32."""
    build = ProgramBuilder(7)
    x = build.input(build.floats((1, 3, height, width), "image"))
    x = build.node(ops.Quantize(), [x], build.uint8((1, height, width, 3)))
    x = build.conv(x, ops.Window(3, 3, 1, 1, 1, 1, 1, 1), 5, (1, height, width, 5))
    other = build.node(ops.Dequantize(), [x], build.floats((1, 5, height, width)))
    half = ((height - 1) // 2 + 1, (width - 1) // 2 + 1)
    x = build.conv(x, ops.Window(3, 3, 2, 2, 1, 1, 1, 1), 4, (1, *half, 4))
    y = build.node(ops.Dequantize(), [x], build.floats((1, 4, *half)))
    return build.finish(y, other)
