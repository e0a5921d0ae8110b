"""What dynamo calls in place of a graph that it captured."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from pyquant.compile.first_run import run_and_watch
from pyquant.compile.freeze import FrozenGraph, freeze, weight_positions
from pyquant.compile.origin import break_of, location_of
from pyquant.compile.structure import digest
from pyquant.compile.subgraph import Variant

if TYPE_CHECKING:
    from pyquant.compile.session import Session

#: How many sets of weights a graph knows by their addresses.
_RECENT = 64


@dataclass
class Route:
    """Where calls with certain weights and input shapes go.

    Attributes:
        weights: The parameters and buffers of the first such call.
        contents: What they hold, for comparing.
        frozen: The graph for them; ``None`` if they run as captured.
        variant: What runs it.
        fixed: Outputs that are the same for all such calls: numbers.
        macs: Multiply-adds of a call.
        int8_macs: How many of them are those of dynamic layers.
        reason: Why there is no variant.
        calls: How many there were.
        calibration_calls: How many of them came before the session was converted, once it is.
    """

    weights: tuple[torch.Tensor, ...]
    contents: Hashable
    frozen: FrozenGraph | None = None
    variant: Variant | None = None
    fixed: tuple[Any, ...] = ()
    macs: int = 0
    int8_macs: int = 0
    reason: str = ""
    calls: int = 0
    calibration_calls: int = 0


class CapturedGraph:
    """A graph of dynamo's with all weights and shapes that it is called with.

    One graph may serve several modules of a class, so the weights among its inputs are looked at
    in every call: other weights, or the same with changed values, are another subgraph. They are
    known by address, and new addresses by their content: some code makes its modules anew in every
    call.

    Attributes:
        number: Its place among those of the session.
        location: The first and the last line that it was captured from.
        graph_break: What ended it; ``None`` if the code ends there.
    """

    def __init__(self, session: Session, module: fx.GraphModule, number: int) -> None:
        self.number = number
        self.location = location_of(module.graph)
        self.graph_break = break_of(module)
        self._session = session
        self._module = module
        self._weights = weight_positions(module)
        self._sources = _sources(module.graph)
        self._routes: dict[Hashable, Route] = {}
        self._recent: dict[Hashable, tuple[tuple[torch.Tensor, ...], Route]] = {}
        self._float_route: Route | None = None

    @property
    def routes(self) -> list[Route]:
        """All that there are."""
        whole = [] if self._float_route is None else [self._float_route]
        return [*self._routes.values(), *whole]

    def owners(self, route: Route) -> list[tuple[torch.Tensor, ...]]:
        """The weights that came this way lately."""
        return [route.weights, *(weights for weights, at in self._recent.values() if at is route)]

    def forget(self) -> None:
        """Lets go of everything that it holds."""
        self._routes.clear()
        self._recent.clear()

    def __call__(self, *args: Any) -> Any:
        """Runs the graph.

        Raises:
            CalibrationError: NaN or infinity arises while it observes.
            PyquantError: With ``strict``, why it cannot be quantized.
        """
        if self._float_route is not None:
            self._float_route.calls += 1
            return self._module(*args)
        key = tuple(
            _address(value) if position in self._weights else _form(value)
            for position, value in enumerate(args)
        )
        known = self._recent.get(key)
        if known is None:
            return self._unknown_call(key, args)
        return self._run(known[1], args)

    def _unknown_call(self, key: Hashable, args: Sequence[Any]) -> Any:
        weights = tuple(args[position] for position in self._weights)
        contents = tuple(map(digest, weights))
        forms = tuple(_form(v) for at, v in enumerate(args) if at not in self._weights)
        route = self._routes.get((contents, forms))
        if route is None:
            route = Route(weights, contents)
            outputs = self._first_call(route, args)
            if self._float_route is not None:
                return outputs
            self._routes[contents, forms] = route
        else:
            outputs = self._run(route, args)
        self._recent[key] = (weights, route)  # which keeps the addresses valid
        if len(self._recent) > _RECENT:
            self._recent.pop(next(iter(self._recent)), None)
        return outputs

    def _first_call(self, route: Route, args: Sequence[Any]) -> Any:
        """Runs in float, to see what the graph does beside computing its outputs."""
        outputs, writes, counter = run_and_watch(self._module, args)
        route.macs, route.int8_macs = counter.macs, counter.int8_macs
        route.calls = 1
        if writes:
            route.reason = "it writes into its inputs"
            self._float_route = route
            self.forget()
            return outputs
        if any("unbacked_bindings" in node.meta for node in self._module.graph.nodes):
            route.reason = "its shapes depend on values"
            return outputs
        route.frozen = freeze(self._module, args, self._weights, self._session.names)
        route.fixed = tuple(
            value if position is None and source is None else None
            for position, source, value in zip(
                route.frozen.outputs, self._sources, outputs, strict=True
            )
        )
        tensors = [args[position] for position in route.frozen.inputs]
        if self._session.enter(self, route, tensors):
            return self._assemble(route, args, self._session.compute(route, tensors))
        return outputs

    def _run(self, route: Route, args: Sequence[Any]) -> Any:
        route.calls += 1
        variant, frozen = route.variant, route.frozen
        if variant is None or frozen is None:
            return self._module(*args)
        tensors = [args[position] for position in frozen.inputs]
        observing = variant.subgraph.state == "observing"
        run = self._session.observe if observing else self._session.compute
        return self._assemble(route, args, run(route, tensors))

    def _assemble(self, route: Route, args: Sequence[Any], computed: Sequence[Any]) -> Any:
        """Dynamo's outputs: computed, handed on, or numbers."""
        assert route.frozen is not None
        outputs = list(route.fixed)
        for index, (position, source) in enumerate(
            zip(route.frozen.outputs, self._sources, strict=True)
        ):
            if position is not None:
                outputs[index] = computed[position]
            elif source is not None:
                outputs[index] = args[source]
        return tuple(outputs)


def _sources(graph: fx.Graph) -> list[int | None]:
    """For each output the position of the input that it is."""
    index = {node: position for position, node in enumerate(graph.find_nodes(op="placeholder"))}
    (output,) = graph.find_nodes(op="output")
    return [index.get(value) for value in output.args[0]]


def _address(tensor: torch.Tensor) -> Hashable:
    """Another one as soon as the tensor's values change."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version


def _form(value: Any) -> Hashable:
    return (value.shape, value.dtype) if isinstance(value, torch.Tensor) else value
