"""A Program as one XNNPACK delegate for ExecuTorch, without tracing the network.

ExecuTorch's own way to a ``.pte`` file retraces the network about sixty times, and finds out again
what is quantized how. A Program says it, so its XNNPACK graph is written down as it is.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch._higher_order_ops.executorch_call_delegate import executorch_call_delegate

from pyquant.errors import UnsupportedError
from pyquant.ir.program import DType, Program
from pyquant.mobile.executorch import exported, needed_for_pte
from pyquant.mobile.quiet import quiet
from pyquant.mobile.xnnpack_graph import XnnpackGraph
from pyquant.mobile.xnnpack_nodes import RULES
from pyquant.mobile.xnnpack_translation import Translation
from pyquant.targets.program_module import ProgramModule


class DelegatedModule(nn.Module):
    """Calls a delegate that computes a whole Program; for ``torch.export``, which cannot run it.

    Args:
        program: A Program with float32 inputs and outputs.
        example_inputs: float32, NCHW if rank 4: the shapes that the delegate takes,
        largest_batch: or any batch up to this.

    Raises:
        UnsupportedError: XNNPACK has no form of an operator; the message names the layer.
        ExportError: ExecuTorch is missing.
    """

    def __init__(
        self,
        program: Program,
        example_inputs: tuple[Tensor, ...],
        largest_batch: int | None = None,
    ) -> None:
        super().__init__()
        shapes = _shapes(program, example_inputs)
        outputs = _Outputs([shapes[index] for index in program.outputs])
        if largest_batch is not None:
            shapes = {index: (largest_batch, *shape[1:]) for index, shape in shapes.items()}
        with quiet(), needed_for_pte():
            content = _graph(program, shapes, largest_batch is not None).to_bytes()
            lowered: Any = importlib.import_module("executorch.exir.lowered_backend_module")
            stub = exported(outputs, example_inputs, largest_batch)
        self.delegate = lowered.LoweredBackendModule(stub, "XnnpackBackend", content, [])

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The Program's inputs to its outputs."""
        outputs = executorch_call_delegate(self.delegate, *inputs)
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


class _Outputs(nn.Module):
    """Gives outputs of the right shapes for any batch: all that an export asks of a delegate."""

    def __init__(self, shapes: list[tuple[int, ...]]) -> None:
        super().__init__()
        self.shapes = shapes

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Zeros."""
        batch = inputs[0].shape[0]
        return tuple(inputs[0].new_zeros((batch, *shape[1:])) for shape in self.shapes)


def _graph(
    program: Program, shapes: Mapping[int, tuple[int, ...]], any_batch: bool
) -> XnnpackGraph:
    graph = XnnpackGraph()
    to = Translation(program, graph, shapes, any_batch)
    ends = [*program.inputs, *program.outputs]
    if len(set(ends)) < len(ends):
        raise UnsupportedError("XNNPACK wants every input and output to be another tensor")
    if any(program.tensors[index].dtype != DType.float32 for index in ends):
        raise UnsupportedError("an input or an output is not float32")
    to.values.update((index, graph.input(shapes[index])) for index in program.inputs)
    to.values.update((index, graph.output(shapes[index])) for index in program.outputs)
    for node in program.nodes:
        rule = RULES.get(type(node.op))
        try:
            if rule is None:
                raise UnsupportedError(f"XNNPACK has no {type(node.op).__name__}")
            rule(to, node)
        except UnsupportedError as error:
            raise UnsupportedError(f"layer {node.name}: {error}") from error
    return graph


def _shapes(program: Program, inputs: tuple[Tensor, ...]) -> dict[int, tuple[int, ...]]:
    """Of the activations, for inputs of other shapes than the Program was made with, too."""
    found = ProgramModule(program).intermediates(*inputs)
    return {
        **{index: tuple(x.shape) for index, x in zip(program.inputs, inputs, strict=True)},
        **{
            node.output: tuple(value.values.shape)
            for node, value in zip(program.nodes, found, strict=True)
        },
    }
