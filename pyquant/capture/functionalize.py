"""In-place operators become functional ones; every later reader sees the new value.

Where nothing but the mutated value itself is read afterwards, renaming is enough, and the graph
keeps its form. Where a view of the same storage is read later (``y[:, 0] = 0``), torch's own
functionalization rewrites the program.
"""

from __future__ import annotations

import torch
from torch import fx
from torch._ops import OpOverload
from torch.export import ExportedProgram

from pyquant.capture.node import arguments, is_call, value_of

_aten = torch.ops.aten

#: In eval mode these return their input itself, which their schemas do not say.
_SILENT_ALIASES: tuple[OpOverload, ...] = (
    _aten.dropout.default,
    _aten.alpha_dropout.default,
    _aten.feature_dropout.default,
    _aten.feature_alpha_dropout.default,
)


def functionalize(program: ExportedProgram) -> fx.GraphModule:
    """The program as a graph module without in-place operators on activations.

    Mutations of buffers (state that the model keeps from call to call) stay.

    Args:
        program: An exported program of a model in eval mode.

    Returns:
        A graph module with flat ATen calls; the parameters are those of the program.
    """
    module = program.module()
    assert isinstance(module, fx.GraphModule)
    if rename_mutations(module):
        return module
    _drop_silent_aliases(program)
    module = program.run_decompositions({}).module()
    assert isinstance(module, fx.GraphModule)
    return module


def rename_mutations(module: fx.GraphModule) -> bool:
    """Makes in-place calls functional where renaming is enough.

    Args:
        module: A graph of ATen calls; changed in place.

    Returns:
        True if no unsafe in-place call is left; else False, and the graph may be half rewritten.
    """
    nodes = list(module.graph.nodes)
    position = {node: index for index, node in enumerate(nodes)}
    storage: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        storage[node] = _aliased_root(node, storage)
    for node in nodes:
        if not _is_in_place(node):
            continue
        mutated = node.args[0]
        assert isinstance(mutated, fx.Node)
        root = storage[mutated]
        if root.op == "get_attr":
            continue
        others = [n for n in nodes if storage[n] is root and n not in (mutated, node)]
        after = position[node]
        if any(
            position[user] > after and user.op != "call_module"
            for other in others
            if position[other] < after
            for user in other.users
        ):
            return False
        functional = _functional_overload(node)
        if functional is None:
            return False
        node.target = functional
        for user in [user for user in mutated.users if position[user] > after]:
            user.replace_input_with(mutated, node)
        for other in [*others, node]:
            if position[other] >= after:
                storage[other] = node
    return True


def _drop_silent_aliases(program: ExportedProgram) -> None:
    """Takes eval-mode dropouts out of the program's way: torch would treat them as copies."""
    for node in program.graph.nodes:
        if is_call(node, *_SILENT_ALIASES) and arguments(node)["train"] is False:
            for user in list(node.users):
                if user.op != "output":  # outputs are known by name in the signature
                    user.replace_input_with(node, node.args[0])
    program.graph_module.recompile()


def _aliased_root(node: fx.Node, storage: dict[fx.Node, fx.Node]) -> fx.Node:
    """The node that made the storage which ``node``'s value may live in."""
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return storage[node.all_input_nodes[0]] if _is_getitem(node) else node
    schema = node.target._schema
    if is_call(node, *_SILENT_ALIASES) or any(r.alias_info is not None for r in schema.returns):
        source = node.args[0] if node.args else None
        if isinstance(source, fx.Node):
            return storage[source]
    return node


def _is_getitem(node: fx.Node) -> bool:
    return node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem"


def _is_in_place(node: fx.Node) -> bool:
    """Whether ``node`` writes into its first argument."""
    if node.op != "call_function" or not isinstance(node.target, OpOverload):
        return False
    first = node.target._schema.arguments[:1]
    return bool(first) and first[0].alias_info is not None and first[0].alias_info.is_write


def _functional_overload(node: fx.Node) -> OpOverload | None:
    """The functional twin of an in-place call, if it yields the same dtype and shape."""
    assert isinstance(node.target, OpOverload)
    name = node.target._schema.name.split("::")[1]
    packet = getattr(_aten, name.removesuffix("_"), None)
    overload = getattr(packet, node.target._overloadname, None)
    if not name.endswith("_") or not isinstance(overload, OpOverload):
        return None
    mutated = value_of(node.args[0])
    operands = [value_of(value) for value in arguments(node).values() if isinstance(value, fx.Node)]
    if mutated is None or any(o is None or o.dtype != mutated.dtype for o in operands):
        return None
    return overload
