"""Nodes and tensors that nothing reads."""

from __future__ import annotations

from pyquant.ir.program import Program


def remove_dead(program: Program) -> Program:
    """Removes nodes whose results reach no output, then tensors of no node, and renumbers."""
    live = set(program.outputs)
    kept = []
    for node in reversed(program.nodes):
        if node.output in live:
            live.update(node.inputs)
            kept.append(node)
    program.nodes = kept[::-1]
    live.update(program.inputs)

    numbers = {index: number for number, index in enumerate(sorted(live))}
    program.tensors = [program.tensors[index] for index in sorted(live)]
    program.inputs = [numbers[index] for index in program.inputs]
    program.outputs = [numbers[index] for index in program.outputs]
    for node in program.nodes:
        node.inputs = [numbers[index] for index in node.inputs]
        node.output = numbers[node.output]
    return program
