"""Which tensors of an observed graph must be scaled together, channel by channel.

``relu(s x) = s relu(x)`` for ``s > 0``, pooling is linear, and a sum may be scaled if both terms
are: so a positive factor per channel moves freely from the layers that write such tensors to the
layers that read them. Residual branches and their sums form one group.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import fx

from pyquant.capture.node import arguments, is_call, shape_of
from pyquant.quantization.weighted_layers import WeightedLayer, weighted_layers

_aten = torch.ops.aten
#: Of one tensor, and ``f(s x) = s f(x)`` per channel for ``s > 0``.
_HOMOGENEOUS = (
    _aten.relu.default,
    _aten.leaky_relu.default,
    _aten.max_pool2d.default,
    _aten.avg_pool2d.default,
    _aten.adaptive_avg_pool2d.default,
    _aten.dropout.default,
    _aten.upsample_nearest2d.vec,
    _aten.upsample_nearest2d.default,
    _aten.upsample_bilinear2d.vec,
    _aten.upsample_bilinear2d.default,
)


@dataclass
class ChannelGroup:
    """Tensors with the same channels.

    Attributes:
        writers: The layers whose outputs begin the group.
        readers: The layers that read one of its tensors.
        tensors: Its nodes, in the order in which they run; observers among them.
        clamps: The ``hardtanh`` nodes among them: their bounds do not scale.
    """

    writers: list[WeightedLayer] = field(default_factory=list)
    readers: list[WeightedLayer] = field(default_factory=list)
    tensors: list[fx.Node] = field(default_factory=list)
    clamps: list[fx.Node] = field(default_factory=list)


def channel_groups(prepared: fx.GraphModule) -> list[ChannelGroup]:
    """The groups whose channels can be scaled: only layers write and read them.

    Args:
        prepared: A graph with observers.
    """
    layers = {layer.node: layer for layer in weighted_layers(prepared)}
    parents: dict[fx.Node, fx.Node] = {}
    pinned: set[fx.Node] = set()

    def root(node: fx.Node) -> fx.Node:
        while parents.get(node, node) is not node:
            node = parents[node]
        return node

    for node in prepared.graph.nodes:
        if node in layers:
            if len(_shape(node) or ()) != (2 if layers[node].is_linear else 4):
                pinned.update((node, layers[node].source))  # channels elsewhere
            continue
        joined = _joined(node)
        for source in joined:
            parents[root(source)] = root(node)
        if not joined:
            pinned.update((node, *node.all_input_nodes))
    roots = {root(node) for node in pinned}
    groups: dict[fx.Node, ChannelGroup] = {}
    for node in prepared.graph.nodes:
        if root(node) in roots:
            continue
        group = groups.setdefault(root(node), ChannelGroup())
        group.tensors.append(node)
        if is_call(node, _aten.hardtanh.default):
            group.clamps.append(node)
        if node in layers:
            group.writers.append(layers[node])
    for layer in layers.values():
        if root(layer.source) in groups:
            groups[root(layer.source)].readers.append(layer)
    return [group for group in groups.values() if group.writers and group.readers]


def _joined(node: fx.Node) -> list[fx.Node]:
    """The inputs of ``node`` that have its channels; none if they cannot be scaled with it."""
    source = node.all_input_nodes[0] if node.all_input_nodes else None
    if source is None or source.op == "get_attr":
        return []
    if node.op == "call_module" or is_call(node, *_HOMOGENEOUS):
        return [source]
    if is_call(node, _aten.hardtanh.default):
        low, high = (arguments(node)[name] for name in ("min_val", "max_val"))
        return [source] if low <= 0 <= high else []
    if is_call(node, _aten.pad.default):
        values = arguments(node)
        return [source] if values["mode"] == "constant" and not values["value"] else []
    if is_call(node, _aten.flatten.using_ints):
        shape = _shape(source)
        return [source] if shape is not None and all(size == 1 for size in shape[2:]) else []
    if is_call(node, _aten.add.Tensor):
        terms = [arguments(node)[name] for name in ("self", "other")]
        if all(isinstance(term, fx.Node) for term in terms):
            shapes = [_shape(term) for term in terms]
            if shapes[0] is not None and shapes[0] == shapes[1]:
                return terms
    return []


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    while node.op == "call_module":  # observers pass on what they see
        node = node.all_input_nodes[0]
    return shape_of(node)
