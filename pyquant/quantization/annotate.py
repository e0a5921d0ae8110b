"""The annotators: what the rows of the pattern table do with a match."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import fx

from pyquant.capture.node import arguments, is_float, shape_of
from pyquant.quantization import pt2e
from pyquant.quantization.config import REALS, Interval


@dataclass(frozen=True)
class Specs:
    """The torchao specs of one run; sharing works by their identity."""

    activation: Any
    weight: Any
    transposed_weight: Any
    activation_within: Callable[[Interval], Any]


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


def total(chain: list[fx.Node], specs: Specs) -> bool:
    """Sum of two activations of one shape, both quantized."""
    values = arguments(chain[0])
    return shape_of(values["self"]) == shape_of(values["other"]) and binary(chain, specs)


def binary(chain: list[fx.Node], specs: Specs) -> bool:
    """Sum or product of two activations of one rank, both quantized; dimensions of 1 may be
    repeated. Those with constants stay float.
    """
    values = arguments(chain[0])
    operands = [values["self"], values["other"]]
    shapes = [shape_of(operand) for operand in operands]
    if values.get("alpha", 1) != 1 or shapes[0] is None or shapes[1] is None:
        return False
    if len(shapes[0]) != len(shapes[1]):
        return False
    if any(operand.op == "get_attr" or not is_float(operand) for operand in operands):
        return False
    _annotate(chain, dict.fromkeys(operands, specs.activation), specs.activation)
    return True


def unary(interval: Interval = REALS) -> Annotator:
    """An elementwise function of one activation and constants of one element; one activation out,
    each with its own range.

    Args:
        interval: What the function distinguishes: below and above it is constant, to well within
            a step. An activation that nothing else reads needs no levels out there.
    """

    def annotate(chain: list[fx.Node], specs: Specs) -> bool:
        sources = [node for node in chain[0].all_input_nodes if node.op != "get_attr"]
        constants = [shape_of(node) for node in chain[0].all_input_nodes if node.op == "get_attr"]
        if len(sources) != 1 or any(shape is None or math.prod(shape) != 1 for shape in constants):
            return False
        (source,) = sources
        if shape_of(source) != shape_of(chain[-1]):
            return False
        if not (is_float(source) and is_float(chain[-1])):
            return False
        spec = specs.activation
        if interval != REALS and is_quantized_output(source) and len(source.users) == 1:
            annotation = source.meta[pt2e.ANNOTATION_KEY]
            if annotation.output_qspec is spec:  # and not one that it shares
                annotation.output_qspec = spec = specs.activation_within(interval)
        _annotate(chain, {source: spec}, specs.activation)
        return True

    return annotate


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


def spatial_maximum(chain: list[fx.Node], specs: Specs) -> bool:
    """The largest value of each channel of an image: as :func:`pass_through`."""
    values = arguments(chain[0])
    is_image = len(shape_of(values["self"]) or ()) == 4
    fits = is_image and list(values["dim"]) == [2, 3] and values["keepdim"]
    return bool(fits) and pass_through(chain, specs)


def reshape(chain: list[fx.Node], specs: Specs) -> bool:
    """As ``pass_through``, for up to four dimensions that keep the batch."""
    shapes = [shape_of(chain[0].args[0]), shape_of(chain[0])]
    if any(shape is None or not 2 <= len(shape) <= 4 for shape in shapes):
        return False
    return shapes[0][0] == shapes[1][0] and pass_through(chain, specs)  # type: ignore[index]


def _annotate(chain: list[fx.Node], inputs: dict[fx.Node, Any], output: Any) -> None:
    """Inputs at the first node of the chain, output at the last, nothing between."""
    for node in chain:
        node.meta[pt2e.ANNOTATION_KEY] = pt2e.QuantizationAnnotation(
            input_qspec_map=inputs if node is chain[0] else {},
            output_qspec=output if node is chain[-1] else None,
            _annotated=True,
        )
