"""Runs a graph node by node, so that its values can be looked at, and exchanged, on the way."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree


class GraphRunner:
    """A graph of calls, whatever it computes; values live only as long as they are needed.

    Args:
        module: A functional graph: no call changes a value in place.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self.nodes: list[fx.Node] = list(module.graph.nodes)
        self._dead_after: list[list[fx.Node]] = [[] for _ in self.nodes]
        last_use = {node: index for index, node in enumerate(self.nodes)}
        for index, node in enumerate(self.nodes):
            last_use.update(dict.fromkeys(node.all_input_nodes, index))
        for node, index in last_use.items():
            self._dead_after[index].append(node)

    def start(self, inputs: Sequence[Tensor]) -> dict[fx.Node, Any]:
        """The values of the placeholders."""
        placeholders = [node for node in self.nodes if node.op == "placeholder"]
        return dict(zip(placeholders, inputs, strict=True))

    def run(
        self,
        values: dict[fx.Node, Any],
        first: int = 0,
        skip: Collection[fx.Node] = (),
    ) -> Iterator[int]:
        """Runs the nodes from ``first`` on, and yields each one's index once its value is there.

        Args:
            values: What the nodes read; each value is added, and removed after its last use.
            first: Index of the node to begin with.
            skip: Nodes that are not run, as their value, or that of who reads it, is there.
        """
        for index in range(first, len(self.nodes)):
            node = self.nodes[index]
            if node.op == "placeholder" or node in skip:
                continue
            with torch.no_grad():
                values[node] = self._compute(node, values)
            yield index
            if node.op != "output":
                for dead in self._dead_after[index]:
                    values.pop(dead, None)

    def finish(
        self,
        values: dict[fx.Node, Any],
        first: int = 0,
        skip: Collection[fx.Node] = (),
    ) -> list[Tensor]:
        """Runs the nodes from ``first`` on, and returns the graph's output tensors."""
        for _ in self.run(values, first, skip):
            pass
        return pytree.tree_leaves(values[self.nodes[-1]])

    def _compute(self, node: fx.Node, values: dict[fx.Node, Any]) -> Any:
        args = fx.map_arg(node.args, values.__getitem__)
        kwargs = fx.map_arg(node.kwargs, values.__getitem__)
        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(self.module)
        if node.op == "output":
            return args[0]
        if node.op == "call_module":
            return self.module.get_submodule(str(node.target))(*args, **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)
