"""The weighted layers of an observed graph: which they are, and what quantization makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from pyquant.capture.node import (
    WEIGHTED,
    arguments,
    get_constant,
    insert_constant,
    is_call,
    shape_of,
)

_aten = torch.ops.aten


@dataclass(frozen=True)
class WeightedLayer:
    """A convolution, transposed convolution or linear layer whose operands are both observed.

    Attributes:
        module: The graph's owner.
        node: The call.
    """

    module: fx.GraphModule
    node: fx.Node

    @property
    def observer_node(self) -> fx.Node:
        """The call of the weight's observer."""
        node = self.node.args[1]
        assert isinstance(node, fx.Node)
        return node

    @property
    def observer(self) -> Any:
        """The weight's observer."""
        return self.module.get_submodule(str(self.observer_node.target))

    @property
    def is_transposed(self) -> bool:
        """Whether the weight is ``[I, O / groups, kH, kW]``."""
        return is_call(self.node, _aten.conv_transpose2d.input)

    @property
    def is_linear(self) -> bool:
        """Whether channels are the last dimension, not the second."""
        return is_call(self.node, _aten.linear.default)

    @property
    def channel_axis(self) -> int:
        """The dimension of the channels in the input and in the output."""
        return -1 if self.is_linear else 1

    @property
    def source(self) -> fx.Node:
        """The node that the layer reads."""
        source = self.node.args[0]
        assert isinstance(source, fx.Node)
        return source

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """The example's shape of what the layer reads; ``None`` if unknown or symbolic."""
        source = self.source
        while source.op == "call_module":  # observers: they pass on what they see
            source = source.all_input_nodes[0]
        return shape_of(source)

    @property
    def weight(self) -> torch.Tensor:
        """The float32 weight."""
        weight = get_constant(self.module, self.observer_node.args[0])
        assert weight is not None
        return weight.detach()

    @property
    def bias(self) -> torch.Tensor | None:
        """The float32 bias ``[O]``; ``None`` for zeros."""
        bias = get_constant(self.module, arguments(self.node)["bias"])
        return None if bias is None else bias.detach()

    @property
    def outputs(self) -> int:
        """The number of output channels."""
        if self.is_transposed:
            return int(self.weight.shape[1]) * int(arguments(self.node)["groups"])
        return int(self.weight.shape[0])

    def set_weight(self, weight: torch.Tensor, observer: torch.nn.Module) -> None:
        """Gives the layer a weight as a constant of its own, and that an observer of its own."""
        constant = insert_constant(self.module, self.node, f"{self.node.name}_weight", weight)
        name = f"{constant.target}_observer"
        self.module.add_submodule(name, observer)
        with self.module.graph.inserting_before(self.node):
            observed = self.module.graph.call_module(name, (constant,))
        self.node.update_arg(1, observed)

    def set_bias(self, bias: torch.Tensor) -> None:
        """Gives the layer the bias ``[O]`` as a constant of its own."""
        node = insert_constant(self.module, self.node, f"{self.node.name}_bias", bias.float())
        self.node.args = (*self.node.args[:2], node, *self.node.args[3:])

    def quantized_weight(self) -> torch.Tensor:
        """The weight as the quantized graph will have it, float32.

        The observer must have seen it.
        """
        return fake_quantize(self.observer, self.weight)

    def apply(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """The layer on other operands."""
        operands = {"input": x, "weight": weight, "bias": bias}
        result: torch.Tensor = self.node.target(**{**arguments(self.node), **operands})  # type: ignore[operator]
        return result


def weighted_layers(prepared: fx.GraphModule) -> Iterator[WeightedLayer]:
    """The layers of ``prepared`` that will be quantized, in the order in which they run."""
    for node in list(prepared.graph.nodes):
        if not is_call(node, *WEIGHTED) or not isinstance(node.args[0], fx.Node):
            continue
        observer_node = node.args[1]
        if observer_node.op != "call_module" or node.args[0].op != "call_module":
            continue
        bias = arguments(node)["bias"]
        if bias is not None and get_constant(prepared, bias) is None:
            continue
        if get_constant(prepared, observer_node.args[0]) is not None:
            yield WeightedLayer(prepared, node)


def fake_quantize(observer: Any, values: torch.Tensor) -> torch.Tensor:
    """``values`` rounded to the grid of ``observer`` (per tensor or per channel), float32."""
    scale, zero_point = observer.calculate_qparams()
    low, high = observer.quant_min, observer.quant_max
    if observer.qscheme in (torch.per_channel_affine, torch.per_channel_symmetric):
        return torch.fake_quantize_per_channel_affine(
            values, scale.float(), zero_point.int(), observer.ch_axis, low, high
        )
    return torch.fake_quantize_per_tensor_affine(values, float(scale), int(zero_point), low, high)


def mean_by_channel(values: torch.Tensor, axis: int) -> torch.Tensor:
    """The mean of ``values``, two dimensions or more, over all but dimension ``axis``: ``[C]``."""
    axis %= values.dim()
    return values.mean([dim for dim in range(values.dim()) if dim != axis])
