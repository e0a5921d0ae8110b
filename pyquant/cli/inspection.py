"""``pyquant inspect``: what a model.pyq holds."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from pyquant.cli.console import megabytes, new_table, show

if TYPE_CHECKING:
    from rich.table import Table

    from pyquant.ir.program import Program


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def inspect(file: Path) -> None:
    """Show the inputs, outputs and operators of FILE (.pyq)."""
    import pyquant
    from pyquant.ir.cost import multiply_adds
    from pyquant.ir.serialize import load

    program = load(file)
    engines = pyquant.load(file).programs[0].node_engines
    show(_interface(program))
    show(_nodes(program, engines))
    work = sum(multiply_adds(program, node) for node in program.nodes)
    constants = sum(tensor.data.nbytes for tensor in program.tensors if tensor.data is not None)
    show(
        f"{len(program.nodes)} nodes, {work / 1e6:.1f} M multiply-adds, constants "
        f"{megabytes(constants)}, file {megabytes(file.stat().st_size)}"
    )
    used = ", ".join(f"{name} {count}" for name, count in Counter(engines).most_common())
    show(f"engines here: {used} (of {', '.join(pyquant.engines())})")
    if program.metadata:
        show(f"metadata: {escape(json.dumps(program.metadata, indent=2))}")


def _interface(program: Program) -> Table:
    from pyquant.cli.program_stats import quantized_form, shape_text
    from pyquant.ir.program import DType

    columns = ("", "name", "type", "shape", "as uint8, covers", "scale", "zero")
    table = new_table(
        escape(program.name), *columns, right=("scale", "zero"), whole=("", "type", "shape")
    )
    for role, indices in (("input", program.inputs), ("output", program.outputs)):
        for index in indices:
            tensor, quantized = program.tensors[index], quantized_form(program, index)
            cells = [role, escape(tensor.name), tensor.dtype.name, shape_text(tensor)]
            if quantized.dtype == DType.uint8:
                scale, zero = float(quantized.scale.reshape(-1)[0]), quantized.zero_point
                covered = f"{-zero * scale:.4g} to {(255 - zero) * scale:.4g}"
                cells += [covered, f"{scale:.4g}", str(zero)]
            table.add_row(*cells)
    return table


def _nodes(program: Program, engines: list[str]) -> Table:
    from pyquant.cli.program_stats import shape_text
    from pyquant.ir.cost import constant_bytes, multiply_adds

    right = ("#", "scale", "zero", "M MAC", "weights")
    columns = ("#", "operator", "name", "output", "scale", "zero", "M MAC", "weights", "engine")
    table = new_table("Operators", *columns, right=right, whole=("operator", "output", "engine"))
    for position, (node, engine) in enumerate(zip(program.nodes, engines, strict=True)):
        work, size = multiply_adds(program, node), constant_bytes(program, node)
        output = program.tensors[node.output]
        quantized = output.scale.size > 0
        table.add_row(
            str(position),
            type(node.op).__name__,
            escape(node.name),
            shape_text(output),
            f"{float(output.scale.reshape(-1)[0]):.3g}" if quantized else "float",
            str(output.zero_point) if quantized else "",
            f"{work / 1e6:.2f}" if work else "",
            megabytes(size) if size else "",
            engine,
        )
    return table
