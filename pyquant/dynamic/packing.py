"""int8 weights, what the kernels make of them, and the threads that run them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from pyquant import _C
from pyquant.errors import InvalidInputError

Packed = TypeVar("Packed")
_storage_reference: Any = StorageWeakRef  # untyped in torch


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 values and float32 scales of ``weight [O, ...]``, symmetric, one scale per row.

    Raises:
        InvalidInputError: NaN or infinity, or no weights.
    """
    dense = weight.detach().to("cpu", torch.float32).contiguous()
    values, scales, _ = _C.quantize_weight(dense, torch.zeros(dense.shape[0]), 1.0)
    return values, scales


def dense_float32(x: Tensor, layer: nn.Module) -> Tensor:
    """What the kernels read: other floating types are converted.

    Raises:
        InvalidInputError: ``x`` is no dense floating tensor on the CPU.
    """
    if x.dtype is torch.float32 and x.is_cpu and x.is_contiguous():
        return x
    if not x.is_cpu or x.layout != torch.strided or not x.is_floating_point():
        raise InvalidInputError(
            f"{type(layer).__name__} takes dense floating tensors on the CPU, not {x.dtype} on "
            f"{x.device}; move the model's input with x.cpu().float()"
        )
    return x.detach().to(torch.float32).contiguous()


def calls_operators() -> bool:
    """Whether layers call their operators: a graph is being made, or a mode watches operators, as
    torch's FLOP counter does. Else they call the kernels, with less overhead.
    """
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


_local = threading.local()


def workspace() -> _C.Workspace:
    """The calling thread's own; its threads follow ``torch.get_num_threads()``."""
    threads = torch.get_num_threads()
    cached: tuple[int, _C.Workspace] | None = getattr(_local, "cached", None)
    if cached is None or cached[0] != threads:
        cached = (threads, _C.Workspace(threads))
        _local.cached = cached
    return cached[1]


class PackedCache(Generic[Packed]):
    """What was packed from a tensor, for as long as the tensor's memory lives unchanged.

    Compiled and exported graphs call the operators with plain tensors: this is where these find the
    weights packed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[int, tuple[Any, tuple[Any, ...], Packed]] = {}

    def get(self, weight: Tensor, pack: Callable[[], Packed]) -> Packed:
        """What ``pack`` made for this ``weight``; calls it if there is nothing yet."""
        key = weight.data_ptr()
        version = None if weight.is_inference() else weight._version
        state = (version, tuple(weight.shape), _C.isa())
        with self._lock:
            found = self._entries.get(key)
            if found is not None and not found[0].expired() and found[1] == state:
                return found[2]
        packed = pack()
        with self._lock:
            for stale in [k for k, entry in self._entries.items() if entry[0].expired()]:
                del self._entries[stale]
            reference = _storage_reference(weight.untyped_storage())
            self._entries[key] = (reference, state, packed)
        return packed


class DynamicModule(nn.Module):
    """A layer with int8 weights in buffers, which is what its ``state_dict`` holds.

    Inference only: results never require a gradient. Its kernels pack the weights at the first
    call, and again after the buffers have been loaded, moved or converted.
    """

    #: The float module that it stands for.
    float_type: ClassVar[type[nn.Module]]

    def __init__(self) -> None:
        super().__init__()
        self._packed: Any = None

    @classmethod
    def from_float(cls, module: Any) -> DynamicModule:
        """The same layer with int8 weights."""
        raise NotImplementedError

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        self._packed = None
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._packed = None
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packed": None}
