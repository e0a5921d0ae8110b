"""What a quantized model is measured against: the float graph whose nodes have its names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from pyquant.analysis.graph_runner import GraphRunner
from pyquant.capture.export import is_captured
from pyquant.capture.node import get_constant
from pyquant.capture.quiet import quiet
from pyquant.errors import InvalidInputError
from pyquant.quantization.calibration_data import CalibrationData
from pyquant.quantization.convert import observers
from pyquant.quantization.named_layers import find_layers
from pyquant.quantization.prepare import float_graph

#: Samples that run at once: the values of so many are held in memory.
_CHUNK = 8


class Reference:
    """The float model as a graph.

    Args:
        model: The float ``nn.Module``, the graph that ``prepare`` returned, or the float graph
            that was given to another PT2E quantizer.
        examples: Inputs of the quantized model; only their shapes and dtypes matter.
        names: Of the quantized model's values.

    Raises:
        CaptureError: The model cannot be exported.
        InvalidInputError: It is not the one that was quantized, or takes single numbers.
    """

    def __init__(
        self, model: nn.Module, examples: tuple[Tensor, ...], names: Collection[str]
    ) -> None:
        if any(value.dim() == 0 for value in examples):
            raise InvalidInputError("an input of the model has no batch dimension")
        candidates = [
            (graph, [layer for layer in find_layers(graph.graph) if layer.last.name in names])
            for graph in _candidates(model, examples)
        ]
        self.module, self.layers = max(candidates, key=lambda found: len(found[1]))
        if not self.layers:
            raise InvalidInputError(
                "the quantized model has no layer of the float model: pass the model that was "
                "quantized, or the graph that prepare() or prepare_pt2e() was given"
            )
        self.runner = GraphRunner(self.module)
        self.example_batch = len(examples[0])
        self.takes_any_batch = self._runs(examples)

    @property
    def constant_bytes(self) -> int:
        """The size of the parameters and buffers that the graph reads."""
        constants = {node.target: node for node in self.module.graph.find_nodes(op="get_attr")}
        values = [get_constant(self.module, node) for node in constants.values()]
        return sum(value.nbytes for value in values if value is not None)

    def batches(
        self, data: object, transform: Callable[[Any], Any] | None
    ) -> Iterator[tuple[Tensor, ...]]:
        """The inputs of one run after the other, of any data that ``calibrate`` takes.

        Raises:
            CalibrationError: As ``calibrate`` does.
            InvalidInputError: The model takes a fixed number of samples, and some are left.
        """
        size = _CHUNK if self.takes_any_batch else self.example_batch
        for batch in CalibrationData(data, self.module, transform):
            count = len(batch[0])
            if not self.takes_any_batch and count % size:
                raise InvalidInputError(
                    f"the model takes {size} samples at once; a batch of the data has {count}"
                )
            yield from zip(*(torch.split(value, size) for value in batch), strict=True)

    def _runs(self, examples: tuple[Tensor, ...]) -> bool:
        """Whether the graph runs on one sample more than its examples have."""
        try:
            more = [torch.cat([value, value[:1]]) for value in examples]
            self.runner.finish(self.runner.start(more))
        except Exception:  # whatever an operator bound to a shape raises
            return False
        return True


def _candidates(model: nn.Module, examples: tuple[Tensor, ...]) -> Iterator[fx.GraphModule]:
    """The graphs whose names the quantized model may have."""
    if isinstance(model, fx.GraphModule) and observers(model):
        yield _without_observers(model)
        return
    if isinstance(model, fx.GraphModule) and _is_aten(model) and not is_captured(model):
        yield model
    yield float_graph(model, examples)


def _is_aten(module: fx.GraphModule) -> bool:
    """Whether it is a flat graph as torch.export makes them."""
    calls = [node for node in module.graph.nodes if node.op.startswith("call_")]
    return any(isinstance(node.target, OpOverload) for node in calls)


def _without_observers(prepared: fx.GraphModule) -> fx.GraphModule:
    with quiet():
        module = copy.deepcopy(prepared)
    for node in module.graph.find_nodes(op="call_module"):
        node.replace_all_uses_with(node.all_input_nodes[0])
        module.graph.erase_node(node)
    module.recompile()
    return module
