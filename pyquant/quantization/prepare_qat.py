"""``prepare_qat``: a graph that is trained with quantization in it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx, nn

from pyquant.capture import capture
from pyquant.capture.export import allow_mode_switch, is_captured
from pyquant.capture.node import WEIGHTED, arguments, get_constant, is_call
from pyquant.capture.quiet import quiet
from pyquant.errors import CaptureError, QuantizationError
from pyquant.quantization.config import QatConfig
from pyquant.quantization.dropout import insert_dropouts, remove_dropouts
from pyquant.quantization.end_training import become
from pyquant.quantization.fold_batch_norm import FOLDED_KEY, FoldedBatchNorm, fold_batch_norm
from pyquant.quantization.normalized_layer import NormalizedLayer, TrainedBatchNorm
from pyquant.quantization.prepare import check_parameters

_aten = torch.ops.aten
_STATISTICS = ("running_mean", "running_var", "weight", "bias")


def prepare_qat(
    model: nn.Module,
    example_inputs: tuple[Any, ...] | list[Any] | torch.Tensor,
    config: QatConfig | None = None,
) -> fx.GraphModule:
    """Makes a graph of a float model that is trained with its quantization in it.

    It is trained like the model: any loss, any optimizer, ``torch.compile``,
    ``DistributedDataParallel``. ``train()`` and ``eval()`` mean what they mean for the model:
    dropouts and batch norms obey them; ranges move in train mode only. Parameters and statistics
    have the names that they have in the model, and what is shared stays shared; the model itself is
    not changed. In eval mode the graph computes what ``convert`` makes of it, up to rounding to
    int8.

    Batch norms are folded into weights by their running statistics before the weights are rounded,
    while activations are normalised by each batch (:mod:`pyquant.quantization.normalized_layer`).
    Those that are in eval mode, in a model that is not, stay frozen.

    Args:
        model: A float32 ``nn.Module``, best trained already. What only happens in train mode,
            besides dropouts and batch norms, is lost: the graph is captured in eval mode.
        example_inputs: The positional inputs, or one tensor; e.g. float32 ``[1, 3, 224, 224]``.
        config: How to quantize; the default ``QatConfig`` if ``None``.

    Returns:
        A graph module, in train mode.

    Raises:
        CaptureError: The model is no float module or cannot be exported.
        QuantizationError: It holds NaN or infinity, parameters other than float32 or outside of CPU
            memory, or nothing that can be quantized; or ``config`` is no ``QatConfig``.
    """
    config = config or QatConfig()
    if not isinstance(config, QatConfig):
        raise QuantizationError(f"prepare_qat takes a QatConfig, got {type(config).__name__}")
    if is_captured(model):
        raise CaptureError("the model is captured already, which loses what training needs")
    own = copy.deepcopy(model)
    module = capture(own, example_inputs, keep_dropout=True)
    check_parameters(module)
    _train_constants(module)
    fold_batch_norm(module, for_training=True)
    dropouts = remove_dropouts(module)
    originals = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    from pyquant.quantization import pt2e
    from pyquant.quantization.quantizer import PyquantQuantizer

    with quiet(streams=True):
        prepared: fx.GraphModule = pt2e.prepare_pt2e(module, PyquantQuantizer(config))
    allow_mode_switch(prepared)
    insert_dropouts(prepared, dropouts)
    _insert_batch_norms(prepared, own, originals)
    _start(prepared)
    return prepared


def _train_constants(module: fx.GraphModule) -> None:
    """Weights and biases that capture has computed from parameters are parameters now."""
    for node in module.graph.nodes:
        if is_call(node, *WEIGHTED):
            for name in ("weight", "bias"):
                constant = get_constant(module, arguments(node)[name])
                if isinstance(constant, nn.Parameter) and "." not in str(
                    arguments(node)[name].target
                ):
                    constant.requires_grad_(True)


def _insert_batch_norms(
    prepared: fx.GraphModule, model: nn.Module, originals: dict[str, torch.Tensor]
) -> None:
    """Puts modules in the place of layers with folded batch norms, and of other batch norms."""

    def original(node: fx.Node, name: str | None) -> fx.Node | None:
        if name is None:
            return None
        _register(prepared, name, originals[name])
        with prepared.graph.inserting_before(node):
            return prepared.graph.get_attr(name)

    def statistics(node: fx.Node, names: dict[str, Any]) -> list[fx.Node | None]:
        path = names["running_mean"].rpartition(".")[0]
        batches = f"{path}.num_batches_tracked".removeprefix(".")
        operands = [original(node, names[name]) for name in _STATISTICS]
        return [*operands, original(node, batches if batches in originals else None)]

    for node in list(prepared.graph.nodes):
        folded = node.meta.get(FOLDED_KEY)
        if is_call(node, *WEIGHTED) and isinstance(folded, FoldedBatchNorm):
            source, weight, bias, *settings = node.args
            fake_quantize = None
            if weight.op == "call_module":
                fake_quantize = prepared.get_submodule(str(weight.target))
            layer = NormalizedLayer(
                node.target,
                tuple(settings),
                fake_quantize,
                *_settings(model, folded.norm),
            )
            name = _name(prepared, node)
            prepared.add_submodule(name, layer)
            operands = [original(node, folded.weight), original(node, folded.bias)]
            become(node, name, source, *operands, *statistics(node, folded.norm))
            _erase(prepared, weight, bias)
        elif is_call(node, _aten.batch_norm.default) and not arguments(node)["training"]:
            values = {
                name: str(value.target) if isinstance(value, fx.Node) else value
                for name, value in arguments(node).items()
            }
            name = _name(prepared, node)
            prepared.add_submodule(name, TrainedBatchNorm(*_settings(model, values)))
            become(node, name, node.args[0], *statistics(node, values))
    prepared.graph.eliminate_dead_code()
    prepared.recompile()


def _settings(model: nn.Module, norm: dict[str, Any]) -> tuple[float, float | None, bool]:
    """``eps``, momentum and whether it is frozen."""
    path = norm["running_mean"].rpartition(".")[0]
    module = model.get_submodule(path)
    if not isinstance(module, nn.modules.batchnorm._BatchNorm):  # constants, not statistics
        return norm["eps"], 0.0, True
    return norm["eps"], module.momentum, model.training and not module.training


def _name(prepared: fx.GraphModule, node: fx.Node) -> str:
    return f"{node.name}_batch_norm"


def _register(prepared: fx.GraphModule, name: str, value: torch.Tensor) -> None:
    """Puts a parameter or buffer where it was in the model."""
    *path, last = name.split(".")
    module: nn.Module = prepared
    for part in path:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = getattr(module, part)
    if isinstance(value, nn.Parameter):
        module.register_parameter(last, value)
    else:
        module.register_buffer(last, value)


def _erase(prepared: fx.GraphModule, *nodes: Any) -> None:
    """Removes nodes that nothing reads any more, and the modules and constants behind them."""
    for node in nodes:
        if not isinstance(node, fx.Node) or node.users:
            continue
        sources = node.all_input_nodes
        prepared.graph.erase_node(node)
        if not any(other.target == node.target for other in prepared.graph.nodes):
            delattr(prepared, str(node.target))
        _erase(prepared, *sources)


def _start(prepared: fx.GraphModule) -> None:
    """Sizes what depends on weights, so that an optimizer sees all parameters."""
    from pyquant.quantization.fake_quantize import FakeQuantize, WeightFakeQuantize

    prepared.train()
    with torch.no_grad():
        for node in prepared.graph.find_nodes(op="call_module"):
            module: Any = prepared.get_submodule(str(node.target))
            source = node.all_input_nodes[0]
            if isinstance(module, FakeQuantize):
                module.label = source.name
            if isinstance(module, WeightFakeQuantize):
                module(get_constant(prepared, source))
            if isinstance(module, NormalizedLayer) and module.weight_fake_quantize is not None:
                weight, bias, *norm = (get_constant(prepared, arg) for arg in node.args[1:7])
                assert weight is not None
                fake_quantize: Any = module.weight_fake_quantize
                fake_quantize.label = f"{node.name}.weight"
                fake_quantize(module.folded(weight, bias, *norm)[0])
