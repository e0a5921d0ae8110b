"""What the lowering rules read from the arguments of a node."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from pyquant.ir import ops


def argument(node: Node, index: int, name: str, default: Any) -> Any:
    """A positional or keyword argument, or ``default``."""
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def pair(value: Any) -> tuple[int, int]:
    """``(height, width)`` from a number, a list of one or a list of two."""
    values = [value, value] if isinstance(value, int) else list(value)
    values = values * 2 if len(values) == 1 else values
    return int(values[0]), int(values[1])


def pool_window(node: Node) -> ops.Window:
    """The window of a pooling operator, without dilation."""
    kernel = pair(node.args[1])
    stride = pair(argument(node, 2, "stride", None) or kernel)
    padding = pair(argument(node, 3, "padding", 0))
    return ops.Window(*kernel, *stride, *padding, *padding)
