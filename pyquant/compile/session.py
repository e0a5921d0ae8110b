"""``Session``: the one mechanism under both ways to compile."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any
from weakref import WeakSet, WeakValueDictionary

import torch
from torch import fx, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import _disable_current_modes

from pyquant.capture import capture
from pyquant.capture.node import WEIGHTED, arguments, get_constant, is_call
from pyquant.compile.captured_graph import CapturedGraph, Route
from pyquant.compile.kept import fitting_config
from pyquant.compile.options import CompileOptions
from pyquant.compile.origin import GraphBreak, break_of
from pyquant.compile.structure import structure
from pyquant.compile.subgraph import Subgraph, Variant, as_plain, summary
from pyquant.errors import InvalidInputError, QuantizationError
from pyquant.quantization import QuantizationConfig, prepare
from pyquant.quantization.prepare import float_graph

NOTHING = "it holds no convolution or linear layer"
KEPT = "keep_float names all of its layers"
NOT_CALIBRATED = "no calibration call took this path"

#: All that there are.
SESSIONS: WeakSet[Session] = WeakSet()


class Session:
    """A backend of dynamo's, and all subgraphs that it made. Safe to use from several threads.

    Subgraphs live as long as dynamo keeps the graphs that they belong to.

    Args:
        options: For all subgraphs.
        names: Of the model's modules, by address.

    Attributes:
        graphs: What dynamo captured that holds weights, as it came.
        graph_breaks: What ended graphs, as it came.
        macs: Multiply-adds of all calibration calls, also outside of subgraphs, if the caller
            counts them.
        int8_macs: How many of them are those of dynamic layers.
        kept: The names in ``keep_float`` that were found.
        converted: Calibration has ended: what is new from now on stays float.
    """

    def __init__(self, options: CompileOptions, names: Mapping[int, str] | None = None) -> None:
        self.options = options
        self.names = names or {}
        self.kept: set[str] = set()
        self.graphs: WeakSet[CapturedGraph] = WeakSet()
        self.graph_breaks: dict[GraphBreak, None] = {}
        self.macs = self.int8_macs = 0
        self.converted = False
        self._variants: WeakValueDictionary[Hashable, Variant] = WeakValueDictionary()
        self._subgraphs: WeakValueDictionary[Hashable, Subgraph] = WeakValueDictionary()
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        SESSIONS.add(self)

    def __call__(self, module: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        """Compiles one graph; dynamo calls this.

        A graph without parameters, or on another device than the CPU, is handed back as it is; so
        is one whose gradients are wanted, with a warning.
        """
        graph_break = break_of(module)
        if graph_break is not None:
            self.graph_breaks[graph_break] = None
        tensors = [value for value in example_inputs if isinstance(value, torch.Tensor)]
        if not any(isinstance(value, nn.Parameter) and value.dim() > 1 for value in tensors):
            return module.forward
        if any(tensor.device.type != "cpu" for tensor in tensors):
            return module.forward
        graph = CapturedGraph(self, module, next(self._numbers))
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            warnings.warn(
                f"{graph.location} runs in float: gradients are recorded. Call the compiled model "
                "in torch.no_grad() or torch.inference_mode().",
                stacklevel=2,
            )
            return module.forward
        self.graphs.add(graph)
        return graph

    def enter(self, graph: CapturedGraph, route: Route, tensors: Sequence[torch.Tensor]) -> bool:
        """Finds or makes the variant for a new route. One that observes is shown its first inputs.

        Returns:
            Whether it is int8, and is to run.
        """
        with self._lock, _disable_current_modes():
            self._find(graph.location, route, tensors, reuse=True)
            state = None if route.variant is None else route.variant.subgraph.state
            if state == "observing":
                self.observe(route, tensors)
            return state == "int8"

    def observe(self, route: Route, tensors: Sequence[torch.Tensor]) -> Any:
        """One calibration call; the last one converts the subgraph."""
        variant = route.variant
        assert variant is not None
        subgraph = variant.subgraph
        with self._lock:
            if subgraph.state != "observing":
                return variant(tensors)
            outputs = variant.observe(tensors)
            subgraph.observed += 1
            if subgraph.observed == self.options.calibration_steps:
                subgraph.convert(self.options)
            return outputs

    def compute(self, route: Route, tensors: Sequence[torch.Tensor]) -> Any:
        """Runs a route in int8, or in float if it must.

        If the Program that was made for another batch size does not take this one, the route gets
        its own.
        """
        variant, frozen = route.variant, route.frozen
        assert variant is not None and frozen is not None
        try:
            return variant(tensors)
        except InvalidInputError:
            with self._lock:
                self._find(variant.subgraph.location, route, tensors, reuse=False)
        try:
            return (route.variant or variant)(tensors)
        except InvalidInputError as error:
            route.variant, route.reason = None, summary(error)
            return frozen.module(*tensors)

    def convert(self) -> None:
        """Ends calibration: every subgraph becomes int8, or float.

        Raises:
            QuantizationError: ``keep_float`` names something that no subgraph holds.
            Exception: With ``strict``, why one cannot be quantized.
        """
        missing = [name for name in self.options.config.keep_float if name not in self.kept]
        if missing:
            raise QuantizationError(
                f"keep_float names {missing[0]!r}, which no layer or module of the calibrated "
                "subgraphs has"
            )
        with self._lock:
            self.converted = True
            for graph in self.graphs:
                for route in graph.routes:
                    route.calibration_calls = route.calls
            for subgraph in list(self._subgraphs.values()):
                subgraph.convert(self.options)

    def release(self) -> None:
        """Lets go of all subgraphs, for dynamo may keep the graphs themselves for ever."""
        with self._lock:
            for graph in self.graphs:
                graph.forget()

    def _find(
        self, location: str, route: Route, tensors: Sequence[torch.Tensor], *, reuse: bool
    ) -> None:
        try:
            with torch.inference_mode(False), torch.no_grad():
                plain = list(map(as_plain, tensors))
                route.variant = self._variant(location, route, plain, reuse)
        except Exception as error:  # torch.export raises nearly anything
            if self.options.strict:
                raise
            route.reason = summary(error)

    def _variant(
        self, location: str, route: Route, tensors: list[torch.Tensor], reuse: bool
    ) -> Variant | None:
        assert route.frozen is not None
        if not tensors or any(not tensor.numel() for tensor in tensors):
            route.reason = "its inputs are empty"
            return None
        captured = capture(route.frozen.module, tensors)
        if not any(
            is_call(node, *WEIGHTED) and get_constant(captured, node.args[1]) is not None
            for node in captured.graph.nodes
        ):
            route.reason = NOTHING
            return None
        exact = (structure(captured, sizes=True), _fixed_sizes(captured, tensors), route.contents)
        known = self._variants.get(exact) if reuse else None
        if known is not None:
            return known
        config = self._config_for(captured, tensors)
        if config is None:
            route.reason = KEPT
            return None
        prepared = prepare(captured, tensors, config)
        key = (structure(prepared, sizes=False), route.contents)
        subgraph = self._subgraphs.get(key)
        if subgraph is None:
            subgraph = self._subgraphs[key] = Subgraph(location)
            if self.converted:
                subgraph.leave_float(NOT_CALIBRATED)
        variant = subgraph.add(
            prepared, route.frozen.module, route.macs, route.int8_macs, self.options
        )
        self._variants[exact] = variant
        return variant

    def _config_for(
        self, captured: fx.GraphModule, tensors: list[torch.Tensor]
    ) -> QuantizationConfig | None:
        """The config for one subgraph; ``None`` if all of it is to stay float."""
        config = self.options.config
        if not config.keep_float:
            return config
        fitting = fitting_config(config, float_graph(captured, tensors).graph)
        self.kept.update(config.keep_float if fitting is None else fitting.keep_float)
        return fitting


def _fixed_sizes(captured: fx.GraphModule, tensors: Sequence[torch.Tensor]) -> Hashable:
    """The sizes that a Program of the graph holds for constant: all but the batch, and also the
    batch if an operator takes a part of it.
    """
    takes_part = any(
        arguments(node).get("dim") == 0
        for node in captured.graph.nodes
        if node.op == "call_function" and isinstance(node.target, OpOverload)
    )
    return tuple(tensor.shape if takes_part else tensor.shape[1:] for tensor in tensors)
