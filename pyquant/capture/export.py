"""``capture``: torch.export and then the normalisation passes."""

from __future__ import annotations

import contextlib
import copy
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn
from torch._ops import OpOverload

from pyquant.capture.canonical_1d import canonicalize_1d
from pyquant.capture.canonical_affine import canonicalize_affine
from pyquant.capture.canonical_channel_shuffle import canonicalize_channel_shuffle
from pyquant.capture.canonical_channels_last import canonicalize_channels_last
from pyquant.capture.canonical_clamp import canonicalize_clamp
from pyquant.capture.canonical_flatten import canonicalize_flatten
from pyquant.capture.canonical_glu import canonicalize_glu
from pyquant.capture.canonical_pooling import canonicalize_pooling
from pyquant.capture.canonical_prelu import canonicalize_prelu
from pyquant.capture.canonical_slice import canonicalize_slice
from pyquant.capture.fold_constants import fold_constants
from pyquant.capture.fold_padding import fold_padding, normalize_convolutions
from pyquant.capture.functionalize import functionalize
from pyquant.capture.quiet import quiet
from pyquant.capture.remove_expand import remove_expand
from pyquant.capture.remove_identity import remove_identity
from pyquant.capture.validate import check_float_model
from pyquant.capture.without_observers import without_observers
from pyquant.errors import CaptureError, PyquantError

_CAPTURED = "pyquant_captured"

#: In order, after ``remove_identity``; each takes a functional graph and changes it in place.
PASSES: tuple[Callable[[fx.GraphModule], None], ...] = (
    remove_expand,
    fold_constants,
    canonicalize_glu,
    canonicalize_prelu,
    canonicalize_1d,
    canonicalize_channels_last,
    canonicalize_affine,
    canonicalize_clamp,
    canonicalize_pooling,
    canonicalize_slice,
    canonicalize_channel_shuffle,
    canonicalize_flatten,
    normalize_convolutions,
    fold_padding,
)


def capture(
    model: nn.Module,
    example_inputs: tuple[Any, ...] | list[Any] | torch.Tensor,
    *,
    keep_dropout: bool = False,
) -> fx.GraphModule:
    """Captures a float model as one flat graph of ATen calls in canonical spelling.

    The model is exported in eval mode (its own training flags are put back) and gives the same
    outputs as a graph, bit for bit up to how torch computes merged paddings. In-place operators
    are functional, identities gone, clamps are ``relu`` or ``hardtanh``, spatial means
    ``adaptive_avg_pool2d`` and maxima ``amax``, ``[N, ...] -> [N, K]`` reshapes ``flatten``, splits
    ``slice``, gated linear units products, channel shuffles ``channel_shuffle``, symmetric zero
    padding part of its convolution, one-dimensional layers two-dimensional ones of height 1, linear
    layers over ``[N, H, W, C]`` 1x1 convolutions, factors and terms per channel batch norms. Batch
    sizes other than the example's work wherever the model itself does not depend on them. The graph
    shares the model's parameters and changes none.

    Args:
        model: A float ``nn.Module``; quant stubs and ``FloatFunctional`` are fine, and so are the
            observers and fake quantization of ``torch.ao.quantization``, which are left out.
        example_inputs: The positional inputs, or one tensor; e.g. float32 ``[1, 3, 224, 224]``.
        keep_dropout: Whether dropouts stay in the graph, as they are in eval mode: for training.

    Returns:
        The graph module. ``train()`` and ``eval()`` may be called and change nothing.

    Raises:
        CaptureError: The model is no float module, does not run on the inputs, or cannot be
            exported; the message names the line of the model's code.
        QuantizationError: A parameter or buffer holds NaN or infinity.
    """
    inputs = as_inputs(example_inputs)
    if is_captured(model):
        assert isinstance(model, fx.GraphModule)
        with quiet():
            return copy.deepcopy(model)
    model = check_float_model(without_observers(model))
    _refuse_quantized_graph(model)
    module = canonical_graph(model, inputs, keep_dropout=keep_dropout)
    module.meta[_CAPTURED] = True
    return module


def canonical_graph(
    model: nn.Module, inputs: tuple[Any, ...], *, keep_dropout: bool = False
) -> fx.GraphModule:
    """The part of :func:`capture` behind its checks: export in eval mode, and all passes.

    Raises:
        CaptureError: The model does not run on the inputs, or cannot be exported.
    """
    printed = io.StringIO()  # a failing export prints its whole graph
    with eval_mode(model):
        try:
            with quiet(), contextlib.redirect_stderr(printed), torch.no_grad():
                program = torch.export.export(model, inputs)
        except PyquantError:
            raise
        except Exception as error:  # torch.export raises nearly anything
            from pyquant.capture.diagnose import explain_failure

            raise explain_failure(model, inputs, error) from error
    sys.stderr.write(printed.getvalue())
    with quiet():
        module = functionalize(program)
        remove_identity(module, keep_dropout=keep_dropout)
        for normalise in PASSES:
            normalise(module)
    module.graph.lint()
    module.recompile()
    allow_mode_switch(module)
    module._forward_pre_hooks.clear()  # they pin the example's shapes
    return module


def is_captured(model: object) -> bool:
    """Whether ``model`` is a graph that :func:`capture` made."""
    return isinstance(model, fx.GraphModule) and bool(model.meta.get(_CAPTURED))


def as_inputs(example_inputs: object) -> tuple[Any, ...]:
    """The example inputs as a tuple of positional arguments.

    Raises:
        CaptureError: They are neither a tensor nor a non-empty tuple or list.
    """
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,)
    if isinstance(example_inputs, (tuple, list)) and example_inputs:
        return tuple(example_inputs)
    raise CaptureError(
        "example_inputs must be a tensor or a non-empty tuple of the model's positional inputs, "
        f"got {type(example_inputs).__name__}"
    )


def allow_mode_switch(module: fx.GraphModule) -> None:
    """Undoes torch.export's ban on ``train()`` and ``eval()``.

    Nothing in a captured graph depends on the mode: dropout is gone, batch norm uses its
    statistics. So the calls are harmless, and training loops and servers make them.
    """
    for name in ("train", "eval"):
        module.__dict__.pop(name, None)


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for the block; every module's own flag afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    for module, _ in flags:
        module.training = False
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


def _refuse_quantized_graph(model: nn.Module) -> None:
    if not isinstance(model, fx.GraphModule):
        return
    for node in model.graph.nodes:
        if isinstance(node.target, OpOverload) and node.target.namespace == "quantized_decomposed":
            raise CaptureError(
                f"the graph is quantized already (node '{node.name}'); pass the float model"
            )
