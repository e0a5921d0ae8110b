"""Lookup tables that change nothing."""

from __future__ import annotations

from pyquant.ir.ops import LookupTable
from pyquant.ir.program import Program

_IDENTITY = LookupTable(bytes(range(LookupTable.TABLE_SIZE)))


def remove_identity(program: Program) -> Program:
    """Removes identities between equal qparams; readers read their input instead."""
    replaced: dict[int, int] = {}
    kept = []
    for node in program.nodes:
        node.inputs = [replaced.get(index, index) for index in node.inputs]
        same_qparams = program.same_qparams(node.inputs[0], node.output)
        if node.op == _IDENTITY and same_qparams and node.output not in program.outputs:
            replaced[node.output] = node.inputs[0]
        else:
            kept.append(node)
    program.nodes = kept
    return program
