"""What the passes ask of graph nodes: arguments by name, shapes, and insertion of calls."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

#: Operators with a weight and a bias, as their second and third arguments.
WEIGHTED: tuple[OpOverload, ...] = (
    torch.ops.aten.conv2d.default,
    torch.ops.aten.conv_transpose2d.input,
    torch.ops.aten.linear.default,
)


def is_call(node: object, *targets: OpOverload) -> bool:
    """Whether ``node`` is a graph node that calls one of ``targets``."""
    return isinstance(node, fx.Node) and node.op == "call_function" and node.target in targets


def arguments(node: fx.Node) -> dict[str, Any]:
    """The arguments of a call to an ATen operator by name, defaults filled in.

    Args:
        node: A ``call_function`` node whose target is an ``OpOverload``.

    Returns:
        A new dict in the order of the operator's schema.
    """
    assert isinstance(node.target, OpOverload)
    values: dict[str, Any] = {}
    for index, argument in enumerate(node.target._schema.arguments):
        if argument.name in node.kwargs:
            values[argument.name] = node.kwargs[argument.name]
        elif index < len(node.args):
            values[argument.name] = node.args[index]
        else:
            values[argument.name] = argument.default_value
    return values


def value_of(node: object) -> torch.Tensor | None:
    """The example (fake) tensor that ``node`` yields, or ``None`` if it yields no single tensor."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return value if isinstance(value, torch.Tensor) else None


def shape_of(node: object) -> tuple[int, ...] | None:
    """The example shape of ``node``; ``None`` if unknown or symbolic."""
    value = value_of(node)
    if value is None or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(value.shape)


def is_float(node: object) -> bool:
    """Whether ``node`` yields a float32 tensor."""
    value = value_of(node)
    return value is not None and value.dtype is torch.float32


def get_constant(module: fx.GraphModule, node: object) -> torch.Tensor | None:
    """The parameter, buffer or constant that a ``get_attr`` node stands for, else ``None``."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value: Any = module
    for name in str(node.target).split("."):
        value = getattr(value, name, None)
    return value if isinstance(value, torch.Tensor) else None


def insert_constant(
    module: fx.GraphModule, before: fx.Node, name: str, value: torch.Tensor
) -> fx.Node:
    """Registers ``value`` as a parameter of ``module`` and inserts a node that reads it.

    Args:
        module: The graph's owner.
        before: The node that needs the value.
        name: Wished name; dots become underscores and a number is appended if it is taken.
        value: The constant, of any shape.

    Returns:
        The new ``get_attr`` node, with its example value.
    """
    name = base = name.replace(".", "_")
    count = 0
    while hasattr(module, name):
        count += 1
        name = f"{base}_{count}"
    module.register_parameter(name, torch.nn.Parameter(value.detach().clone(), requires_grad=False))
    with module.graph.inserting_before(before):
        node = module.graph.get_attr(name)
    example = value_of(before)
    mode = getattr(example, "fake_mode", None)
    parameter = getattr(module, name)
    node.meta["val"] = (
        parameter if mode is None else mode.from_tensor(parameter, static_shapes=True)
    )
    return node


def insert_call(
    before: fx.Node,
    target: OpOverload,
    args: tuple[Any, ...],
    origin: fx.Node,
    kwargs: dict[str, Any] | None = None,
) -> fx.Node:
    """Inserts ``target(*args, **kwargs)``, with the origin's metadata and its own example value.

    Args:
        before: Where to insert.
        target: The ATen operator.
        args: Its arguments; nodes stand for their values.
        origin: The node that the new one stands in for (its stack trace and module are kept).
        kwargs: Its keyword arguments.

    Returns:
        The new node.
    """
    graph = before.graph
    with graph.inserting_before(before):
        node = graph.call_function(target, args, kwargs)
    node.meta = dict(origin.meta)
    refresh(node)
    return node


def refresh(node: fx.Node) -> None:
    """Recomputes the example value of a call after its target or arguments changed."""

    def example(argument: fx.Node) -> Any:
        return argument.meta["val"]

    args = fx.map_arg(node.args, example)
    kwargs = fx.map_arg(node.kwargs, example)
    value = next((v for n in node.all_input_nodes if (v := value_of(n)) is not None), None)
    mode = getattr(value, "fake_mode", None)
    assert callable(node.target)
    with torch.no_grad():
        if mode is None:
            node.meta["val"] = node.target(*args, **kwargs)
        else:
            with mode:
                node.meta["val"] = node.target(*args, **kwargs)


def replace(node: fx.Node, replacement: fx.Node) -> None:
    """Gives the users of ``node`` to ``replacement`` and erases ``node``."""
    node.replace_all_uses_with(replacement)
    node.graph.erase_node(node)
