"""The annotators: what the rows of the pattern table do with a match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import fx

from pyquant.capture.node import arguments, is_float, shape_of
from pyquant.quantization import pt2e


@dataclass(frozen=True)
class Specs:
    """The torchao specs of one run; sharing works by their identity."""

    activation: Any
    weight: Any
    transposed_weight: Any


#: Takes the matched nodes, anchor first; returns whether they are annotated now.
Annotator: TypeAlias = Callable[[list[fx.Node], Specs], bool]


def is_annotated(node: fx.Node) -> bool:
    """Whether ``node`` belongs to a quantized pattern."""
    return pt2e.ANNOTATION_KEY in node.meta


def is_quantized_output(node: fx.Node) -> bool:
    """Whether the value of ``node`` is annotated to be quantized."""
    annotation = node.meta.get(pt2e.ANNOTATION_KEY)
    return annotation is not None and annotation.output_qspec is not None


def is_quantized_input(node: fx.Node, user: fx.Node) -> bool:
    """Whether ``user`` is annotated to read ``node`` quantized."""
    annotation = user.meta.get(pt2e.ANNOTATION_KEY)
    return annotation is not None and annotation.input_qspec_map.get(node) is not None


def weighted(chain: list[fx.Node], specs: Specs) -> bool:
    """Convolution or linear: activation, constant weight, float bias; one output at the end."""
    return _weighted(chain, specs.weight, specs)


def weighted_transposed(chain: list[fx.Node], specs: Specs) -> bool:
    """Transposed convolution: as :func:`weighted`, but the weight is ``[I, O / groups, ...]``."""
    return _weighted(chain, specs.transposed_weight, specs)


def _weighted(chain: list[fx.Node], weight_spec: Any, specs: Specs) -> bool:
    source, weight = chain[0].args[0], chain[0].args[1]
    if not isinstance(source, fx.Node) or not isinstance(weight, fx.Node):
        return False
    if weight.op != "get_attr" or not (is_float(source) and is_float(weight)):
        return False
    _annotate(chain, {source: specs.activation, weight: weight_spec}, specs.activation)
    return True


def binary(chain: list[fx.Node], specs: Specs) -> bool:
    """Sum of two activations of one shape, both quantized; sums with constants stay float."""
    values = arguments(chain[0])
    operands = [values["self"], values["other"]]
    if values.get("alpha", 1) != 1:
        return False
    for operand in operands:
        if not isinstance(operand, fx.Node) or operand.op == "get_attr" or not is_float(operand):
            return False
    if shape_of(operands[0]) is None or shape_of(operands[0]) != shape_of(operands[1]):
        return False
    _annotate(chain, dict.fromkeys(operands, specs.activation), specs.activation)
    return True


def unary(chain: list[fx.Node], specs: Specs) -> bool:
    """One activation in, one out, each with its own range."""
    source = chain[0].args[0]
    if not isinstance(source, fx.Node) or not (is_float(source) and is_float(chain[-1])):
        return False
    _annotate(chain, {source: specs.activation}, specs.activation)
    return True


def pass_through(chain: list[fx.Node], specs: Specs) -> bool:
    """One activation in, one out, with the same scale and zero point."""
    source = chain[0].args[0]
    if not isinstance(source, fx.Node) or not (is_float(source) and is_float(chain[-1])):
        return False
    shared = pt2e.SharedQuantizationSpec((source, chain[0]))
    _annotate(chain, {source: specs.activation}, shared)
    return True


def concat(chain: list[fx.Node], specs: Specs) -> bool:
    """Activations one after the other, all with the scale and zero point of the result."""
    sources = arguments(chain[0])["tensors"]
    if len(sources) < 2 or not all(is_float(source) for source in (*sources, chain[-1])):
        return False
    if any(source.op == "get_attr" for source in sources):
        return False
    shared = pt2e.SharedQuantizationSpec((sources[0], chain[0]))
    inputs = {**dict.fromkeys(sources, shared), sources[0]: specs.activation}
    _annotate(chain, inputs, shared)
    return True


def contiguous_slice(chain: list[fx.Node], specs: Specs) -> bool:
    """A slice without gaps: as :func:`pass_through`."""
    return arguments(chain[0])["step"] == 1 and pass_through(chain, specs)


def _annotate(chain: list[fx.Node], inputs: dict[fx.Node, Any], output: Any) -> None:
    """Inputs at the first node of the chain, output at the last, nothing between."""
    for node in chain:
        node.meta[pt2e.ANNOTATION_KEY] = pt2e.QuantizationAnnotation(
            input_qspec_map=inputs if node is chain[0] else {},
            output_qspec=output if node is chain[-1] else None,
            _annotated=True,
        )
