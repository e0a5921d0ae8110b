"""``PyquantQuantizer``: walks the pattern table over a captured graph."""

from __future__ import annotations

from collections.abc import Iterable

from torch import fx

from pyquant.capture.node import is_float
from pyquant.errors import QuantizationError
from pyquant.quantization import pt2e
from pyquant.quantization.annotate import (
    Specs,
    is_annotated,
    is_quantized_input,
    is_quantized_output,
)
from pyquant.quantization.config import QuantizationConfig
from pyquant.quantization.named_layers import find_layers, select_layers
from pyquant.quantization.patterns import PATTERNS, Pattern


class PyquantQuantizer(pt2e.Quantizer):  # type: ignore[misc]
    """A PT2E quantizer for graphs that ``pyquant.capture.capture`` made.

    Args:
        config: Observers and weight scales; the default config if ``None``.
        patterns: The table to use.
    """

    def __init__(
        self,
        config: QuantizationConfig | None = None,
        patterns: Iterable[Pattern] = PATTERNS,
    ) -> None:
        super().__init__()
        self.config = config or QuantizationConfig()
        self.patterns = tuple(patterns)

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        """Marks what is to be quantized in ``node.meta``; returns ``model``.

        First the operators that gain by it, in graph order; then, until nothing changes, those
        that are quantized only beside another quantized operator.

        Raises:
            QuantizationError: The config keeps something float that the graph does not hold.
        """
        config = self.config
        layers = find_layers(model.graph, self.patterns)
        kept = {node for layer in select_layers(layers, config.keep_float) for node in layer.nodes}
        nodes = [node for node in model.graph.nodes if node not in kept]
        specs = Specs(
            activation=config.activation_spec(),
            weight=config.weight_spec(),
            transposed_weight=config.weight_spec(axis=1),
            activation_within=config.activation_spec,
        )
        rows: dict[object, list[Pattern]] = {}
        for row in self.patterns:
            rows.setdefault(row.anchor, []).append(row)
        for node in nodes:
            self._annotate_node(node, rows.get(node.target, []), specs, on_demand=False)
        changed = True
        while changed:
            changed = False
            for node in nodes:
                candidates = rows.get(node.target, [])
                changed |= self._annotate_node(node, candidates, specs, on_demand=True)
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Checks the annotated graph.

        Raises:
            QuantizationError: Nothing in the graph is quantized, or an annotation asks for a
                value that is not float32 (the message names the node).
        """
        annotated = [node for node in model.graph.nodes if is_annotated(node)]
        if not annotated:
            anchors = ", ".join(sorted({str(row.anchor).split(".")[1] for row in self.patterns}))
            kept = ", or all of them are kept float" if self.config.keep_float else ""
            raise QuantizationError(
                f"the model holds no operator that pyquant quantizes (it quantizes {anchors}){kept}"
            )
        for node in annotated:
            for source in (node, *node.meta[pt2e.ANNOTATION_KEY].input_qspec_map):
                if not is_float(source):
                    raise QuantizationError(f"node '{source.name}' is quantized but not float32")

    def _annotate_node(
        self, node: fx.Node, rows: list[Pattern], specs: Specs, *, on_demand: bool
    ) -> bool:
        if is_annotated(node):
            return False
        for row in rows:
            if row.on_demand != on_demand:
                continue
            chain = row.match(node)
            if chain is None or any(is_annotated(member) for member in chain):
                continue
            if (not on_demand or _is_beside_quantized(chain)) and row.annotator(chain, specs):
                return True
        return False


def _is_beside_quantized(chain: list[fx.Node]) -> bool:
    if any(is_quantized_output(source) for source in chain[0].all_input_nodes):
        return True
    return any(is_quantized_input(chain[-1], user) for user in chain[-1].users)
