"""Running a converted model's own code on float tensors that stand for quantized ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch._ops import OpOverload, OpOverloadPacket
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from pyquant.errors import CaptureError
from pyquant.torch_ao.operators import OPERATORS
from pyquant.torch_ao.quantized_tensors import Affine, QuantizedTensors
from pyquant.torch_ao.stock_functions import FIXED_QPARAMS, MOVES, SAME_QPARAMS

_Function: TypeAlias = Callable[..., Any]


class QuantizedSemantics(TorchFunctionMode):
    """While it is on, torch's functions do to handles what they do to quantized tensors.

    Args:
        running: The names of the modules that are running, innermost last; for messages.
    """

    def __init__(self, running: Sequence[str] = ()) -> None:
        super().__init__()
        self.tensors = QuantizedTensors()
        self._running = running

    def __torch_function__(
        self,
        func: _Function,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, (OpOverload, OpOverloadPacket)) and _is_quantized(func):
            return self._operator(func)(self.tensors, *args, **kwargs)
        name = _name(func)
        if name in _CONVERSIONS:
            return _CONVERSIONS[name](self, *args, **kwargs)
        affines = [self.tensors.affine(leaf) for leaf in pytree.tree_leaves((args, kwargs))]
        affine = next((found for found in affines if found is not None), None)
        if affine is None:
            return func(*args, **kwargs)
        return self._stock_function(func, name, affine, args, kwargs)

    def _operator(self, func: OpOverload | OpOverloadPacket) -> _Function:
        name = str(func).split(".")[1]
        if name not in OPERATORS:
            raise CaptureError(
                f"{self._where()}the operator torch.ops.quantized.{name} has no counterpart. "
                "Quantize the float model with pyquant.quantize instead"
            )
        return OPERATORS[name]

    def _stock_function(
        self,
        func: _Function,
        name: str,
        affine: Affine,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        base = name if name.startswith("__") else name.rstrip("_")
        in_place = base != name or bool(kwargs.get("inplace"))
        if base != name:
            func = getattr(Tensor if hasattr(Tensor, base) else torch, base)
        if in_place:
            kwargs = {key: value for key, value in kwargs.items() if key != "inplace"}
        values = self.tensors.moved_values if base in MOVES else self.tensors.values
        result = func(*values(args), **values(kwargs))
        if not any(_is_float(leaf) for leaf in pytree.tree_leaves(result)):
            return result
        affine = Affine(*FIXED_QPARAMS.get(base, (affine.scale, affine.zero_point)), affine.dtype)
        if base not in SAME_QPARAMS | MOVES | FIXED_QPARAMS.keys():
            raise CaptureError(
                f"{self._where()}the function '{name}' on a quantized tensor is not known. Put "
                "it behind the DeQuantStub, or quantize the float model with pyquant.quantize"
            )
        handle_of = self.tensors.move if base in MOVES else self.tensors.quantize
        handles = pytree.tree_map(
            lambda leaf: handle_of(leaf, affine) if _is_float(leaf) else leaf, result
        )
        if in_place:
            self.tensors.assign(args[0], handles)
            return args[0]
        return handles

    def _where(self) -> str:
        name = next((name for name in reversed(self._running) if name), "")
        return f"module '{name}': " if name else ""

    # --- Between float and quantized.

    def quantize_per_tensor(
        self, x: Tensor, scale: Any, zero_point: Any, dtype: torch.dtype
    ) -> Tensor:
        """``torch.quantize_per_tensor``."""
        if dtype not in (torch.quint8, torch.qint8):
            raise CaptureError(f"{self._where()}activations of {dtype} are not supported")
        return self.tensors.quantize(x, Affine(float(scale), int(zero_point), dtype))

    def dequantize(self, x: Any) -> Any:
        """``x.dequantize()``: a float tensor of the same numbers, which is no handle."""
        return pytree.tree_map(
            lambda leaf: leaf if self.tensors.affine(leaf) is None else self._float(leaf), x
        )

    def _float(self, handle: Tensor) -> Tensor:
        value: Tensor = self.tensors.value(handle)
        return value.clone()

    def is_quantized(self, x: Tensor) -> bool:
        """``x.is_quantized``."""
        return self.tensors.affine(x) is not None

    def q_scale(self, x: Tensor) -> float:
        """``x.q_scale()``."""
        affine = self.tensors.affine(x)
        return x.q_scale() if affine is None else affine.scale

    def q_zero_point(self, x: Tensor) -> int:
        """``x.q_zero_point()``."""
        affine = self.tensors.affine(x)
        return x.q_zero_point() if affine is None else affine.zero_point


_CONVERSIONS: dict[str, _Function] = {
    "quantize_per_tensor": QuantizedSemantics.quantize_per_tensor,
    "dequantize": QuantizedSemantics.dequantize,
    "is_quantized": QuantizedSemantics.is_quantized,
    "q_scale": QuantizedSemantics.q_scale,
    "q_zero_point": QuantizedSemantics.q_zero_point,
}


def on_float(model: nn.Module) -> nn.Module:
    """A module that takes float tensors through the model's quantized operators, and returns float
    tensors.

    Args:
        model: An unpacked model; its modules get hooks.

    Returns:
        A module with the children, parameters and buffers of ``model`` under the same names. Not a
        ``GraphModule``, whose ``forward`` torch.export does not call.
    """
    forward = model.forward
    running: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: running.append(name))
        module.register_forward_hook(lambda *_: _leave(running))

    @functools.wraps(forward)
    def run(*args: Any) -> Any:
        semantics = QuantizedSemantics(running)
        with semantics:
            result = forward(*args)
        return semantics.tensors.values(result)

    root = nn.Module()
    root._modules, root._parameters, root._buffers = (
        model._modules,
        model._parameters,
        model._buffers,
    )
    root.forward = run
    return root


def _leave(running: list[str]) -> None:
    running.pop()


def _is_quantized(func: OpOverload | OpOverloadPacket) -> bool:
    return str(func).startswith("quantized.")


def _name(func: _Function) -> str:
    name = getattr(func, "__name__", "")
    if name == "__get__":  # a property: torch hands out its getter
        return str(getattr(getattr(func, "__self__", None), "__name__", name))
    return str(name)


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
