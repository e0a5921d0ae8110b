"""From a quantized (q/dq) graph to Programs, and ATen operators for what they cannot express.

Lowering is driven by demand, from the outputs backwards: each value is wanted either quantized
with certain qparams or as float32, and the rules of ``lowering_rules.py`` say which operator gives
it from which operands. What no rule gives stays an ATen node. Everything that can run before the
first ATen node goes into one Program, everything between ATen nodes of one depth into the next, so
a network without ATen nodes is a single Program.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TypeAlias, cast

import numpy as np
from torch.fx import GraphModule, Node

from pyquant.errors import LoweringError
from pyquant.ir import lowering_rules as rules
from pyquant.ir.lowering_rules import Bounds, FloatValue, Lowered, QuantizedValue, Value
from pyquant.ir.moves import MOVES, Moved, move
from pyquant.ir.ops import Dequantize, Quantize
from pyquant.ir.passes import simplify
from pyquant.ir.program import Program
from pyquant.ir.program_builder import ProgramBuilder
from pyquant.ir.quantized_graph import QParams, QuantizedGraph

CONSTANT = "a constant"
_DYNAMIC = "pyquant.dynamic_"


@dataclass(frozen=True)
class Alias:
    """The same bytes as another value."""

    source: QuantizedValue


@dataclass(frozen=True)
class FromFloat:
    """Quantizes a float32 value."""

    source: FloatValue


@dataclass(frozen=True)
class ToFloat:
    """Dequantizes a uint8 value."""

    source: QuantizedValue


@dataclass(frozen=True)
class Aten:
    """A float node that stays as it is, and why."""

    node: Node
    why: str


Plan: TypeAlias = Lowered | Alias | FromFloat | ToFloat | Aten


@dataclass(frozen=True)
class FloatOperator:
    """An operator that runs on float32 tensors, outside of any Program."""

    name: str
    target: str
    why: str

    @property
    def is_dynamic(self) -> bool:
        """Whether it computes in int8 all the same: a layer of ``quantize_dynamic``."""
        return self.target.startswith(_DYNAMIC)

    def __str__(self) -> str:
        return f"{self.name} ({self.target}): {self.why}"


@dataclass
class LoweredProgram:
    """A Program and the graph's nodes that its inputs and outputs stand for."""

    program: Program
    inputs: list[Node]
    outputs: list[Node]


@dataclass
class LoweredGraph:
    """The result of :func:`lower_graph`.

    Attributes:
        module: The graph that was lowered.
        programs: By depth; ``programs[k]`` needs nothing of ``programs[k + 1]``.
        aten: For each depth the nodes that run before its Program, in order.
        float_operators: The ATen nodes that compute something.
    """

    module: GraphModule
    programs: list[LoweredProgram] = field(default_factory=list)
    aten: list[list[Node]] = field(default_factory=list)
    float_operators: list[FloatOperator] = field(default_factory=list)


def lower_graph(module: GraphModule) -> LoweredGraph:
    """Lowers a q/dq graph.

    Args:
        module: What ``pyquant.convert`` or torchao's ``convert_pt2e`` returned, with activations
            of uint8 or int8 and symmetric int8 weights.

    Raises:
        LoweringError: The graph is not a quantized one, or holds qparams that cannot be.
    """
    graph = QuantizedGraph(module)
    plans = _Planner(graph).plan()
    return _Emitter(graph, plans).emit()


class _Planner:
    """Decides, for every value that is needed, how it comes about."""

    def __init__(self, graph: QuantizedGraph) -> None:
        self.graph = graph
        self.plans: dict[Value, Plan] = {}
        self.wanted: dict[Node, dict[Value, None]] = defaultdict(dict)

    def plan(self) -> dict[Value, Plan]:
        """Plans for all wanted values, in the order of the graph's nodes."""
        # Every operand stands before its user, so walking backwards meets each node after all
        # that want its value.
        for node in reversed(self.graph.nodes):
            if node.op == "output":
                for argument in node.all_input_nodes:
                    self.wanted[argument][FloatValue(argument)] = None
            for value in list(self.wanted[node]):
                self._plan(value)
        order = {node: index for index, node in enumerate(self.graph.nodes)}
        return dict(sorted(self.plans.items(), key=lambda item: order[item[0].node]))

    def _plan(self, value: Value) -> None:
        node = value.node
        if value in self.plans or (isinstance(value, FloatValue) and node.op == "placeholder"):
            return
        if isinstance(value, QuantizedValue):
            plan = self._plan_quantized(value)
        else:
            plan = self._plan_float(node)
        for operand in _operands(plan):
            self.wanted[operand.node][operand] = None
            if operand.node is node:
                # A value may rest on another form of the same node's value, which comes first.
                self._plan(operand)
        self.plans[value] = plan

    def _plan_quantized(self, value: QuantizedValue) -> Plan:
        lowered = self._lower(value.node, value.qparams)
        if lowered is not None:
            return lowered
        if not value.qparams.is_full_range:
            # No operator without clamp bounds keeps to a part of 0..255: a table does it.
            full = QuantizedValue(value.node, value.qparams.full_range())
            return Lowered(rules.requantization_table(full.qparams, value.qparams), [full])
        return FromFloat(FloatValue(value.node))

    def _lower(self, node: Node, qparams: QParams) -> Lowered | Alias | None:
        graph = self.graph
        if graph.is_dequantize(node):
            source = rules.quantized_operand(graph, node)
            if source is None:
                return None
            if source.qparams == qparams:
                return Alias(source)
            return Lowered(rules.requantization_table(source.qparams, qparams), [source])
        if node.op != "call_function":
            return None
        target = str(node.target)
        if target in MOVES:
            moved = move(graph, node)
            return None if moved is None else self._lower_moved(node, moved, qparams)
        if target in rules.POOLS:
            if not qparams.is_full_range:
                return None
            return rules.POOLS[target](graph, node, Bounds(0, 255))
        return self._lower_clamped(node, qparams)

    def _lower_moved(self, node: Node, moved: Moved, qparams: QParams) -> Lowered | None:
        """Moving and changing qparams commute. One change is behind the operator; several, for
        operands of several qparams, are in front of it. A float operand stays float, unless an
        int8 operator can give it.
        """
        operand = rules.quantized_operand(self.graph, node)
        if operand is not None and operand.qparams != qparams:
            return Lowered(rules.requantization_table(operand.qparams, qparams), [operand])
        stays_float = operand is None and self._lower(moved.sources[0], qparams) is None
        if stays_float and len(moved.sources) == 1:
            return None
        return Lowered(moved.op, [QuantizedValue(source, qparams) for source in moved.sources])

    def _lower_clamped(self, node: Node, qparams: QParams) -> Lowered | None:
        """An operator with weights or an addition, with the clamps that follow it; or else a
        unary function by itself, as a table.
        """
        graph = self.graph
        bounds = Bounds(qparams.low, qparams.high)
        anchor = node
        while rules.is_clamp(anchor):
            low, high = rules.CLAMPS[rules.functional_name(anchor)](anchor)
            bounds = _clamp(bounds, qparams, low, high)
            anchor = cast(Node, anchor.args[0])
        rule = rules.CLAMPING.get(str(anchor.target)) if anchor.op == "call_function" else None
        lowered = rule(graph, anchor, bounds) if rule else None
        if lowered is not None:
            return lowered
        operand = rules.quantized_operand(graph, rules.unary_source(graph, node))
        if operand is None:
            return None
        return Lowered(rules.table_of(graph, node, operand.qparams, qparams), [operand])

    def _plan_float(self, node: Node) -> Plan:
        graph = self.graph
        if graph.is_constant(node):
            return Aten(node, CONSTANT)
        if graph.is_quantize(node):
            raise LoweringError(
                f"the quantized tensor '{node.name}' is used other than through a dequantize node; "
                "lower() takes PT2E q/dq graphs"
            )
        operand = rules.quantized_operand(graph, node)
        if operand is not None:
            return ToFloat(operand)
        lowered = rules.float_result(graph, node)
        if lowered is not None:
            return lowered
        return Aten(node, _why_float(graph, node))


def _operands(plan: Plan) -> list[Value]:
    """The values that a planned value is computed from."""
    if isinstance(plan, Aten):
        return [FloatValue(argument) for argument in plan.node.all_input_nodes]
    if isinstance(plan, Lowered):
        return list(plan.operands)
    return [plan.source]


def _clamp(outer: Bounds, qparams: QParams, low: float, high: float) -> Bounds:
    """Clamping and then quantizing is quantizing and then clamping to the quantized bounds; what
    stands behind the clamp (``outer``) has the last word.
    """
    bounds = qparams.quantize(np.array([low, high], np.float32))
    return Bounds(*(min(max(int(bound), outer.low), outer.high) for bound in bounds))


def _why_float(graph: QuantizedGraph, node: Node) -> str:
    target = str(node.target)
    if target.startswith(_DYNAMIC):
        return "it quantizes its float32 input itself, and computes in int8"
    known = {**rules.CLAMPING, **rules.POOLS, **MOVES}
    if target in known or rules.functional_name(node) in rules.UNARY:
        return "its inputs are not quantized, or this use of it has no int8 form"
    return "there is no int8 operator for it"


class _Emitter:
    """Distributes the planned values over Programs and ATen nodes by depth, and writes them."""

    def __init__(self, graph: QuantizedGraph, plans: dict[Value, Plan]) -> None:
        self.graph = graph
        self.plans = plans
        self.depths: dict[Value, int] = {}
        self.builders: dict[int, ProgramBuilder] = {}

    def emit(self) -> LoweredGraph:
        result = LoweredGraph(self.graph.module)
        aten: dict[int, list[Node]] = defaultdict(list)
        for value, plan in self.plans.items():
            depth = self.depths[value] = self._depth(plan)
            if isinstance(plan, Aten):
                aten[depth].append(plan.node)
                if plan.why != CONSTANT:
                    result.float_operators.append(
                        FloatOperator(plan.node.name, str(plan.node.target), plan.why)
                    )
            else:
                self._tensor(value, depth)
        self._add_outputs()
        order = {node: index for index, node in enumerate(self.graph.nodes)}
        for depth in range(1 + max([*self.builders, *aten], default=0)):
            builder = self.builders.get(depth, ProgramBuilder(self.graph))
            lowered = builder.finish(order)
            result.programs.append(
                LoweredProgram(simplify(lowered), list(builder.inputs), list(builder.outputs))
            )
            result.aten.append(aten[depth])
        return result

    def _depth(self, plan: Plan) -> int:
        """How many ATen nodes in a row must have run, with a Program between each two."""
        if isinstance(plan, Aten):
            return max((self._available(node) for node in plan.node.all_input_nodes), default=0)
        if isinstance(plan, FromFloat):
            return self._available(plan.source.node)
        return max(self.depths[operand] for operand in _operands(plan))

    def _available(self, node: Node) -> int:
        """The depth from which on the float value of ``node`` is there."""
        value = FloatValue(node)
        if node.op == "placeholder":
            return 0
        ran_in_program = not isinstance(self.plans[value], Aten)
        return self.depths[value] + ran_in_program

    def _builder(self, depth: int) -> ProgramBuilder:
        return self.builders.setdefault(depth, ProgramBuilder(self.graph))

    def _tensor(self, value: Value, depth: int) -> int:
        """The index of ``value`` in the Program of ``depth``, which gets it if it has it not."""
        builder = self._builder(depth)
        if value in builder.tensors:
            return builder.tensors[value]
        plan = self.plans[value]
        if isinstance(value, QuantizedValue) and self.depths[value] < depth:
            return self._carry_over(value, depth)
        if isinstance(plan, Alias):
            index = builder.tensors[value] = self._tensor(plan.source, depth)
            return index
        if isinstance(plan, FromFloat):
            return builder.add_operator(value, Quantize(), [builder.input(plan.source)])
        if isinstance(plan, ToFloat):
            return builder.add_operator(value, Dequantize(), [self._tensor(plan.source, depth)])
        lowered = cast(Lowered, plan)
        operands = [self._tensor(operand, depth) for operand in lowered.operands]
        return builder.add_lowered(value, lowered, operands)

    def _carry_over(self, value: QuantizedValue, depth: int) -> int:
        """A quantized value of an earlier Program: through float32, which is exact."""
        source = self._builder(self.depths[value])
        carrier = FloatValue(value.node)
        if carrier not in source.tensors:
            source.add_operator(carrier, Dequantize(), [self._tensor(value, self.depths[value])])
        source.output(carrier)
        builder = self._builder(depth)
        return builder.add_operator(value, Quantize(), [builder.input(carrier)])

    def _add_outputs(self) -> None:
        """Float values that ATen nodes, the graph's output or other Programs read leave theirs."""
        read = {plan.source for plan in self.plans.values() if isinstance(plan, FromFloat)}
        for value, plan in self.plans.items():
            if not isinstance(value, FloatValue) or isinstance(plan, Aten):
                continue
            by_aten = any(
                user.op == "output" or isinstance(self.plans.get(FloatValue(user)), Aten)
                for user in value.node.users
            )
            if by_aten or value in read:
                self._builder(self.depths[value]).output(value)
