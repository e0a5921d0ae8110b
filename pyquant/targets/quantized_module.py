"""What ``pyquant.quantize``, ``lower`` and ``load`` return."""

from __future__ import annotations

import operator
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from pyquant.errors import LoweringError
from pyquant.ir.lower import FloatOperator, LoweredGraph
from pyquant.ir.program import Program
from pyquant.ir.serialize import save
from pyquant.targets.exported_file import save_exported
from pyquant.targets.program_module import ProgramModule


class QuantizedModule(nn.Module):
    """A quantized model, called like the float model that it was made from.

    Attributes:
        programs: The int8 parts that run in pyquant's runtime.
        float_operators: Operators that stayed float32, and why; empty for a whole Program.
        graph: The q/dq graph that the model was lowered from, for other targets; ``None`` if it
            was loaded from a ``.pyq``.
    """

    def __init__(
        self,
        module: nn.Module,
        programs: Sequence[ProgramModule],
        float_operators: Sequence[FloatOperator] = (),
        graph: GraphModule | None = None,
        output_spec: pytree.TreeSpec | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.programs = list(programs)
        self.float_operators = list(float_operators)
        # Out of nn.Module's sight: its parameters are not this module's.
        object.__setattr__(self, "graph", graph)
        self._output_spec = output_spec
        self.eval()

    graph: GraphModule | None

    @property
    def program(self) -> Program | None:
        """The Program, if all of the model is one; else ``None``."""
        return self.module.program if isinstance(self.module, ProgramModule) else None

    @property
    def engine(self) -> str:
        """The engine of the Programs; assign a name of ``pyquant.engines()`` to change it."""
        return self.programs[0].engine

    @engine.setter
    def engine(self, name: str) -> None:
        for module in self.programs:
            module.engine = name

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """int8 inference.

        Raises:
            InvalidInputError: An input has a wrong dtype or shape.
        """
        if not isinstance(self.module, ProgramModule):
            with torch.inference_mode():
                return self.module(*args, **kwargs)
        outputs = self.module(*pytree.tree_leaves((args, kwargs)))
        if self._output_spec is not None:
            return pytree.tree_unflatten(list(outputs), self._output_spec)
        return outputs[0] if len(outputs) == 1 else outputs

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes ``model.pyq`` or, if part of the model stayed float32, ``model.pt2``, atomically.

        A ``.pyq`` holds one whole Program, for Python and C++. A ``.pt2`` is torch.export's format,
        with the Programs as constants, for Python.

        Raises:
            LoweringError: The path's ending does not fit the model, or it cannot be exported.
            IoError: The file cannot be written.
        """
        exported, program = Path(path).suffix == ".pt2", self.program
        if exported and isinstance(self.module, GraphModule):
            save_exported(self.module, self.float_operators, path)
        elif exported:
            raise LoweringError(f"{path}: the model is one whole Program; save it as .pyq")
        elif program is None:
            raise LoweringError(
                "only a model that is one whole Program can be saved as .pyq; these operators "
                "stayed float32:\n  " + self._float_report() + "\nSave it as .pt2 for Python; or "
                "rewrite them with operators that pyquant quantizes, or move them out of the model "
                "(before or behind it)."
            )
        else:
            save(program, path)

    def _float_report(self) -> str:
        return "\n  ".join(str(stayed) for stayed in self.float_operators)

    def extra_repr(self) -> str:
        """For ``print``."""
        return f"programs={len(self.programs)}, float_operators={len(self.float_operators)}"


def assemble(lowered: LoweredGraph, engine: str = "auto") -> QuantizedModule:
    """The runnable model of a lowered graph.

    Raises:
        UnsupportedError: There is no such engine.
    """
    graph = lowered.module
    outputs = _flat_outputs(graph)
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    used = [part for part in lowered.programs if part.outputs]
    whole = (
        len(used) == 1
        and not lowered.float_operators
        and used[0].inputs == placeholders
        and set(used[0].outputs) == set(outputs)
    )
    if not whole:
        return _assemble_mixed(lowered, engine)
    part = used[0]
    # The graph's outputs may come in another order, or one of them twice.
    part.program.outputs = [part.program.outputs[part.outputs.index(node)] for node in outputs]
    module = ProgramModule(part.program, engine)
    spec = getattr(getattr(graph.graph._codegen, "pytree_info", None), "out_spec", None)
    return QuantizedModule(module, [module], graph=graph, output_spec=spec)


def _flat_outputs(graph: GraphModule) -> list[torch.fx.Node]:
    output = next(node for node in graph.graph.nodes if node.op == "output")
    return [leaf for leaf in pytree.tree_leaves(output.args[0]) if isinstance(leaf, torch.fx.Node)]


def _assemble_mixed(lowered: LoweredGraph, engine: str) -> QuantizedModule:
    """A GraphModule of ATen nodes and Programs, depth by depth."""
    source = lowered.module
    graph = torch.fx.Graph()
    root: dict[str, Any] = {}
    copied: dict[torch.fx.Node, torch.fx.Node] = {}
    modules: list[ProgramModule] = []
    for node in source.graph.nodes:
        if node.op == "placeholder":
            copied[node] = graph.node_copy(node)
    for aten, part in zip(lowered.aten, lowered.programs, strict=True):
        for node in aten:
            copied[node] = graph.node_copy(node, copied.__getitem__)
            if node.op in ("get_attr", "call_module"):
                root[str(node.target)] = operator.attrgetter(str(node.target))(source)
        if not part.outputs:
            continue
        name = f"program_{len(modules)}"
        modules.append(ProgramModule(part.program, engine))
        root[name] = modules[-1]
        call = graph.call_module(name, tuple(copied[node] for node in part.inputs))
        for index, node in enumerate(part.outputs):
            copied[node] = graph.call_function(operator.getitem, (call, index))
    output = next(node for node in source.graph.nodes if node.op == "output")
    graph.node_copy(output, copied.__getitem__)
    graph.set_codegen(source.graph._codegen)
    module = GraphModule(root, graph)
    return QuantizedModule(module, modules, lowered.float_operators, graph=source)
