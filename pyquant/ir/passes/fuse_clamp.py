"""A clamp that follows an operator with clamp bounds of its own narrows those."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pyquant.ir.ops import Add, Conv2d, Linear, LookupTable, Mul
from pyquant.ir.program import Program


def fuse_clamp(program: Program) -> Program:
    """Removes lookup tables that only clamp, without a change of qparams, where the operator in
    front has no other reader.
    """
    producers = {node.output: node for node in program.nodes}
    kept = []
    for node in program.nodes:
        bounds = _clamp_bounds(node.op)
        producer = producers.get(node.inputs[0])
        if (
            bounds is None
            or producer is None
            or not isinstance(producer.op, (Conv2d, Linear, Add, Mul))
            or not program.same_qparams(node.inputs[0], node.output)
            or len(program.consumers(producer.output)) != 1
            or producer.output in program.outputs
        ):
            kept.append(node)
            continue
        low, high = bounds
        producer.op = replace(
            producer.op,
            output_min=min(max(producer.op.output_min, low), high),
            output_max=max(min(producer.op.output_max, high), low),
        )
        producer.output = node.output
        producers[node.output] = producer
    program.nodes = kept
    return program


def _clamp_bounds(op: object) -> tuple[int, int] | None:
    if not isinstance(op, LookupTable):
        return None
    values = np.frombuffer(op.values, np.uint8)
    low, high = int(values[0]), int(values[-1])
    clamped = np.clip(np.arange(op.TABLE_SIZE), low, high)
    return (low, high) if np.array_equal(values, clamped) else None
