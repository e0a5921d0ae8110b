"""``keep_float`` for one subgraph: its names are those of the whole model."""

from __future__ import annotations

import dataclasses

from torch import fx

from pyquant.capture.node import WEIGHTED, is_call
from pyquant.errors import QuantizationError
from pyquant.quantization import QuantizationConfig


def fitting_config(config: QuantizationConfig, graph: fx.Graph) -> QuantizationConfig | None:
    """The config without the names in ``keep_float`` that the graph does not hold.

    Args:
        config: Of the whole model.
        graph: A captured subgraph, batch norms folded.

    Returns:
        ``None`` if all layers with weights are to stay float.
    """
    from pyquant.quantization.named_layers import find_layers, select_layers  # imports torchao

    layers = find_layers(graph)
    kept: set[fx.Node] = set()
    names: list[str] = []
    for pattern in config.keep_float:
        try:
            found = select_layers(layers, [pattern])
        except QuantizationError:  # it is in another subgraph
            continue
        names.append(pattern)
        kept.update(node for layer in found for node in layer.nodes)
    if all(node in kept for node in graph.nodes if is_call(node, *WEIGHTED)):
        return None
    return dataclasses.replace(config, keep_float=tuple(names))
