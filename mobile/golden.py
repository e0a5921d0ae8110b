"""The golden pair: inputs, and the outputs that every file of a bundle must give for them.

Both are raw little-endian float32, row-major, tensors one after the other in the manifest's
order, so that an app needs no parser.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyquant.errors import ExportError
from pyquant.ir import ops
from pyquant.ir.program import Program
from pyquant.mobile.manifest import TensorRecord

_SEED = 20_26


def to_bytes(tensors: Sequence[Tensor]) -> bytes:
    """The file's content for ``tensors`` (float32)."""
    return b"".join(
        tensor.detach().contiguous().numpy().astype("<f4").tobytes() for tensor in tensors
    )


def read(path: Path, records: Sequence[TensorRecord]) -> list[Tensor]:
    """The tensors in ``path``; raises :class:`ExportError` if its size does not fit ``records``."""
    values = np.frombuffer(path.read_bytes(), dtype="<f4").astype(np.float32)
    counts = [math.prod(record.shape) for record in records]
    if sum(counts) != values.size:
        raise ExportError(f"{path.name} holds {values.size} values instead of {sum(counts)}")
    parts = np.split(values, np.cumsum(counts)[:-1])
    return [
        torch.from_numpy(part.copy()).reshape(record.shape)
        for part, record in zip(parts, records, strict=True)
    ]


def random_inputs(program: Program) -> tuple[Tensor, ...]:
    """Inputs of the Program's shapes, the same every time, uniform over their quantized range."""
    generator = torch.Generator().manual_seed(_SEED)
    inputs = []
    for index in program.inputs:
        shape = program.tensors[index].shape
        grid = _input_grid(program, index)
        if grid is None:
            inputs.append(torch.randn(shape, generator=generator))
        else:
            scale, zero_point = grid
            steps = torch.randint(0, 256, shape, generator=generator) - zero_point
            inputs.append(steps.to(torch.float32) * scale)
    return tuple(inputs)


def on_grid(program: Program | None, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """``inputs`` rounded to what the Program makes of them, so that it answers the same.

    Off the grid a value may lie on a tie, and runtimes round ties differently: one pixel of a
    photo was seen to.
    """
    if program is None:
        return tuple(inputs)
    rounded = []
    for index, value in zip(program.inputs, inputs, strict=True):
        grid = _input_grid(program, index)
        if grid is not None:
            scale, zero_point = grid
            steps = torch.round(value * (1 / torch.tensor(scale))) + zero_point
            value = (steps.clamp(0, 255) - zero_point) * torch.tensor(scale)
        rounded.append(value)
    return tuple(rounded)


def input_steps(program: Program | None, inputs: Sequence[Tensor]) -> list[float]:
    """One step of each input: its scale, or the 255th part of its range if it has none."""
    steps = []
    for position, value in enumerate(inputs):
        grid = program and _input_grid(program, program.inputs[position])
        steps.append(grid[0] if grid else _range_step(value))
    return steps


def _input_grid(program: Program, index: int) -> tuple[float, int] | None:
    """Scale and zero_point that an input is quantized with, if all its readers agree."""
    grids = set()
    for node in program.consumers(index):
        if not isinstance(node.op, ops.Quantize):
            return None
        output = program.tensors[node.output]
        grids.add((float(output.scale.reshape(-1)[0]), output.zero_point))
    return grids.pop() if len(grids) == 1 else None


def _range_step(value: Tensor) -> float:
    return (max(value.max().item(), 0.0) - min(value.min().item(), 0.0)) / 255 or 1.0


def output_steps(program: Program | None, outputs: Sequence[Tensor]) -> list[float]:
    """What counts as one step of each output.

    The scale of the tensor that is dequantized into it; where the Program computes the output in
    float32 (or there is no Program), the 255th part of the range of ``outputs``.
    """
    steps = []
    for position, value in enumerate(outputs):
        step = _range_step(value)
        if program is not None:
            producer = program.producer(program.outputs[position])
            if producer is not None and isinstance(producer.op, ops.Dequantize):
                scale = program.tensors[producer.inputs[0]].scale.reshape(-1)
                step = float(scale[0]) if scale.size else step
        steps.append(step)
    return steps
