"""Programs as bytes and files (``model.pyq``); the schema is ``csrc/runtime/program.fbs``.

Reading verifies first: the C++ reader checks every byte before anything here looks at it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np

from pyquant import _C
from pyquant.errors import InvalidProgramError, IoError
from pyquant.ir import program_generated as fb
from pyquant.ir.ops import OPS, Op, Window
from pyquant.ir.program import DType, Node, Program, Tensor
from pyquant.version import __version__
from pyquant.write_file import write_file

#: Version of the schema that is written; see ``program.fbs``.
PROGRAM_VERSION = 1
FILE_IDENTIFIER = b"PYQ1"
#: Constants start at multiples of this, so that a mapped file can be used in place.
BUFFER_ALIGNMENT = 64


class _AlignedBuffer(fb.BufferT):  # type: ignore[misc]
    """A Buffer whose data honours the schema's ``force_align``, which generated code does not."""

    def Pack(self, builder: flatbuffers.Builder) -> int:  # noqa: N802 (the generated name)
        data = self.data.tobytes()
        builder.StartVector(1, len(data), BUFFER_ALIGNMENT)
        builder.head -= len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data
        vector = builder.EndVector()
        fb.BufferStart(builder)
        fb.BufferAddData(builder, vector)
        return int(fb.BufferEnd(builder))


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def _pack_attributes(value: Any) -> Any:
    """A dataclass of ``ops.py`` as the generated class of the same name."""
    packed = getattr(fb, f"{type(value).__name__}T")()
    for field in dataclasses.fields(value):
        attribute = getattr(value, field.name)
        if isinstance(attribute, Window):
            attribute = _pack_attributes(attribute)
        elif isinstance(attribute, bytes):
            attribute = np.frombuffer(attribute, np.uint8)
        elif isinstance(attribute, tuple):
            attribute = np.array(attribute, np.int32)
        setattr(packed, _camel(field.name), attribute)
    return packed


def _unpack_attributes(kind: type[Any], packed: Any) -> Any:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        attribute = getattr(packed, _camel(field.name))
        if field.name == "window":
            attribute = _unpack_attributes(Window, attribute)
        elif isinstance(attribute, np.ndarray):
            is_bytes = attribute.dtype == np.uint8
            attribute = attribute.tobytes() if is_bytes else tuple(attribute.tolist())
        values[field.name] = attribute
    return kind(**values)


def to_bytes(program: Program) -> bytes:
    """The Program in the format of a ``.pyq`` file.

    Raises:
        InvalidProgramError: The Program is inconsistent, or larger than 2 GiB.
    """
    root = fb.ProgramT()
    root.version = PROGRAM_VERSION
    root.producer = f"pyquant {__version__}"
    root.name = program.name
    root.metadata = json.dumps(program.metadata)
    root.inputs = np.array(program.inputs, np.uint32)
    root.outputs = np.array(program.outputs, np.uint32)
    root.tensors, root.nodes, root.buffers = [], [], []
    size = 1024
    for tensor in program.tensors:
        packed = fb.TensorT()
        packed.name = tensor.name
        packed.dtype = int(tensor.dtype)
        packed.shape = np.array(tensor.shape, np.int32)
        packed.scale = np.asarray(tensor.scale, np.float32)
        packed.zeroPoint = tensor.zero_point
        packed.buffer = 0
        if tensor.data is not None:
            buffer = _AlignedBuffer()
            buffer.data = np.ascontiguousarray(tensor.data)
            root.buffers.append(buffer)
            packed.buffer = len(root.buffers)
            size += tensor.data.nbytes + 2 * BUFFER_ALIGNMENT
        size += 256 + 4 * tensor.scale.size
        root.tensors.append(packed)
    for node in program.nodes:
        packed = fb.NodeT()
        packed.name = node.name
        packed.opType = getattr(fb.OpAttributes, type(node.op).__name__)
        packed.op = _pack_attributes(node.op)
        packed.inputs = np.array(node.inputs, np.uint32)
        packed.output = node.output
        root.nodes.append(packed)
    try:
        # With its final size from the start, the builder never copies what it has.
        builder = flatbuffers.Builder(size + 512 * len(program.nodes))
        builder.Finish(root.Pack(builder), FILE_IDENTIFIER)
    except flatbuffers.builder.BuilderSizeError as error:
        raise InvalidProgramError("a Program cannot be larger than 2 GiB") from error
    return bytes(builder.Output())


def from_bytes(data: bytes) -> Program:
    """Reads what :func:`to_bytes` wrote.

    Raises:
        InvalidProgramError: The bytes are truncated, foreign, too new or inconsistent.
    """
    _C.Program.from_bytes(data)
    return _unpack(data)


def _unpack(data: bytes) -> Program:
    root = fb.ProgramT.InitFromPackedBuf(data)
    program = Program(
        name=_text(root.name),
        inputs=[int(i) for i in root.inputs],
        outputs=[int(i) for i in root.outputs],
        metadata=_metadata(root.metadata),
    )
    for packed in root.tensors:
        dtype = DType(packed.dtype)
        shape = tuple(int(size) for size in packed.shape)
        values = None
        if packed.buffer:
            raw = root.buffers[packed.buffer - 1].data
            values = np.frombuffer(raw.tobytes(), np.dtype(dtype.name)).reshape(shape)
        scale = packed.scale if packed.scale is not None else ()
        program.tensors.append(
            Tensor(
                name=_text(packed.name),
                dtype=dtype,
                shape=shape,
                scale=np.array(scale, np.float32),
                zero_point=packed.zeroPoint,
                data=values,
            )
        )
    kinds: dict[int, type[Op]] = {getattr(fb.OpAttributes, name): op for name, op in OPS.items()}
    for packed in root.nodes:
        program.nodes.append(
            Node(
                name=_text(packed.name),
                op=_unpack_attributes(kinds[packed.opType], packed.op),
                inputs=[int(i) for i in packed.inputs],
                output=packed.output,
            )
        )
    return program


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _metadata(value: bytes | str | None) -> dict[str, Any]:
    try:
        metadata = json.loads(_text(value) or "{}")
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidProgramError(f"the Program's metadata is not JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise InvalidProgramError("the Program's metadata is not a JSON object")
    return metadata


def save(program: Program, path: str | os.PathLike[str]) -> None:
    """Writes ``program`` to ``path`` atomically: the file is there whole, or as it was before.

    Raises:
        InvalidProgramError: The Program is inconsistent.
        IoError: The file cannot be written.
    """
    data = to_bytes(program)
    _C.Program.from_bytes(data)
    write_file(path, data)


def load(path: str | os.PathLike[str]) -> Program:
    """Reads and verifies a ``.pyq`` file.

    Raises:
        IoError: The file cannot be read.
        InvalidProgramError: It is truncated, foreign, too new or inconsistent.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise IoError(f"cannot read {path}: {error.strerror or error}") from error
    return from_bytes(data)
