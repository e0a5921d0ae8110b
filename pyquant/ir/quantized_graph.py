"""Reading the q/dq graph that PT2E's ``convert_pt2e`` makes, whoever's quantizer annotated it."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch.fx import GraphModule, Node

from pyquant.errors import LoweringError

UINT8_SHIFT = 128  # int8 activations are the same numbers shifted


@dataclass(frozen=True)
class QParams:
    """Per-tensor qparams of an activation in uint8 terms.

    ``low`` and ``high`` are the values that may occur: 0..255, or fewer where the quantizer gave
    up a bit.
    """

    scale: float
    zero_point: int
    low: int = 0
    high: int = 255

    @property
    def is_full_range(self) -> bool:
        """Whether all of 0..255 may occur."""
        return (self.low, self.high) == (0, 255)

    def full_range(self) -> QParams:
        """The same scale and zero point without a narrower range."""
        return QParams(self.scale, self.zero_point)

    def quantize(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
        """float32 to uint8, as the graph's ``quantize_per_tensor`` computes it."""
        inverse = np.float32(1.0 / float(self.scale))
        rounded = np.rint(values * inverse) + self.zero_point
        clipped: npt.NDArray[np.float32] = np.clip(rounded, self.low, self.high)
        return clipped.astype(np.uint8)

    def dequantize(self, values: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 to float32."""
        steps = values.astype(np.int32) - self.zero_point
        return steps.astype(np.float32) * np.float32(self.scale)


@dataclass(frozen=True)
class QuantizedWeight:
    """An int8 weight, output channels first, and its float32 scale per output channel."""

    values: npt.NDArray[np.int8]
    scales: npt.NDArray[np.float32]


def is_call(node: Any, *names: str) -> bool:
    """Whether ``node`` calls one of the named operators, e.g. ``"aten.conv2d.default"``."""
    return isinstance(node, Node) and node.op == "call_function" and str(node.target) in names


_DECOMPOSED = "quantized_decomposed"
_PER_TENSOR = ("default", "tensor", "tensor2")
_QUANTIZE = tuple(f"{_DECOMPOSED}.quantize_per_tensor.{overload}" for overload in _PER_TENSOR)
_DEQUANTIZE = tuple(f"{_DECOMPOSED}.dequantize_per_tensor.{overload}" for overload in _PER_TENSOR)
_QUANTIZE_CHANNEL = (f"{_DECOMPOSED}.quantize_per_channel.default",)
_DEQUANTIZE_CHANNEL = (f"{_DECOMPOSED}.dequantize_per_channel.default",)


class QuantizedGraph:
    """A q/dq GraphModule with the questions that lowering asks of it.

    Raises:
        LoweringError: The graph holds no quantized operator.
    """

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self.nodes: list[Node] = list(module.graph.nodes)
        self._constants: set[Node] = set()
        for node in self.nodes:
            computed = node.op == "call_function" and node.all_input_nodes
            if node.op == "get_attr" or (
                computed and all(argument in self._constants for argument in computed)
            ):
                self._constants.add(node)
        if not any(is_call(node, *_DEQUANTIZE) for node in self.nodes):
            raise LoweringError(
                "the graph has no quantize/dequantize pairs: pass what pyquant.convert() or "
                "torchao's convert_pt2e() returned"
            )

    def is_quantize(self, node: Node) -> bool:
        """Whether ``node`` quantizes an activation."""
        return is_call(node, *_QUANTIZE) and not self.is_constant(node)

    def is_dequantize(self, node: Any) -> bool:
        """Whether ``node`` dequantizes an activation."""
        return is_call(node, *_DEQUANTIZE) and not self.is_constant(node)

    def is_constant(self, node: Any) -> bool:
        """Whether the value of ``node`` does not depend on the graph's inputs."""
        return not isinstance(node, Node) or node in self._constants

    def constant(self, node: Any) -> Any:
        """The value of a constant node (or ``node`` itself if it is no node)."""
        if not isinstance(node, Node):
            return node
        if node.op == "get_attr":
            return operator.attrgetter(cast(str, node.target))(self.module)
        args = torch.fx.map_arg(node.args, self.constant)
        kwargs = torch.fx.map_arg(node.kwargs, self.constant)
        with torch.no_grad():
            return cast(Any, node.target)(*args, **kwargs)

    def qparams(self, node: Node) -> QParams:
        """The qparams of an activation's quantize or dequantize node.

        Raises:
            LoweringError: They are no finite uint8 or int8 qparams.
        """
        scale, zero_point, low, high, dtype = (self.constant(value) for value in node.args[1:6])
        if dtype not in (torch.uint8, torch.int8):
            raise LoweringError(
                f"the activation '{node.name}' is quantized to {dtype}; pyquant runs uint8 and int8"
            )
        shift = UINT8_SHIFT if dtype == torch.int8 else 0
        scale = float(np.float32(float(scale)))
        if not (np.isfinite(scale) and scale > 0):
            raise LoweringError(f"the activation '{node.name}' has scale {scale}")
        return QParams(
            scale=scale,
            zero_point=int(zero_point) + shift,
            low=max(int(low) + shift, 0),
            high=min(int(high) + shift, 255),
        )

    def weight(self, node: Any, output_axis: int = 0) -> QuantizedWeight | None:
        """The weight behind a dequantize node of a constant, with its axis ``output_axis`` first;
        ``None`` if it is no int8 symmetric weight, per tensor or per channel of that axis.
        """
        if not self.is_constant(node):
            return None
        if is_call(node, *_DEQUANTIZE_CHANNEL):
            axis = self.constant(node.args[3])
        elif is_call(node, *_DEQUANTIZE):
            axis = output_axis
        else:
            return None
        values = self.constant(node.args[0])
        scales = torch.as_tensor(self.constant(node.args[1]), dtype=torch.float32).reshape(-1)
        zero_points = torch.as_tensor(self.constant(node.args[2])).reshape(-1)
        if values.dtype == torch.uint8:
            values = (values.to(torch.int16) - UINT8_SHIFT).to(torch.int8)
            zero_points = zero_points - UINT8_SHIFT
        if axis != output_axis or values.dtype != torch.int8 or bool((zero_points != 0).any()):
            return None
        values = values.transpose(0, output_axis)
        channels = values.shape[0]
        scales = scales.expand(channels) if scales.numel() == 1 else scales
        return QuantizedWeight(values.numpy(), np.ascontiguousarray(scales.numpy()))

    def shape(self, node: Node) -> tuple[int, ...]:
        """The shape of the node's value for the example inputs."""
        while self.is_dequantize(node) or self.is_quantize(node):
            node = cast(Node, node.args[0])
        if not isinstance(node.meta.get("val"), torch.Tensor):
            _propagate_shapes(self.module)
        return tuple(int(size) for size in node.meta["val"].shape)

    def part_shapes(self, node: Node) -> list[tuple[int, ...]]:
        """The shapes of the tensors that a split gives for the example inputs."""
        if "val" not in node.meta:
            _propagate_shapes(self.module)
        return [tuple(int(size) for size in part.shape) for part in node.meta["val"]]


def _propagate_shapes(module: GraphModule) -> None:
    """Fills ``meta["val"]`` of every node with a fake tensor of its shape and dtype. Graphs that
    kept what torch.export wrote there are spared these seconds.

    Raises:
        LoweringError: A placeholder does not know its example input's shape.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.passes.fake_tensor_prop import FakeTensorProp

    examples = []
    for node in module.graph.nodes:
        if node.op != "placeholder":
            continue
        value = node.meta.get("val")
        if not isinstance(value, torch.Tensor):
            raise LoweringError(
                f"the input '{node.name}' of the graph carries no example tensor; lower() takes "
                "graphs that came from torch.export"
            )
        examples.append(torch.empty(tuple(value.shape), dtype=value.dtype, device="meta"))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = [torch.empty(value.shape, dtype=value.dtype) for value in examples]
        FakeTensorProp(module, mode).propagate_dont_convert_inputs(*fakes)
