"""What one run of float code shows: which inputs it writes to, and how much it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_aten = torch.ops.aten


class MacCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the multiply-adds of what runs inside of the block: convolutions, products of
    matrices, attention and recurrent layers. Dynamo may compile inside of it.

    Attributes:
        macs: The count.
        int8_macs: How many of them are those of dynamic layers.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = self.int8_macs = 0

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Dynamo asks, and would else run everything without compiling it."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs and counts one operator."""
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if not any(isinstance(value, FakeTensor) for value in pytree.tree_leaves(output)):
            macs = _macs(func, args, kwargs, output)
            self.macs += macs
            self.int8_macs += macs * (func.namespace == "pyquant")  # all that have a formula
        return output


class _WriteFinder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Finds out whether an operator writes into one of some tensors, or into a view of one."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.written = False
        self._storages = {tensor.untyped_storage()._cdata for tensor in tensors}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs one operator, and looks at the arguments that its schema says it changes."""
        kwargs = kwargs or {}
        for argument, value in zip(func._schema.arguments, args, strict=False):
            self._look(argument, value)
        for argument in func._schema.arguments:
            if argument.name in kwargs:
                self._look(argument, kwargs[argument.name])
        return func(*args, **kwargs)

    def _look(self, argument: Any, value: Any) -> None:
        if argument.alias_info is not None and argument.alias_info.is_write:
            self.written |= any(
                tensor.untyped_storage()._cdata in self._storages
                for tensor in pytree.tree_leaves(value)
                if isinstance(tensor, torch.Tensor)
            )


def run_and_watch(
    function: Callable[..., Any], args: Sequence[Any]
) -> tuple[Any, bool, MacCounter]:
    """Runs ``function(*args)`` once.

    Returns:
        Its outputs, whether it wrote into one of the tensors among ``args``, and what counted its
        multiply-adds.
    """
    tensors = [value for value in args if isinstance(value, torch.Tensor)]
    with _WriteFinder(tensors) as finder, MacCounter() as counter:
        outputs = function(*args)
    return outputs, finder.written, counter


def _macs(func: Any, args: Any, kwargs: Any, output: Any) -> int:
    if func is _aten.mkldnn_rnn_layer.default:
        # One direction of one layer: weights [gates * hidden, inputs] and [gates * hidden, hidden]
        # for each step of each sequence.
        return int(args[0].shape[0] * args[0].shape[1] * (args[1].numel() + args[2].numel()))
    formula = flop_registry.get(getattr(func, "_overloadpacket", None))
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=output)) // 2
