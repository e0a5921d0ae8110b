"""What of a compiled model runs in int8, what does not, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from pyquant.compile.captured_graph import CapturedGraph, Route
from pyquant.compile.first_run import MacCounter
from pyquant.compile.origin import GraphBreak
from pyquant.compile.session import SESSIONS, Session
from pyquant.compile.subgraph import State, Subgraph
from pyquant.errors import InvalidInputError
from pyquant.ir.lower import FloatOperator

#: A route, its graph, and the number of its calls that a report is about.
_CountedRoute: TypeAlias = tuple[CapturedGraph, Route, int]


@dataclass(frozen=True)
class SubgraphReport:
    """One piece of the model between graph breaks.

    Attributes:
        location: The lines that it comes from.
        state: Whether it observes, runs in int8, or stays float.
        reason: Why it stays float.
        observed: Calls that calibrated it.
        calls: Calls in all.
        macs: Multiply-adds of the calls that the report covers.
        int8_macs: How many of them are done in int8: by Programs, and by dynamic layers, whatever
            the state.
        float_operators: What runs in float inside of an int8 subgraph, and why.
        dynamic_operators: The dynamic layers inside of it, which compute in int8.
    """

    location: str
    state: State
    reason: str
    observed: int
    calls: int
    macs: int
    int8_macs: int
    float_operators: tuple[FloatOperator, ...] = ()
    dynamic_operators: tuple[FloatOperator, ...] = ()

    def __str__(self) -> str:
        share = f", {_percent(self.int8_macs, self.macs)} of its MACs in int8" * bool(self.macs)
        lines = [f"{self.state:9} {self.location}: {self.calls} calls{share}"]
        if self.reason:
            lines.append(f"          because {self.reason}")
        kinds = dict.fromkeys(f"{stayed.target}: {stayed.why}" for stayed in self.float_operators)
        lines += [f"          float: {kind}" for kind in kinds]
        dynamic = dict.fromkeys(operator.target for operator in self.dynamic_operators)
        lines += [f"          int8 (dynamic): {target}" for target in dynamic]
        return "\n".join(lines)


@dataclass(frozen=True)
class CompileReport:
    """What a compiled model does; ``print`` it.

    Attributes:
        subgraphs: What dynamo captured that holds weights, in the order of capture.
        graph_breaks: What ended a graph; the code behind it is another one, or runs as Python.
        macs: Multiply-adds: of the calibration calls of a ``CompiledQuantizer``, or of the call
            that :func:`compile_report` was given inputs for, with what runs outside of subgraphs;
            else those of all calls of the subgraphs.
        outside_macs: How many of them run outside of subgraphs.
        outside_int8_macs: How many of those dynamic layers do.
        complete: Whether what runs outside of subgraphs is counted.
    """

    subgraphs: tuple[SubgraphReport, ...]
    graph_breaks: tuple[GraphBreak, ...]
    macs: int
    outside_macs: int
    outside_int8_macs: int
    complete: bool = True

    @property
    def int8_macs(self) -> int:
        """How many multiply-adds are done in int8."""
        return self.outside_int8_macs + sum(entry.int8_macs for entry in self.subgraphs)

    @property
    def int8_share(self) -> float:
        """The share of the multiply-adds that is done in int8, 0 to 1: by Programs, and by the
        layers of ``quantize_dynamic`` wherever they run.
        """
        return self.int8_macs / self.macs if self.macs else 0.0

    def __str__(self) -> str:
        where = "" if self.complete else " of the subgraphs"
        lines = [f"{_percent(self.int8_macs, self.macs)} of the multiply-adds{where} run in int8"]
        if not self.complete:
            lines.append(
                "not counted: what runs outside of subgraphs, in Python or in graphs without "
                "weights; compile_report(model, example_inputs) counts it"
            )
        if self.outside_macs:
            share = f", {_percent(self.outside_int8_macs, self.outside_macs)} of these in int8"
            outside = f"{_percent(self.outside_macs, self.macs)} run outside of subgraphs"
            lines.append(outside + share * bool(self.outside_int8_macs))
        lines += [f"\nsubgraphs: {len(self.subgraphs)}", *map(str, self.subgraphs)]
        if self.graph_breaks:
            lines += [f"\ngraph breaks: {len(self.graph_breaks)}", *map(str, self.graph_breaks)]
        return "\n".join(lines)


def compile_report(
    model: nn.Module, example_inputs: tuple[Any, ...] | torch.Tensor | None = None
) -> CompileReport:
    """The report of a model that ``torch.compile(model, backend="pyquant")`` returned.

    Args:
        model: The compiled model, or the one that it was made from.
        example_inputs: The positional inputs, or one tensor, of one more call of the compiled
            model, which the report is about then: the float model runs, too, to count what the
            subgraphs do not hold. ``None``: about all calls so far, of the subgraphs alone, for
            nothing else is known.

    Raises:
        InvalidInputError: With inputs: this call came to no subgraph of the model.
    """
    if example_inputs is None:
        return _report(_routes_of(model, {}))
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    before = {
        id(route): route.calls
        for session in SESSIONS
        for graph in session.graphs
        for route in graph.routes
    }
    with torch.no_grad():
        model(*inputs)
        with MacCounter() as counter:
            getattr(model, "_orig_mod", model).forward(*inputs)
    routes = [entry for entry in _routes_of(model, before) if entry[2]]
    if not routes:
        raise InvalidInputError(
            "this call came to no subgraph: give compile_report what torch.compile(model, "
            'backend="pyquant") returned'
        )
    return _report(routes, (counter.macs, counter.int8_macs))


def session_report(session: Session) -> CompileReport:
    """The report of a session of one model whose calls were counted."""
    routes = [
        (graph, route, route.calibration_calls if session.converted else route.calls)
        for graph in _ordered(session.graphs)
        for route in graph.routes
    ]
    report = _report(routes, (session.macs, session.int8_macs))
    return dataclasses.replace(report, graph_breaks=tuple(session.graph_breaks))


def _routes_of(model: nn.Module, before: Mapping[int, int]) -> list[_CountedRoute]:
    """Those that hold weights of ``model``, with their calls after those in ``before``."""
    weights = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    return [
        (graph, route, route.calls - before.get(id(route), 0))
        for session in SESSIONS
        for graph in _ordered(session.graphs)
        for route in graph.routes
        if any(id(tensor) in weights for owned in graph.owners(route) for tensor in owned)
    ]


def _report(routes: Sequence[_CountedRoute], whole: tuple[int, int] | None = None) -> CompileReport:
    """``whole``: the model's multiply-adds, and those of its dynamic layers, if they are known."""
    breaks = dict.fromkeys(graph.graph_break for graph, _, _ in routes if graph.graph_break)
    inside = sum(calls * route.macs for _, route, calls in routes)
    dynamic_inside = sum(calls * route.int8_macs for _, route, calls in routes)
    macs, dynamic = (inside, dynamic_inside) if whole is None else whole
    return CompileReport(
        _subgraphs(routes),
        tuple(breaks),
        macs,
        max(macs - inside, 0),
        max(dynamic - dynamic_inside, 0),
        complete=whole is not None,
    )


def _ordered(graphs: Iterable[CapturedGraph]) -> list[CapturedGraph]:
    return sorted(graphs, key=lambda graph: graph.number)


def _subgraphs(routes: Sequence[_CountedRoute]) -> tuple[SubgraphReport, ...]:
    """One entry for each subgraph, and for each reason of a captured graph to have none."""
    groups: dict[object, list[_CountedRoute]] = {}
    for graph, route, calls in routes:
        subgraph = None if route.variant is None else route.variant.subgraph
        groups.setdefault(subgraph or (graph, route.reason), []).append((graph, route, calls))
    return tuple(_entry(key, group) for key, group in groups.items())


def _entry(key: object, group: Sequence[_CountedRoute]) -> SubgraphReport:
    calls = sum(route.calls for _, route, _ in group)
    macs = sum(count * route.macs for _, route, count in group)
    graph, first, _ = group[0]
    done = round(sum(count * _int8_macs(route) for _, route, count in group))
    if not isinstance(key, Subgraph):
        return SubgraphReport(graph.location, "float", first.reason, 0, calls, macs, done)
    modules = [variant.module for variant in key.variants if variant.module is not None]
    stayed = dict.fromkeys(operator for module in modules for operator in module.float_operators)
    return SubgraphReport(
        key.location,
        key.state,
        key.reason,
        key.observed,
        calls,
        macs,
        done,
        tuple(operator for operator in stayed if not operator.is_dynamic),
        tuple(operator for operator in stayed if operator.is_dynamic),
    )


def _int8_macs(route: Route) -> float:
    """Of one call; a variant may have been made from other inputs."""
    if route.variant is None or not route.variant.macs:
        return route.int8_macs
    return route.macs * route.variant.int8_macs / route.variant.macs


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"
