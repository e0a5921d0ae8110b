"""A Program inside of an exported graph: its bytes are a constant, one operator runs them."""

from __future__ import annotations

import re
from collections.abc import MutableMapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from pyquant.errors import InvalidInputError, InvalidProgramError
from pyquant.ir.program import Program
from pyquant.ir.serialize import from_bytes, to_bytes
from pyquant.targets.program_module import ProgramModule

#: What runs the Programs of graphs that were loaded without ``pyquant.load``, by their bytes.
_MODULES: MutableMapping[Tensor, ProgramModule] = WeakTensorKeyDictionary()


@torch.library.custom_op("pyquant::run_program", mutates_args=(), device_types="cpu")
def run_program(program: Tensor, inputs: Sequence[Tensor], outputs: str) -> list[Tensor]:
    """Runs the Program whose bytes (``model.pyq``) a uint8 tensor holds.

    Args:
        program: uint8 of one dimension; not to be written to.
        inputs: The Program's, with the batch as the first dimension of the first.
        outputs: What the Program gives, for those who trace it: e.g. ``"float32[1*n,1000]"``, one
            after the other, where ``n`` is the batch.

    Raises:
        InvalidProgramError: The bytes are no Program.
        InvalidInputError: An input has a wrong dtype, device or shape.
    """
    module = _MODULES.get(program)
    if module is None:
        module = _MODULES[program] = program_of(program)
    return list(module(*inputs))


@run_program.register_fake
def _(program: Tensor, inputs: Sequence[Tensor], outputs: str) -> list[Tensor]:
    batch = inputs[0].shape[0] if inputs and inputs[0].dim() else 1
    return [
        inputs[0].new_empty(
            [_size(size, batch) for size in sizes.split(",") if size], dtype=getattr(torch, dtype)
        )
        for dtype, sizes in re.findall(r"(\w+)\[([^]]*)\]", outputs)
    ]


def _size(text: str, batch: int) -> int:
    factor, star, _ = text.partition("*")
    return int(factor) * (batch if star else 1)


def program_of(data: Tensor, engine: str = "auto") -> ProgramModule:
    """The Program whose bytes a uint8 tensor holds.

    Raises:
        InvalidProgramError: The bytes are no Program.
        UnsupportedError: There is no such engine.
    """
    if data.dtype != torch.uint8 or data.dim() != 1:
        raise InvalidProgramError(
            f"a Program is uint8 of one dimension, not {data.dtype} {list(data.shape)}"
        )
    return ProgramModule(from_bytes(data.contiguous().numpy().tobytes()), engine)


class EmbeddedProgram(nn.Module):
    """Runs a Program, as :class:`ProgramModule` does, in a form that torch.export sees through."""

    program: Tensor

    def __init__(self, module: ProgramModule) -> None:
        super().__init__()
        data = bytearray(to_bytes(module.program))
        self.register_buffer("program", torch.frombuffer(data, dtype=torch.uint8))
        self._outputs = _describe_outputs(module)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The Program's outputs."""
        return tuple(run_program(self.program, list(inputs), self._outputs))


def _describe_outputs(module: ProgramModule) -> str:
    """The shapes for the example's inputs, and how they grow with the batch, as far as they can."""
    inputs = _example_inputs(module.program)
    outputs = module(*inputs)
    try:
        doubled = module(*(torch.cat([value, value]) for value in inputs))
    except (InvalidInputError, RuntimeError):  # it takes this batch only
        doubled = outputs
    batch = inputs[0].shape[0] if inputs[0].dim() else 1
    texts = []
    for output, other in zip(outputs, doubled, strict=True):
        sizes = (
            f"{size // batch}*n" if twice == 2 * size and size and size % batch == 0 else str(size)
            for size, twice in zip(output.shape, other.shape, strict=True)
        )
        texts.append(f"{str(output.dtype).removeprefix('torch.')}[{','.join(sizes)}]")
    return " ".join(texts)


def _example_inputs(program: Program) -> list[Tensor]:
    """Zeros of the shapes that a Program was made from."""
    tensors = [program.tensors[index] for index in program.inputs]
    return [torch.zeros(value.shape, dtype=getattr(torch, value.dtype.name)) for value in tensors]
