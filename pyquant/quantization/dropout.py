"""Dropouts step aside while a graph is prepared, and come back as modules.

A dropout changes nothing in inference. So nothing is quantized on its account, and it stands behind
the fake quantizer of what it reads: ranges are those without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx, nn
from torch._ops import OpOverload

from pyquant.capture.node import arguments, is_call, replace

_aten = torch.ops.aten
_MODULES: dict[OpOverload, type[nn.Module]] = {
    _aten.dropout.default: nn.Dropout,
    _aten.feature_dropout.default: nn.Dropout2d,
    _aten.alpha_dropout.default: nn.AlphaDropout,
    _aten.feature_alpha_dropout.default: nn.FeatureAlphaDropout,
}
#: What an elementwise dropout may be moved behind.
_RESHAPES = (
    _aten.flatten.using_ints,
    _aten.reshape.default,
    _aten.squeeze.dim,
    _aten.squeeze.dims,
    _aten.unsqueeze.default,
)


@dataclass(frozen=True)
class Dropout:
    """A dropout that was in the graph.

    Attributes:
        name: Its node's.
        module: What takes its place.
        readers: Who read it: the node, and which of its inputs that was.
    """

    name: str
    module: nn.Module
    readers: tuple[tuple[fx.Node, int], ...]


def remove_dropouts(module: fx.GraphModule) -> list[Dropout]:
    """Takes all dropouts in eval mode out of the graph, in place; the last one first."""
    removed = []
    for node in reversed(list(module.graph.nodes)):
        if not is_call(node, *_MODULES) or arguments(node)["train"]:
            continue
        kind = _MODULES[node.target]
        readers = tuple(_readers(node, behind_reshapes=kind is nn.Dropout))
        removed.append(Dropout(node.name, kind(arguments(node)["p"]), readers))
        replace(node, node.args[0])
    module.recompile()
    return removed


def insert_dropouts(module: fx.GraphModule, dropouts: list[Dropout]) -> None:
    """Puts them back into the graph, which may have got observers since, in place."""
    for dropout in reversed(dropouts):
        name = f"{dropout.name}_module"
        module.add_submodule(name, dropout.module)
        calls: dict[fx.Node, fx.Node] = {}
        for reader, index in dropout.readers:
            source = _inputs(reader)[index]
            if source not in calls:
                with module.graph.inserting_after(source):
                    calls[source] = module.graph.call_module(name, (source,))
            _set_input(reader, index, calls[source])
    module.recompile()


def drop_dropouts(module: fx.GraphModule) -> None:
    """Removes the modules that :func:`insert_dropouts` put in, in place."""
    for node in module.graph.find_nodes(op="call_module"):
        if isinstance(module.get_submodule(str(node.target)), tuple(_MODULES.values())):
            replace(node, node.args[0])


def _readers(node: fx.Node, *, behind_reshapes: bool) -> list[tuple[fx.Node, int]]:
    found = []
    for user in node.users:
        if behind_reshapes and is_call(user, *_RESHAPES):
            found += _readers(user, behind_reshapes=True)
        else:
            found += [(user, i) for i, source in enumerate(_inputs(user)) if source is node]
    return found


def _inputs(node: fx.Node) -> list[fx.Node]:
    """The nodes among the arguments, in order, repeated ones as well."""
    found: list[fx.Node] = []
    fx.map_arg((node.args, node.kwargs), found.append)
    return found


def _set_input(node: fx.Node, index: int, value: fx.Node) -> None:
    position = -1

    def swap(argument: fx.Node) -> fx.Node:
        nonlocal position
        position += 1
        return value if position == index else argument

    node.args = fx.map_arg(node.args, swap)
    node.kwargs = fx.map_arg(node.kwargs, swap)
