"""One call that replaces a model's layers by int8 ones, and a report of what it did."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import nn

from pyquant.dynamic.attention import DynamicMultiheadAttention
from pyquant.dynamic.conv import DynamicConv1d, DynamicConv2d
from pyquant.dynamic.embedding import DynamicEmbedding, DynamicEmbeddingBag
from pyquant.dynamic.linear import DynamicLinear
from pyquant.dynamic.packing import DynamicModule
from pyquant.dynamic.recurrent import (
    DynamicGRU,
    DynamicGRUCell,
    DynamicLSTM,
    DynamicLSTMCell,
    DynamicRNN,
    DynamicRNNCell,
)
from pyquant.errors import PyquantError, QuantizationError, UnsupportedError
from pyquant.module_names import did_you_mean, enclosing_module

#: What stands for what.
DYNAMIC_MODULES: dict[type[nn.Module], type[DynamicModule]] = {
    module.float_type: module
    for module in (
        DynamicLinear,
        DynamicLSTM,
        DynamicGRU,
        DynamicRNN,
        DynamicLSTMCell,
        DynamicGRUCell,
        DynamicRNNCell,
        DynamicConv1d,
        DynamicConv2d,
        DynamicEmbedding,
        DynamicEmbeddingBag,
        DynamicMultiheadAttention,
    )
}


def _keep_off_encoder_layer(layer: Any) -> None:
    # One fused float kernel reads the weights of attention and linear layers by their names.
    layer.activation_relu_or_gelu = 0


def _keep_off_encoder(encoder: Any) -> None:
    encoder.use_nested_tensor = False


#: Modules that in inference bypass the modules inside of them, and how to make them not do it.
FAST_PATHS: dict[type[nn.Module], Callable[[Any], None]] = {
    nn.TransformerEncoderLayer: _keep_off_encoder_layer,
    nn.TransformerEncoder: _keep_off_encoder,
}

Model = TypeVar("Model", bound=nn.Module)


def quantize_dynamic(
    model: nn.Module,
    layers: Iterable[type[nn.Module] | str] | None = None,
    *,
    inplace: bool = False,
) -> nn.Module:
    """Replaces layers by ones with int8 weights that quantize their activations as they come.

    For models whose time goes into reading weights: LSTMs, transformers, large linear layers.
    Needs no calibration and no export. Weights are symmetric int8 per output channel; activations
    have all 8 bits, with qparams of their own for every row (token, time step, pixel), so that
    results do not depend on what else is in a batch. The result is for inference: outputs require
    no gradient. Hooks of the layers replaced are not kept.

    Args:
        model: Any module on the CPU; may itself be a layer.
        layers: Types (that type exactly, no subclasses) and names of modules (with all in them), as
            ``{nn.LSTM, "decoder.*"}``; names may hold ``*``, ``?`` and ``[...]``. By default all
            types of ``pyquant.dynamic.DYNAMIC_MODULES``.
        inplace: Change ``model`` instead of a copy. A layer that is itself the model is returned
            anew either way.

    Returns:
        The model with int8 layers; ``pyquant.dynamic.report(model)`` tells which they are.

    Raises:
        UnsupportedError: A type is none of those supported.
        QuantizationError: A name or type matches nothing, or a layer's weights are NaN or infinite.
    """
    chosen = _choose(model, layers)
    model = model if inplace else copy.deepcopy(model)
    made: dict[int, DynamicModule] = {}
    for name in chosen:
        module = model.get_submodule(name)
        if isinstance(module, DynamicModule):
            continue  # shared: replaced under its other name
        if id(module) not in made:
            made[id(module)] = _replacement(name, module)
        if not name:
            return made[id(module)]
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, made[id(module)])
    for module in model.modules():
        keep_off = FAST_PATHS.get(type(module))
        if keep_off is not None and any(isinstance(m, DynamicModule) for m in module.modules()):
            keep_off(module)
    return model


def _replacement(name: str, module: nn.Module) -> DynamicModule:
    try:
        replacement = DYNAMIC_MODULES[type(module)].from_float(module)
    except PyquantError as error:
        where = f"{type(module).__name__} '{name}'" if name else type(module).__name__
        raise QuantizationError(f"{where} cannot be quantized: {error}") from error
    return replacement.train(module.training)


def _choose(model: nn.Module, layers: Iterable[type[nn.Module] | str] | None) -> list[str]:
    """Names of the modules to replace; none of them is inside of another."""
    if isinstance(layers, str):
        raise QuantizationError(f"quantize_dynamic takes several names: {{{layers!r}}}")
    modules = dict(model.named_modules(remove_duplicate=False))
    supported = {name for name, module in modules.items() if type(module) in DYNAMIC_MODULES}
    if layers is None:
        selected = supported
        if not selected:
            raise QuantizationError(
                f"the model has no layer that quantize_dynamic supports: {_types()}"
            )
    else:
        wanted = list(layers)
        if not wanted:
            raise QuantizationError("no types and no names of layers are given")
        selected = set()
        for entry in wanted:
            selected |= _matches(entry, modules, supported)
    return [name for name in modules if name in selected and not enclosing_module(name, selected)]


def _matches(entry: Any, modules: dict[str, nn.Module], supported: set[str]) -> set[str]:
    if isinstance(entry, type):
        if entry not in DYNAMIC_MODULES:
            raise UnsupportedError(
                f"quantize_dynamic does not support {entry.__name__}; it supports {_types()}"
            )
        found = {name for name in supported if type(modules[name]) is entry}
        if not found:
            hint = _subclasses(entry, modules)
            raise QuantizationError(f"the model has no {entry.__name__}{hint}")
        return found
    roots = {name for name in modules if name and fnmatchcase(name, entry)}
    if not roots:
        near = did_you_mean(entry, filter(None, modules))
        raise QuantizationError(
            f"no module of the model matches {entry!r}" + (f": {near}" if near else "")
        )
    found = {name for name in supported if name in roots or enclosing_module(name, roots)}
    if not found:
        kinds = ", ".join(sorted({type(modules[name]).__name__ for name in roots}))
        raise UnsupportedError(
            f"{entry!r} is {kinds}, with nothing in it that quantize_dynamic supports: {_types()}"
        )
    return found


def _subclasses(entry: type[nn.Module], modules: dict[str, nn.Module]) -> str:
    """A hint where the type asked for is there as something derived from it."""
    found = sorted({type(m).__name__ for m in modules.values() if isinstance(m, entry)})
    return f"; {', '.join(found)} is derived from it, and may compute otherwise" if found else ""


def _types() -> str:
    return ", ".join(kind.__name__ for kind in DYNAMIC_MODULES)


@dataclass(frozen=True)
class DynamicLayer:
    """One layer of a report.

    Attributes:
        name: Its path in the model; empty for the model itself.
        kind: The name of the float type.
        int8: Whether its weights are int8.
        bytes: Of its parameters and buffers.
        float_bytes: Of the same in float32.
    """

    name: str
    kind: str
    int8: bool
    bytes: int
    float_bytes: int


@dataclass(frozen=True)
class DynamicReport:
    """The layers of a model with weights of their own, in the model's order."""

    layers: tuple[DynamicLayer, ...]

    @property
    def bytes(self) -> int:
        """Of all layers."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def float_bytes(self) -> int:
        """Of all layers in float32."""
        return sum(layer.float_bytes for layer in self.layers)

    def __str__(self) -> str:
        width = max((len(layer.name) for layer in self.layers), default=0)
        rows = [
            f"{layer.name:{width}}  {layer.kind:20} {'int8' if layer.int8 else 'float':5} "
            f"{layer.float_bytes / 1e6:9.3f} MB -> {layer.bytes / 1e6:9.3f} MB"
            for layer in self.layers
        ]
        total = f"{self.float_bytes / 1e6:.3f} MB -> {self.bytes / 1e6:.3f} MB"
        return "\n".join([*rows, f"all layers: {total}"])


def report(model: nn.Module) -> DynamicReport:
    """Which layers of ``model`` have int8 weights, which are still float, and their sizes."""
    layers, inside = [], set[str]()
    for name, module in model.named_modules():
        is_int8 = isinstance(module, DynamicModule)
        if enclosing_module(name, inside) or ("" in inside and name):
            continue
        if is_int8:
            inside.add(name)
        tensors = _tensors(module, recurse=is_int8)
        if not tensors:
            continue
        # Scales are not in the float model.
        names = [key.rpartition(".")[2] for key, _ in tensors]
        sizes = [tensor.numel() for _, tensor in tensors]
        float_bytes = sum(
            4 * size
            for key, size in zip(names, sizes, strict=True)
            if not (is_int8 and key.startswith("scales"))
        )
        kind = module.float_type if isinstance(module, DynamicModule) else type(module)
        total = sum(tensor.numel() * tensor.element_size() for _, tensor in tensors)
        layers.append(DynamicLayer(name, kind.__name__, is_int8, total, float_bytes))
    return DynamicReport(tuple(layers))


def _tensors(module: nn.Module, recurse: bool) -> list[tuple[str, torch.Tensor]]:
    return [*module.named_parameters(recurse=recurse), *module.named_buffers(recurse=recurse)]
