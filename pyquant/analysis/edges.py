"""Which layers take which layers' outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import fx

from pyquant.quantization.named_layers import Layer


def layer_inputs(layers: Sequence[Layer]) -> Mapping[str, tuple[str, ...]]:
    """By name, the layers whose outputs each layer reads; views and the like are looked through."""
    producer = {layer.last: layer.name for layer in layers}
    # By node: the layers that its value comes from.
    known: dict[fx.Node, tuple[str, ...]] = {}
    for node in layers[0].last.graph.nodes if layers else ():
        sources = [
            (producer[source],) if source in producer else known[source]
            for source in node.all_input_nodes
        ]
        known[node] = tuple(dict.fromkeys(name for names in sources for name in names))
    return {
        layer.name: tuple(
            dict.fromkeys(
                name for node in layer.nodes for name in known[node] if name != layer.name
            )
        )
        for layer in layers
    }
