"""The layers' values in the runtime."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, fx

from pyquant.analysis.graph_runner import GraphRunner
from pyquant.analysis.values import Grid, NamedValue, distinct_scales
from pyquant.capture.node import arguments
from pyquant.ir.ops import Quantize
from pyquant.ir.program import DType, Node, Program
from pyquant.ir.program import Tensor as ProgramTensor
from pyquant.quantization.named_layers import Layer
from pyquant.targets import ProgramModule, QuantizedModule


class RuntimeSource:
    """What really runs: Programs, and the ATen operators between them."""

    def __init__(self, model: QuantizedModule) -> None:
        self._module = model.module
        self._programs = [module.program for module in model.programs]
        self.grids: dict[str, Grid] = {}
        self.names: set[str] = set()
        self._nodes: dict[str, tuple[Program, Node]] = {}  # but those that only quantize
        for program in self._programs:
            self._read(program)
        if isinstance(self._module, fx.GraphModule):
            self.names.update(node.name for node in self._module.graph.nodes)

    def _read(self, program: Program) -> None:
        for node in program.nodes:
            output = program.tensors[node.output]
            if output.dtype == DType.uint8:
                grid = Grid(float(output.scale[0]), output.zero_point)
                self.grids.setdefault(node.name, grid)
            self.names.add(node.name)
            if not isinstance(node.op, Quantize):
                self._nodes.setdefault(node.name, (program, node))

    def values(self, inputs: Sequence[Tensor]) -> Iterator[NamedValue]:
        """See :class:`ValueSource`."""
        seen: set[str] = set()
        for name, value in self._all_values(inputs):
            if name not in seen:
                seen.add(name)
                yield name, value

    def _all_values(self, inputs: Sequence[Tensor]) -> Iterator[NamedValue]:
        if isinstance(self._module, ProgramModule):
            yield from _inside(self._module, inputs)
            return
        assert isinstance(self._module, fx.GraphModule)
        runner = GraphRunner(self._module)
        values = runner.start(inputs)
        for index in runner.run(values):
            node = runner.nodes[index]
            if node.op == "call_module":
                module = self._module.get_submodule(str(node.target))
                if isinstance(module, ProgramModule):
                    yield from _inside(module, [values[source] for source in node.args])  # type: ignore[index]
            elif isinstance(values[node], Tensor):
                yield node.name, values[node]

    def weight_scales(self, layer: Layer) -> tuple[float, ...]:
        """See :class:`ValueSource`."""
        weight = self._constant(layer, 1)
        return () if weight is None else distinct_scales(weight.scale)

    def is_int8(self, layer: Layer) -> bool:
        """See :class:`ValueSource`."""
        return layer.last.name in self._nodes

    def reads(self, layer: Layer) -> dict[str, Grid]:
        """See :class:`ValueSource`."""
        found: dict[str, Grid] = {}
        for argument in layer.first.all_input_nodes:
            if argument.op == "get_attr":
                continue
            source = argument
            # What is folded into this layer (a padding) had the grid of what it reads.
            while source.name not in self.names and source.all_input_nodes:
                source = source.all_input_nodes[0]
            if source.name not in self.grids:
                return {}
            found[argument.name] = self.grids[source.name]
        return found

    def constants(self, layer: Layer) -> dict[int, Tensor]:
        """See :class:`ValueSource`."""
        weight, bias = self._constant(layer, 1), self._constant(layer, 2)
        if layer.weight is None or weight is None or bias is None:
            return {}
        assert weight.data is not None and bias.data is not None
        (grid,) = self.reads(layer).values()
        scales = weight.scale.reshape(-1, *[1] * (weight.data.ndim - 1))
        rows = torch.from_numpy(weight.data * scales)
        offset = torch.from_numpy(bias.data * (weight.scale * np.float32(grid.scale))).float()
        return {1: _float_layout(layer, rows), 2: offset}

    def _constant(self, layer: Layer, position: int) -> ProgramTensor | None:
        """A constant operand of the layer's node."""
        program, node = self._nodes.get(layer.last.name, (None, None))
        if program is None or node is None or position >= len(node.inputs):
            return None
        tensor = program.tensors[node.inputs[position]]
        return tensor if tensor.is_constant else None


def _inside(module: ProgramModule, inputs: Sequence[Tensor]) -> Iterator[NamedValue]:
    for value in module.intermediates(*inputs):
        if value.operator != Quantize.__name__:
            yield value.name, value.dequantize()


def _float_layout(layer: Layer, rows: Tensor) -> Tensor:
    """A Program's weight ``[O, ...]``, channels last, as the float graph's layer has it."""
    if rows.dim() == 2:
        return rows
    if layer.output_axis == 0:
        return rows.permute(0, 3, 1, 2)
    groups = arguments(layer.first)["groups"]
    by_group = rows.reshape(groups, -1, *rows.shape[1:]).permute(0, 4, 1, 2, 3)
    return by_group.reshape(-1, *by_group.shape[2:])
