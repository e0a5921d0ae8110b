"""Dynamo's graphs take parameters and buffers as inputs; here they become the graph's own."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

#: In the metadata of a placeholder that stands for a parameter or buffer of a module.
_STATIC = "_dynamo_static_input_type"
#: How dynamo's paths begin: with the local variable that holds the module.
_LOCAL = re.compile(r"^L\['\w+'\]\.?")


@dataclass(frozen=True)
class FrozenGraph:
    """A graph of tensors only, and how its inputs and outputs lie among those of dynamo's graph.

    Attributes:
        module: From some tensors to a tuple of tensors.
        inputs: The positions of its inputs among dynamo's.
        outputs: For each of dynamo's outputs its position among those of ``module``; ``None`` for
            what needs no computing: numbers, and inputs that are handed on.
    """

    module: fx.GraphModule
    inputs: tuple[int, ...]
    outputs: tuple[int | None, ...]


def weight_positions(module: fx.GraphModule) -> tuple[int, ...]:
    """The positions of the placeholders that stand for parameters and buffers of modules."""
    return tuple(
        position
        for position, node in enumerate(module.graph.find_nodes(op="placeholder"))
        if _STATIC in (node.meta.get("tensor_dict") or {})
        or isinstance(node.meta.get("example_value"), torch.nn.Parameter)
    )


def freeze(
    module: fx.GraphModule,
    args: Sequence[Any],
    weights: Sequence[int],
    module_names: Mapping[int, str],
) -> FrozenGraph:
    """A copy of ``module`` with ``args`` at the positions ``weights``, and all that are no
    tensors, built in.

    Args:
        module: A graph that dynamo captured; it is not changed.
        args: Real inputs.
        weights: Positions as from :func:`weight_positions`.
        module_names: Of modules by address; others have the name that dynamo gives them.
    """
    names = module.meta.get("dynamo_flat_name_to_original_fqn", {})
    graph = fx.Graph()
    root: dict[str, Any] = {}
    copied: dict[fx.Node, Any] = {}
    inputs: list[int] = []
    placeholders = module.graph.find_nodes(op="placeholder")
    for position, (node, value) in enumerate(zip(placeholders, args, strict=True)):
        if not isinstance(value, torch.Tensor):
            copied[node] = value
        elif position in weights:
            name = str(names.get(node.target, node.target))
            name = name if name not in root and _is_path(name) else node.name
            root[name] = value
            copied[node] = graph.get_attr(name)
        else:
            inputs.append(position)
            copied[node] = graph.placeholder(node.name)
    outputs: dict[fx.Node, int] = {}
    layout: list[int | None] = []
    for node in module.graph.nodes:
        if node.op == "placeholder":
            continue
        if node.op == "output":
            for value in node.args[0]:
                computed = isinstance(value, fx.Node) and value.op != "placeholder"
                is_tensor = computed and isinstance(value.meta.get("example_value"), torch.Tensor)
                layout.append(outputs.setdefault(value, len(outputs)) if is_tensor else None)
            continue
        if node.op in ("get_attr", "call_module"):
            root[str(node.target)] = operator.attrgetter(str(node.target))(module)
        copied[node] = graph.node_copy(node, copied.__getitem__)
        if "nn_module_stack" in node.meta:
            stack = node.meta["nn_module_stack"]
            copied[node].meta["nn_module_stack"] = {
                key: (_module_name(str(key), path, module_names), kind)
                for key, (path, kind) in stack.items()
            }
    graph.output(tuple(copied[node] for node in outputs))
    return FrozenGraph(fx.GraphModule(root, graph), tuple(inputs), tuple(layout))


def _is_path(name: str) -> bool:
    return all(part.isidentifier() or part.isdecimal() for part in name.split("."))


def _module_name(key: str, path: str, names: Mapping[int, str]) -> str:
    """Dynamo's keys are addresses, with a number behind if a module runs several times."""
    address = key.partition("@")[0]
    if address.isdecimal() and int(address) in names:
        return names[int(address)]
    return _LOCAL.sub("", path)
