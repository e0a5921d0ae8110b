"""The layers of a graph: what the pattern table takes as one operator, and their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import fx

from pyquant.capture.node import WEIGHTED, arguments, is_call, value_of
from pyquant.errors import QuantizationError
from pyquant.module_names import did_you_mean
from pyquant.quantization.patterns import PATTERNS, Pattern

_aten = torch.ops.aten


@dataclass(frozen=True)
class Layer:
    """One row of the pattern table's match, or one operator that no row matches.

    Attributes:
        name: The path of the module that it belongs to, as ``features.3.conv``. An operator that
            stands in a module beside others has its own name appended, as ``features.3.add``.
            Unique in its graph.
        nodes: The calls, in order; each but the first is the one user of that before it.
        modules: The paths of the modules around it, outermost first.
        has_pattern: Whether a row matches.
    """

    name: str
    nodes: tuple[fx.Node, ...]
    modules: tuple[str, ...]
    has_pattern: bool

    @property
    def first(self) -> fx.Node:
        """The call that reads the layer's inputs."""
        return self.nodes[0]

    @property
    def last(self) -> fx.Node:
        """The call that gives the layer's output."""
        return self.nodes[-1]

    @property
    def operators(self) -> tuple[str, ...]:
        """As ``("conv2d", "relu")``."""
        return tuple(operator_name(node) for node in self.nodes)

    @property
    def weight(self) -> fx.Node | None:
        """The constant weight of a convolution or linear layer."""
        node = self._argument("weight")
        return node if node is not None and node.op == "get_attr" else None

    @property
    def bias(self) -> fx.Node | None:
        """Its constant bias."""
        node = self._argument("bias")
        return node if node is not None and node.op == "get_attr" else None

    @property
    def output_axis(self) -> int:
        """The dimension of the weight that holds the output channels (of a group)."""
        return 1 if is_call(self.first, _aten.conv_transpose2d.input) else 0

    def is_inside(self, pattern: str) -> bool:
        """Whether ``pattern`` is its name or that of a module around it."""
        return any(fnmatchcase(name, pattern) for name in (self.name, *self.modules))

    def _argument(self, name: str) -> fx.Node | None:
        value = arguments(self.first).get(name) if is_call(self.first, *WEIGHTED) else None
        return value if isinstance(value, fx.Node) else None


def operator_name(node: fx.Node) -> str:
    """``conv2d`` for ``aten.conv2d.default``; a clamp to 0..6 is ``relu6``."""
    if is_call(node, _aten.hardtanh.default):
        bounds = arguments(node)
        if (bounds["min_val"], bounds["max_val"]) == (0, 6):
            return "relu6"
    return str(node.target).removeprefix("aten.").split(".")[0]


def find_layers(graph: fx.Graph, patterns: Iterable[Pattern] = PATTERNS) -> list[Layer]:
    """The layers of a captured, prepared or quantized graph, in the order in which they run.

    Every call that computes a float32 tensor of the inputs is in exactly one of them.
    """
    rows: dict[object, list[Pattern]] = {}
    for row in patterns:
        rows.setdefault(row.anchor, []).append(row)
    chains: list[list[fx.Node]] = []
    taken: set[fx.Node] = set()
    for node in _computed(graph):
        if node in taken:
            continue
        matches = [row.match(node) or [node] for row in rows.get(node.target, [])]
        chain = max(matches, key=len, default=[node])
        chains.append(chain)
        taken.update(chain)
    return [
        Layer(name, tuple(chain), _modules(chain[0]), chain[0].target in rows)
        for name, chain in zip(_names(chains), chains, strict=True)
    ]


def select_layers(layers: Sequence[Layer], patterns: Sequence[str]) -> list[Layer]:
    """The layers that at least one of the patterns names.

    Args:
        layers: Of one graph.
        patterns: Names of layers and modules (with all in them); or, where none has the name,
            operators, as ``"linear"``. May hold ``*``, ``?`` and ``[...]``.

    Raises:
        QuantizationError: A pattern matches none; the message lists names like it.
    """
    selected: set[str] = set()
    for pattern in patterns:
        found = {layer.name for layer in layers if layer.is_inside(pattern)}
        found = found or {
            layer.name for layer in layers if fnmatchcase(layer.operators[0], pattern)
        }
        if not found:
            raise QuantizationError(_unknown(layers, pattern))
        selected |= found
    return [layer for layer in layers if layer.name in selected]


def _unknown(layers: Sequence[Layer], pattern: str) -> str:
    names = {
        name
        for layer in layers
        for name in (layer.name, *layer.modules, layer.operators[0])
        if name
    }
    examples = ", ".join(repr(layer.name) for layer in layers[:5])
    hint = did_you_mean(pattern, sorted(names)) or f"names are as {examples}"
    return f"no layer, module or operator of the model matches {pattern!r}: {hint}"


def _computed(graph: fx.Graph) -> Iterable[fx.Node]:
    """Calls of ATen operators that depend on the inputs and give one float tensor."""
    variable: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or any(source in variable for source in node.all_input_nodes):
            variable.add(node)
            value = value_of(node)
            is_aten = str(node.target).startswith("aten.")
            if is_aten and value is not None and value.is_floating_point():
                yield node


def _names(chains: Sequence[list[fx.Node]]) -> list[str]:
    stacks = [_modules(chain[0]) for chain in chains]
    is_weighted = [is_call(chain[0], *WEIGHTED) for chain in chains]
    parents = {module for stack in stacks for module in stack[:-1]}
    # A convolution with its padding in a module of their own has that module's name.
    weighted = [stack for stack, heavy in zip(stacks, is_weighted, strict=True) if heavy]
    weighted_homes = {stack[-1] for stack in weighted if stack}
    weighted_parents = {module for stack in weighted for module in stack[:-1]}
    operators = Counter(operator_name(chain[0]) for chain in chains)
    counts: Counter[str] = Counter()
    names = []
    for chain, stack, heavy in zip(chains, stacks, is_weighted, strict=True):
        home, operator = stack[-1] if stack else "", operator_name(chain[0])
        taken = weighted_parents if heavy else parents | weighted_homes
        name = home if home not in taken else f"{home}.{operator}"
        name = name or operator
        counts[name] += 1
        # An operator outside of any module must not be taken for all operators of that name.
        ambiguous = name == operator and operators[operator] > 1
        names.append(f"{name}:{counts[name]}" if ambiguous or counts[name] > 1 else name)
    return names


def _modules(node: fx.Node) -> tuple[str, ...]:
    paths = (entry[0] for entry in node.meta.get("nn_module_stack", {}).values())
    return tuple(path for path in paths if path)
