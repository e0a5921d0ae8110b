"""Quantized models as ``.pt2`` files: torch.export's format, with Programs as constants.

This is for models that are mixed with float operators, which a ``.pyq`` cannot hold. With
``import pyquant``, ``torch.export.load`` opens such a file, too.
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from pyquant.capture.quiet import quiet
from pyquant.errors import InvalidProgramError, IoError, LoweringError
from pyquant.ir.lower import FloatOperator
from pyquant.targets.embedded_program import (
    EmbeddedProgram,
    program_of,
)
from pyquant.targets.program_module import ProgramModule
from pyquant.write_file import write_file

#: The file inside of the ``.pt2`` that says what stayed float32, and why.
_REPORT = "pyquant.json"


def save_exported(
    module: GraphModule, float_operators: list[FloatOperator], path: str | os.PathLike[str]
) -> None:
    """Writes a ``.pt2``, atomically.

    The batch of the inputs (their first dimensions) may differ from the example's if all operators
    of the model allow that; other dimensions are the example's.

    Args:
        module: A graph of ATen operators and Programs.
        float_operators: What :func:`load_exported` shall return of them.
        path: Where to.

    Raises:
        LoweringError: The model cannot be exported: its graph lacks the example's shapes.
        IoError: The file cannot be written.
    """
    with quiet():
        exported = _export(*_embedded(module))
        file = io.BytesIO()
        report = json.dumps([vars(operator) for operator in float_operators])
        torch.export.save(exported, file, extra_files={_REPORT: report})
    write_file(path, file.getvalue())


def _embedded(module: GraphModule) -> tuple[GraphModule, tuple[Any, ...], dict[str, Any]]:
    """A copy of the module that can be exported, and example inputs."""
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    if not all(isinstance(node.meta.get("val"), Tensor) for node in placeholders):
        raise LoweringError(
            "the graph's inputs have no shapes; lower a graph that torch.export made"
        )
    inputs = [_zeros_like(node.meta["val"]) for node in placeholders]
    copy = GraphModule(module, module.graph)
    for name, child in list(copy.named_children()):
        if isinstance(child, ProgramModule):
            setattr(copy, name, EmbeddedProgram(child))
    codegen: Any = module.graph._codegen
    args, kwargs = pytree.tree_unflatten(inputs, codegen.pytree_info.in_spec)
    return copy, args, kwargs


def _zeros_like(fake: Tensor) -> Tensor:
    """A real tensor of the example's shape, where sizes may be symbols."""
    sizes = [size if isinstance(size, int) else int(size.node.hint) for size in fake.shape]
    return torch.zeros(sizes, dtype=fake.dtype)


def _export(module: GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExportedProgram:
    """For any batch if that can be; else for the example's."""

    def twice(x: Tensor) -> Tensor:  # a batch of 1 would be taken for a constant
        return torch.cat([x, x]) if x.dim() else x

    more = pytree.tree_map_only(Tensor, twice, (args, kwargs))
    free = pytree.tree_map_only(Tensor, lambda x: {0: Dim.AUTO} if x.dim() else {}, (args, kwargs))
    try:
        return torch.export.export(module, *more, dynamic_shapes=(*free[0], *free[1].values()))
    except Exception:  # there is no class for what torch.export raises
        return torch.export.export(module, args, kwargs)


def load_exported(
    path: str | os.PathLike[str], engine: str = "auto"
) -> tuple[GraphModule, list[ProgramModule], list[FloatOperator]]:
    """Reads what :func:`save_exported` wrote.

    Returns:
        The graph, the Programs in it, and the operators that stayed float32.

    Raises:
        IoError: The file cannot be read.
        InvalidProgramError: It is no exported model, or has no Program.
        UnsupportedError: There is no such engine.
    """
    extra = {_REPORT: ""}
    try:
        file = io.BytesIO(Path(path).read_bytes())
    except OSError as error:
        raise IoError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        with quiet():
            exported = torch.export.load(file, extra_files=extra).module(check_guards=False)
        report = [FloatOperator(**entry) for entry in json.loads(extra[_REPORT] or "[]")]
    except Exception as error:  # zip, pickle, JSON and schema errors alike
        raise InvalidProgramError(f"{path} is no exported model: {error}") from error
    programs = _restore_programs(exported, engine)
    if not programs:
        raise InvalidProgramError(f"{path} has no Program in it: pyquant did not write it")
    # A new one, because torch's pins the example's shapes and refuses eval().
    return GraphModule(exported, exported.graph), programs, report


def _restore_programs(graph: GraphModule, engine: str) -> list[ProgramModule]:
    """Puts modules into the place of the operators that run Programs."""
    calls = [
        node for node in graph.graph.nodes if node.target is torch.ops.pyquant.run_program.default
    ]
    modules = []
    for index, call in enumerate(calls):
        data, inputs, _ = call.args
        modules.append(program_of(graph.get_buffer(str(data.target)), engine))
        name = f"restored_{index}"
        graph.add_module(name, modules[-1])
        with graph.graph.inserting_before(call):
            call.replace_all_uses_with(graph.graph.call_module(name, tuple(inputs)))
        graph.graph.erase_node(call)
        graph.graph.erase_node(data)
    return modules
