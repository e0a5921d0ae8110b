"""Calls of modules with any arguments, as calls with tensors only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from pyquant.errors import InvalidInputError


@dataclass(frozen=True)
class ModuleCall:
    """All of a call but its tensors.

    Attributes:
        spec: The nesting of positional and keyword arguments.
        constants: What is no tensor, by its position among the leaves.
    """

    spec: pytree.TreeSpec
    constants: tuple[tuple[int, Any], ...]

    @staticmethod
    def of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[ModuleCall, tuple[Tensor, ...]]:
        """The call and its tensors, in order."""
        leaves, spec = pytree.tree_flatten((args, kwargs))
        constants = tuple((i, v) for i, v in enumerate(leaves) if not isinstance(v, Tensor))
        tensors = tuple(leaf for leaf in leaves if isinstance(leaf, Tensor))
        return ModuleCall(spec, constants), tensors

    @property
    def is_positional(self) -> bool:
        """Whether the arguments are tensors by position, and nothing else."""
        count = self.spec.num_leaves
        plain = pytree.tree_structure(((0,) * count, {}))
        return not self.constants and bool(self.spec == plain)

    def arguments(self, tensors: tuple[Tensor, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments again."""
        leaves: list[Any] = list(tensors)
        for index, value in self.constants:
            leaves.insert(index, value)
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return args, kwargs

    def __str__(self) -> str:
        args, kwargs = pytree.tree_unflatten(self._texts(), self.spec)
        texts = [str(value) for value in args]
        return f"({', '.join([*texts, *(f'{key}={value}' for key, value in kwargs.items())])})"

    def _texts(self) -> list[Any]:
        constants = dict(self.constants)
        return [repr(constants.get(i, "tensor")) for i in range(self.spec.num_leaves)]


class FlatModule(nn.Module):
    """``module``, called with the tensors of a call only.

    Args:
        module: Any module.
        call: How it is called.
    """

    def __init__(self, module: nn.Module, call: ModuleCall) -> None:
        super().__init__()
        self.module = module
        self.call = call

    def forward(self, *tensors: Tensor) -> Any:
        """The module's outputs."""
        args, kwargs = self.call.arguments(tensors)
        return self.module(*args, **kwargs)


class UnflatModule(nn.Module):
    """The reverse: a module that takes tensors only, called as the original was.

    Args:
        module: Made of a :class:`FlatModule`.
        call: How it is called.
    """

    def __init__(self, module: nn.Module, call: ModuleCall) -> None:
        super().__init__()
        self.module = module
        self.call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The module's outputs.

        Raises:
            InvalidInputError: The call differs in more than its tensors.
        """
        call, tensors = ModuleCall.of(args, kwargs)
        if call != self.call:
            raise InvalidInputError(
                f"called with {call}, but calibrated with {self.call}: only tensors may change"
            )
        return self.module(*tensors)
