"""``Session``: the one mechanism under both ways to compile."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any
from weakref import WeakSet, WeakValueDictionary

import torch
from torch import fx, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import _disable_current_modes

from pyquant.capture import capture
from pyquant.capture.node import WEIGHTED, arguments, get_constant, is_call
from pyquant.compile.captured_graph import CapturedGraph, Route
from pyquant.compile.options import CompileOptions
from pyquant.compile.origin import GraphBreak, break_of
from pyquant.compile.structure import structure
from pyquant.compile.subgraph import Subgraph, Variant, as_plain, summary
from pyquant.quantization import prepare

NOTHING = "it holds no convolution or linear layer"
NOT_CALIBRATED = "no calibration call took this path"

#: All that there are.
SESSIONS: WeakSet[Session] = WeakSet()


class Session:
    """A backend of dynamo's, and all subgraphs that it made. Safe to use from several threads.

    Subgraphs live as long as dynamo keeps the graphs that they belong to.

    Args:
        options: For all subgraphs.

    Attributes:
        graphs: What dynamo captured that holds weights, as it came.
        graph_breaks: What ended graphs, as it came.
        macs: Multiply-adds of all calibration calls, also outside of subgraphs, if the caller
            counts them.
        converted: Calibration has ended: what is new from now on stays float.
    """

    def __init__(self, options: CompileOptions) -> None:
        self.options = options
        self.graphs: WeakSet[CapturedGraph] = WeakSet()
        self.graph_breaks: dict[GraphBreak, None] = {}
        self.macs = 0
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

    def enter(
        self, graph: CapturedGraph, route: Route, tensors: Sequence[torch.Tensor]
    ) -> Variant | None:
        """Finds or makes the variant for a new route. One that observes is shown its first inputs;
        one that is int8 is returned.
        """
        with self._lock, _disable_current_modes():
            self._find(graph.location, route, tensors, reuse=True)
            variant = route.variant
            if variant is None or variant.subgraph.state == "int8":
                return variant
            if variant.subgraph.state == "observing":
                self.observe(route, tensors)
            return None

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

    def specialize(self, route: Route, tensors: Sequence[torch.Tensor]) -> Any:
        """Runs a route whose variant does not take its shapes, with a variant of its own."""
        with self._lock:
            assert route.variant is not None
            self._find(route.variant.subgraph.location, route, tensors, reuse=False)
            return route.variant(tensors)

    def convert(self) -> None:
        """Ends calibration: every subgraph becomes int8, or float.

        Raises:
            Exception: With ``strict``, why one cannot be quantized.
        """
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
        if not tensors:
            route.reason = "it reads no tensor"
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
        prepared = prepare(captured, tensors, self.options.config)
        key = (structure(prepared, sizes=False), route.contents)
        subgraph = self._subgraphs.get(key)
        if subgraph is None:
            subgraph = self._subgraphs[key] = Subgraph(location)
            if self.converted:
                subgraph.leave_float(NOT_CALIBRATED)
        variant = subgraph.add(prepared, route.frozen.module, route.macs, self.options)
        self._variants[exact] = variant
        return variant


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
