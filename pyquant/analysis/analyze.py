"""``analyze``: a quantized model against its float model, layer by layer and target by target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from pyquant.analysis.analysis import Analysis, LayerAnalysis
from pyquant.analysis.edges import layer_inputs
from pyquant.analysis.qdq_source import QdqSource
from pyquant.analysis.reference import Reference
from pyquant.analysis.runtime_source import RuntimeSource
from pyquant.analysis.sensitivity import Sensitivity
from pyquant.analysis.sqnr import ErrorSums
from pyquant.analysis.statistics import ActivationStatistics, weight_statistics
from pyquant.analysis.targets import Comparison, Target, latencies
from pyquant.analysis.values import ValueSource, float_values, matched
from pyquant.capture.node import arguments, get_constant, shape_of
from pyquant.errors import CalibrationError, InvalidInputError
from pyquant.ir.serialize import to_bytes
from pyquant.progress import tracked
from pyquant.quantization.named_layers import Layer
from pyquant.targets import QuantizedModule


def analyze_model(
    model: nn.Module,
    quantized: QuantizedModule | fx.GraphModule,
    data: object,
    *,
    own: bool,
    targets: Sequence[Target],
    transform: Callable[[Any], Any] | None,
    latency: bool,
    progress: bool,
    name: str | None,
) -> Analysis:
    """See :func:`pyquant.analyze`."""
    graph = quantized if isinstance(quantized, fx.GraphModule) else quantized.graph
    source: ValueSource = (
        QdqSource(quantized) if isinstance(quantized, fx.GraphModule) else RuntimeSource(quantized)
    )
    reference = Reference(model, _examples(quantized), source.names)
    layers = [_LayerSums(layer, source) for layer in reference.layers]
    solo = Sensitivity(reference.runner, source, reference.layers) if own else None
    comparisons = [
        Comparison(target) for target in [*_own_targets(reference, quantized, graph), *targets]
    ]
    names = [comparison.target.name for comparison in comparisons]
    if len(set(names)) != len(names):
        raise InvalidInputError(f"two targets have one name: {', '.join(names)}")
    first: tuple[Tensor, ...] | None = None
    samples = 0

    def steps() -> Iterator[None]:
        nonlocal first, samples
        for index, inputs in enumerate(reference.batches(data, transform)):
            first = inputs if first is None else first
            samples += len(inputs[0])
            _compare_layers(reference, source, layers, inputs, index)
            yield
            if solo is not None:
                yield from solo.add(inputs)
            floats, *others = comparisons
            expected = floats.target.outputs(inputs)
            floats.add(expected, expected)
            for comparison in others:
                comparison.add(expected, comparison.target.outputs(inputs))
                yield

    for _ in tracked(steps(), "Analyzing", show=progress):
        pass
    if first is None:
        raise CalibrationError("there is no data to analyze the model with")
    seconds: Mapping[str, float] = {}
    if latency:
        count = 1 if reference.takes_any_batch else reference.example_batch
        sample = [value[:count].contiguous() for value in first]
        seconds = latencies([comparison.target for comparison in comparisons], sample)
    own_sqnr = {} if solo is None else solo.result()
    inputs_of = layer_inputs(reference.layers)
    return Analysis(
        model=name or _name(model, quantized),
        samples=samples,
        layers=tuple(sums.result(reference.module, own_sqnr, inputs_of) for sums in layers),
        targets=tuple(
            comparison.result(seconds.get(comparison.target.name)) for comparison in comparisons
        ),
    )


class _LayerSums:
    """What is known of a layer so far."""

    def __init__(self, layer: Layer, source: ValueSource) -> None:
        self.layer = layer
        self.errors = ErrorSums()
        self.output = ActivationStatistics(source.grids.get(layer.last.name))
        self._int8 = source.is_int8(layer)
        self._scales = source.weight_scales(layer)

    def add(self, expected: Tensor, actual: Tensor) -> None:
        self.errors.add(expected, actual)
        self.output.add(expected)

    def result(
        self,
        module: fx.GraphModule,
        own_sqnr: Mapping[str, float],
        inputs_of: Mapping[str, tuple[str, ...]],
    ) -> LayerAnalysis:
        layer = self.layer
        weight, bias = get_constant(module, layer.weight), get_constant(module, layer.bias)
        rows = None if weight is None else _output_rows(layer, weight)
        parameters = [value for value in (weight, bias) if value is not None]
        return LayerAnalysis(
            name=layer.name,
            operator=" + ".join(layer.operators),
            output_shape=shape_of(layer.last) or (),
            int8=self._int8,
            multiply_adds=_multiply_adds(layer, weight),
            parameter_bytes=sum(4 * value.numel() for value in parameters),
            sqnr=self.errors.sqnr,
            own_sqnr=own_sqnr.get(layer.name),
            output=self.output.result(),
            weight=None if rows is None else weight_statistics(rows, self._scales),
            inputs=inputs_of[layer.name],
            nodes=tuple(node.name for node in layer.nodes),
        )


def _compare_layers(
    reference: Reference,
    source: ValueSource,
    layers: Sequence[_LayerSums],
    inputs: Sequence[Tensor],
    index: int,
) -> None:
    by_name = {sums.layer.last.name: sums for sums in layers}
    expected = float_values(reference.runner, inputs)
    for name, truth, found in matched(expected, source.values(inputs), by_name):
        layer = by_name[name].layer
        if not all(math.isfinite(bound) for bound in torch.aminmax(truth)):
            raise InvalidInputError(
                f"batch {index}: NaN or infinite values arise in the float model, first in layer "
                f"'{layer.name}'"
            )
        if truth.shape != found.shape:
            raise InvalidInputError(
                f"layer '{layer.name}' gives {list(truth.shape)} in the float model and "
                f"{list(found.shape)} in the quantized one: they are not the same model"
            )
        by_name[name].add(truth, found)


def _own_targets(
    reference: Reference, quantized: QuantizedModule | fx.GraphModule, graph: fx.GraphModule | None
) -> Iterator[Target]:
    """The float model, and what the quantized one runs as without any file."""
    fixed = None if reference.takes_any_batch else reference.example_batch
    yield Target("float model", reference.module, reference.constant_bytes, fixed)
    if graph is not None:
        yield Target("q/dq graph", graph, None, fixed)
    if isinstance(quantized, QuantizedModule):
        program = quantized.program
        if program is None:
            yield Target("Programs and ATen", quantized, None, fixed)
        else:
            yield Target("Program", quantized, len(to_bytes(program)), fixed)


def _examples(quantized: QuantizedModule | fx.GraphModule) -> tuple[Tensor, ...]:
    """Zeros of the shapes and dtypes of the quantized model's example inputs."""
    graph = quantized if isinstance(quantized, fx.GraphModule) else quantized.graph
    if graph is not None:
        values = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
        return tuple(torch.zeros(value.shape, dtype=value.dtype) for value in values)
    assert isinstance(quantized, QuantizedModule) and quantized.program is not None
    program = quantized.program
    inputs = [program.tensors[index] for index in program.inputs]
    return tuple(
        torch.zeros(tensor.shape, dtype=getattr(torch, tensor.dtype.name)) for tensor in inputs
    )


def _name(model: nn.Module, quantized: QuantizedModule | fx.GraphModule) -> str:
    program = quantized.program if isinstance(quantized, QuantizedModule) else None
    if program is not None and program.name != "program":
        return program.name
    return type(model).__name__


def _output_rows(layer: Layer, weight: Tensor) -> Tensor:
    """The weight with its output channels first; a grouped transposed convolution's group by
    group.
    """
    if layer.output_axis == 0:
        return weight
    groups = arguments(layer.first)["groups"]
    inputs, outputs = weight.shape[0] // groups, weight.shape[1]
    by_group = weight.reshape(groups, inputs, outputs, -1).transpose(1, 2)
    return by_group.reshape(groups * outputs, -1)


def _multiply_adds(layer: Layer, weight: Tensor | None) -> int:
    """Of a convolution or linear layer, for the example inputs."""
    if weight is None:
        return 0
    if layer.output_axis == 1:  # every input meets the whole kernel of its group
        return math.prod(shape_of(layer.first.args[0]) or ()) * math.prod(weight.shape[1:])
    return math.prod(shape_of(layer.first) or ()) * math.prod(weight.shape[1:])
