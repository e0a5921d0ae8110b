"""What dynamo calls in place of a graph that it captured."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from pyquant.compile.first_run import run_and_watch
from pyquant.compile.freeze import FrozenGraph, freeze, weight_positions
from pyquant.compile.subgraph import Variant
from pyquant.errors import InvalidInputError

if TYPE_CHECKING:
    from pyquant.compile.session import Session

_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')
_NOT_OF_THE_USER = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


@dataclass
class Route:
    """Where calls with certain weights and input shapes go.

    Attributes:
        frozen: The graph for them; ``None`` if they run as captured.
        variant: What runs it.
        fixed: Outputs that are the same for all such calls: numbers.
        weights: Kept alive, as they are known by their addresses.
        macs: Multiply-adds of a call.
        reason: Why there is no variant.
        calls: How many there were.
        calibration_calls: How many of them came before the session was converted, once it is.
    """

    frozen: FrozenGraph | None
    variant: Variant | None
    fixed: tuple[Any, ...]
    weights: tuple[torch.Tensor, ...]
    macs: int = 0
    reason: str = ""
    calls: int = 0
    calibration_calls: int = 0


class CapturedGraph:
    """A graph of dynamo's with all weights and shapes that it is called with.

    One graph may serve several modules of a class, so the weights among its inputs are looked at
    in every call: other weights, or the same with changed values, are another subgraph.

    Attributes:
        number: Its place among those of the session.
        location: The first and the last line that it was captured from.
        graph_break: What ended it; ``None`` if the code ends there.
        routes: By weights and input shapes.
    """

    def __init__(self, session: Session, module: fx.GraphModule, number: int) -> None:
        self.number = number
        self._session = session
        self._module = module
        self._weights = weight_positions(module)
        self._weight_set = frozenset(self._weights)
        self._sources = _sources(module.graph)
        self.location = location_of(module.graph)
        self.graph_break = break_of(module)
        self.routes: dict[Hashable, Route] = {}

    def __call__(self, *args: Any) -> Any:
        """Runs the graph.

        Raises:
            CalibrationError: NaN or infinity arises while it observes.
            PyquantError: With ``strict``, why it cannot be quantized.
        """
        key = self._key(args)
        route = self.routes.get(key)
        if route is None:
            return self._first_call(key, args)
        route.calls += 1
        variant, frozen = route.variant, route.frozen
        if variant is None or frozen is None:
            return self._module(*args)
        tensors = [args[position] for position in frozen.inputs]
        if variant.subgraph.state == "observing":
            return self._assemble(route, args, self._session.observe(route, tensors))
        try:
            return self._assemble(route, args, variant(tensors))
        except InvalidInputError:
            # The Program of other shapes does not take these: they get one of their own.
            return self._assemble(route, args, self._session.specialize(route, tensors))

    def _first_call(self, key: Hashable, args: Sequence[Any]) -> Any:
        """Runs in float, to see what the graph does beside computing its outputs."""
        outputs, writes, macs = run_and_watch(self._module, args)
        weights = tuple(args[position] for position in self._weights)
        route = Route(None, None, (), weights, macs, calls=1)
        if writes:
            route.reason = "it writes into its inputs"
        elif any("unbacked_bindings" in node.meta for node in self._module.graph.nodes):
            route.reason = "its shapes depend on values"
        else:
            route.frozen = freeze(self._module, args, self._weights)
            route.fixed = tuple(
                value if position is None and source is None else None
                for position, source, value in zip(
                    route.frozen.outputs, self._sources, outputs, strict=True
                )
            )
            tensors = [args[position] for position in route.frozen.inputs]
            converted = self._session.enter(self, route, tensors)
            if converted is not None:
                outputs = self._assemble(route, args, converted(tensors))
        self.routes[key] = route
        return outputs

    def _assemble(self, route: Route, args: Sequence[Any], computed: Sequence[Any]) -> Any:
        frozen = route.frozen
        assert frozen is not None
        return tuple(
            computed[position]
            if position is not None
            else fixed
            if source is None
            else args[source]
            for position, fixed, source in zip(
                frozen.outputs, route.fixed, self._sources, strict=True
            )
        )

    def _key(self, args: Sequence[Any]) -> Hashable:
        weights = self._weight_set
        return tuple(
            identity(value)
            if position in weights
            else (value.shape, value.dtype)
            if isinstance(value, torch.Tensor)
            else value
            for position, value in enumerate(args)
        )


def _sources(graph: fx.Graph) -> list[int | None]:
    """For each output the position of the input that it is."""
    index = {node: position for position, node in enumerate(graph.find_nodes(op="placeholder"))}
    (output,) = graph.find_nodes(op="output")
    return [index.get(value) for value in output.args[0]]


@dataclass(frozen=True)
class GraphBreak:
    """Why dynamo ended a graph before the code ends, and where."""

    reason: str
    location: str

    def __str__(self) -> str:
        return f"{self.location}: {self.reason}"


def break_of(module: fx.GraphModule) -> GraphBreak | None:
    """The break that ended a graph of dynamo's; ``None`` if the code ends there."""
    reason: Any = getattr(module, "compile_subgraph_reason", None)
    if reason is None or not reason.graph_break:
        return None
    frame = reason.user_stack[-1] if reason.user_stack else None
    where = f"{frame.filename}:{frame.lineno} in {frame.name}" if frame else "unknown code"
    return GraphBreak(str(reason.reason).strip().splitlines()[0], where)


def identity(tensor: torch.Tensor) -> Hashable:
    """Another one as soon as the tensor's values change."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version


def location_of(graph: fx.Graph) -> str:
    """``FILE:LINE in FUNCTION``, the innermost of the first call; the line of the last one, too."""
    frames = [
        own[-1]
        for node in graph.nodes
        if node.op.startswith("call") and (own := _user_frames(node.stack_trace or ""))
    ]
    if not frames:
        return "unknown code"
    file, line, function = frames[0]
    last = max((int(at) for f, at, n in frames if (f, n) == (file, function)), default=int(line))
    lines = line if last <= int(line) else f"{line}-{last}"
    return f"{file}:{lines} in {function}"


def _user_frames(stack_trace: str) -> list[tuple[str, str, str]]:
    frames = _FRAME.findall(stack_trace)
    return [frame for frame in frames if not frame[0].startswith(_NOT_OF_THE_USER)] or frames
