"""The values inside of a Program: the same with and without fused operators."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from lowering.nets import NETS
from programs import ProgramBuilder, branching_net, fully_convolutional, small_net, table
from torch import Tensor

import pyquant
from pyquant import _C
from pyquant.errors import InvalidInputError
from pyquant.ir import ops
from pyquant.ir.program import Program
from pyquant.ir.serialize import to_bytes
from pyquant.targets import Intermediate, ProgramModule


def fusing() -> Program:
    """A table and an addition, each behind a convolution: [1, 3, 8, 9] to [1, 5, 8, 9], float32."""
    build = ProgramBuilder(5)
    x = build.input(build.floats((1, 3, 8, 9), "image"))
    x = build.node(ops.Quantize(), [x], build.uint8((1, 8, 9, 3)))
    window = ops.Window(3, 3, 1, 1, 1, 1, 1, 1)
    x = build.conv(x, window, 5, (1, 8, 9, 5))
    x = build.node(table(4), [x], build.uint8((1, 8, 9, 5), 0.1, 9))
    y = build.conv(x, window, 5, (1, 8, 9, 5))
    x = build.node(ops.Add(3, 250), [x, y], build.uint8((1, 8, 9, 5), 0.2, 100))
    return build.finish(build.node(ops.Dequantize(), [x], build.floats((1, 5, 8, 9))))


PROGRAMS: dict[str, tuple[Callable[[], Program], tuple[int, ...]]] = {
    "one of each": (small_net, (1, 3, 8, 9)),
    "fusing": (fusing, (1, 3, 8, 9)),
    "branching": (branching_net, (1, 4, 5, 6)),
    "two outputs": (fully_convolutional, (2, 3, 12, 11)),
}


def run_fused(program: Program, engine: str, x: Tensor) -> dict[int, Tensor]:
    """What a session that fuses shows: the last node of each step."""
    session = _C.Session(_C.Program.from_bytes(to_bytes(program)), engine)
    return session.observe([x])


@pytest.mark.parametrize("engine", ["auto", "reference", "native", "fbgemm"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_fusing_changes_no_value(name: str, engine: str) -> None:
    make, shape = PROGRAMS[name]
    program, x = make(), torch.randn(shape)
    module = ProgramModule(program, engine)

    inside = module.intermediates(x)
    outputs = module(x)

    assert [value.name for value in inside] == [node.name for node in program.nodes]
    fused = run_fused(program, engine, x)
    if name == "fusing" and engine in ("auto", "native"):
        assert len(fused) == len(inside) - 2  # or nothing was fused
    for index, values in fused.items():
        assert torch.equal(values, inside[index].values)
    by_tensor = {node.output: value for node, value in zip(program.nodes, inside, strict=True)}
    for tensor, output in zip(program.outputs, outputs, strict=True):
        assert torch.equal(by_tensor[tensor].values, output)


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_engine_shows_the_values_of_the_reference(name: str) -> None:
    make, shape = PROGRAMS[name]
    program, x = make(), torch.randn(shape)

    expected = ProgramModule(program, "reference").intermediates(x)

    for engine in ("native", "fbgemm"):
        found = ProgramModule(program, engine).intermediates(x)
        for truth, value in zip(expected, found, strict=True):
            assert torch.equal(truth.values, value.values), (engine, truth.name)
            assert (truth.scale, truth.zero_point) == (value.scale, value.zero_point)


def test_views_of_an_input_are_shown() -> None:
    build = ProgramBuilder()
    x = build.input(build.uint8((1, 1, 1, 6)))
    x = build.node(ops.Flatten(), [x], build.uint8((1, 6)))
    y = build.node(ops.Reshape((3, 2)), [x], build.uint8((1, 3, 2)))
    program = build.finish(build.node(ops.Dequantize(), [y], build.floats((1, 3, 2))))
    values = torch.arange(6, dtype=torch.uint8)

    inside = ProgramModule(program).intermediates(values.reshape(1, 1, 1, 6))

    assert [tuple(value.values.shape) for value in inside] == [(1, 6), (1, 3, 2), (1, 3, 2)]
    assert all(torch.equal(value.values.flatten(), values) for value in inside[:2])
    assert torch.equal(inside[1].dequantize(), inside[2].values)


@pytest.mark.parametrize("name", NETS)
def test_the_values_are_those_of_the_graph(name: str) -> None:
    kind, inputs = NETS[name]
    prepared = pyquant.prepare(kind().eval(), inputs)
    pyquant.calibrate(prepared, [inputs], progress=False)
    graph = pyquant.convert(prepared)
    quantized = pyquant.lower(graph, whole=True)

    inside = quantized.programs[0].intermediates(*inputs)

    # Each operator against the graph's own, on the values that the Program itself gave to it.
    by_name = {value.name: value for value in inside if value.is_quantized}
    compared = 0
    for quantize in graph.graph.nodes:
        source = quantize.args[0] if "quantize_per_tensor" in str(quantize.target) else None
        if source is None or source.op != "call_function" or source.name not in by_name:
            continue
        expected = float_value(graph, source, by_name)
        found = by_name[source.name]
        step = found.scale
        clamped = expected.clamp(-found.zero_point * step, (255 - found.zero_point) * step)
        assert float((found.dequantize() - clamped).abs().max()) <= 1.01 * step
        compared += 1
    assert compared >= 2


def float_value(
    graph: torch.fx.GraphModule, node: torch.fx.Node, inside: dict[str, Intermediate]
) -> Tensor:
    """The value of ``node`` in float32, from the Program's values of the quantized tensors."""

    def value(argument: torch.fx.Node) -> Tensor:
        if argument.op == "get_attr":
            return getattr(graph, str(argument.target))
        if "dequantize_per_tensor" in str(argument.target) and argument.args[0].op != "get_attr":
            source = argument.args[0].args[0].name
            if source in inside:  # and not folded into the operator behind it
                return inside[source].dequantize()
        return float_value(graph, argument, inside)

    args = torch.fx.map_arg(node.args, value)
    kwargs = torch.fx.map_arg(node.kwargs, value)
    return node.target(*args, **kwargs)


def test_bad_inputs_are_explained() -> None:
    with pytest.raises(InvalidInputError, match="dimensions"):
        ProgramModule(small_net()).intermediates(torch.zeros(1, 3, 8))
