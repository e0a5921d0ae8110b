"""A graph in the form that ExecuTorch's XNNPACK backend reads, built value by value.

Its tables are those of ``backends/xnnpack/serialization/runtime_schema.fbs``. Activations are NHWC.
Constants lie behind the graph, where nothing has to name them, instead of in the file's named data:
the runtime frees them once XNNPACK has packed them. So there are constants for what is packed only
(weights, biases and their scales); a plain operand would be read after it is gone.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pyquant.errors import UnsupportedError

_SERIALIZATION = "executorch.backends.xnnpack.serialization"
_ALIGNMENT = 16
_NONE = 2**32 - 1  # XNN_INVALID_VALUE_ID
MOST_CONCATENATED = 5  # at once
_EXTERNAL_INPUT, _EXTERNAL_OUTPUT = 1, 2
_NO_HANDLE = 65535  # links a node to no other graph

Shape = Sequence[int]


class XnnpackGraph:
    """Values are numbered from 0 in the order in which they are made.

    Raises :class:`ImportError` without ExecuTorch.
    """

    def __init__(self) -> None:
        self._schema: Any = importlib.import_module(f"{_SERIALIZATION}.xnnpack_graph_schema")
        self._values: list[Any] = []
        self._nodes: list[Any] = []
        self._ends: dict[int, list[int]] = {_EXTERNAL_INPUT: [], _EXTERNAL_OUTPUT: []}
        self._data = bytearray()
        # Number 0 means that a value is no constant.
        self._places = [self._schema.ConstantDataOffset(0, 0, None)]
        self._numbers: dict[bytes, int] = {}
        self.shapes: list[tuple[int, ...]] = []

    def input(self, shape: Shape) -> int:
        """The next float32 input of the whole graph; all inputs come before all outputs."""
        return self._external(shape, _EXTERNAL_INPUT)

    def output(self, shape: Shape) -> int:
        """The next float32 output of the whole graph."""
        return self._external(shape, _EXTERNAL_OUTPUT)

    def real(self, shape: Shape) -> int:
        """A float32 value."""
        return self._add("fp32", shape)

    def quantized(self, shape: Shape, scale: float, zero_point: int) -> int:
        """An int8 activation, ``zero_point`` in -128...127."""
        return self._add("qint8", shape, self._schema.PerTensorQuant(scale, zero_point))

    def weight(self, data: npt.NDArray[np.int8], scales: npt.NDArray[np.float32], dim: int) -> int:
        """An int8 weight with a scale for each index along ``dim``."""
        return self._constant("qcint8", data, scales, dim)

    def bias(self, data: npt.NDArray[np.int32], scales: npt.NDArray[np.float32]) -> int:
        """int32, with a scale for each element: the input's times the weight's."""
        return self._constant("qcint32", data, scales, 0)

    def node(
        self, kind: str, *, bounds: tuple[float, float] | None = None, flags: int = 0, **fields: Any
    ) -> None:
        """Appends an operator.

        Args:
            kind: Its table in the schema.
            bounds: What the result is clamped to; ``None`` for no bounds.
            fields: The table's, besides ``flags``.
        """
        operator = getattr(self._schema, kind)(flags=flags, **fields)
        limits = None if bounds is None else self._schema.OutputMinMax(*bounds)
        self._nodes.append(self._schema.XNode(operator, _NO_HANDLE, limits))

    def concatenate(self, inputs: Sequence[int], output: int, axis: int) -> None:
        """Appends a concatenation of two to :data:`MOST_CONCATENATED` values."""
        if not 2 <= len(inputs) <= MOST_CONCATENATED:
            raise UnsupportedError(f"XNNPACK does not concatenate {len(inputs)} tensors at once")
        padded = [*inputs, *[_NONE] * (MOST_CONCATENATED - len(inputs))]
        names: dict[str, Any] = {
            f"input{position}_id": value for position, value in enumerate(padded, 1)
        }
        self.node(f"XNNConcatenate{len(inputs)}", axis=axis, output_id=output, **names)

    def to_bytes(self) -> bytes:
        """What the backend's ``init`` reads."""
        inputs, outputs = self._ends.values()
        graph = self._schema.XNNGraph(
            version="0",
            xnodes=self._nodes,
            xvalues=self._values,
            num_externs=len(inputs) + len(outputs),
            input_ids=inputs,
            output_ids=outputs,
            constant_data=self._places,
        )
        serialize = importlib.import_module(f"{_SERIALIZATION}.xnnpack_graph_serialize")
        return bytes(serialize.serialize_xnnpack_binary(graph, self._data))

    def _external(self, shape: Shape, flag: int) -> int:
        position = sum(map(len, self._ends.values()))
        value = self._add("fp32", shape, external=position, flags=flag)
        self._ends[flag].append(value)
        return value

    def _constant(
        self, dtype: str, data: npt.NDArray[Any], scales: npt.NDArray[np.float32], dim: int
    ) -> int:
        scale_number = self._place(scales.astype("<f4"))
        params = self._schema.PerChannelQuant([], dim, scale_number, scales.size)
        return self._add(dtype, data.shape, params, constant=self._place(data))

    def _place(self, data: npt.NDArray[Any]) -> int:
        """The number of a constant; equal ones are stored once."""
        content = data.tobytes()
        if content not in self._numbers:
            self._data.extend(bytes(-len(self._data) % _ALIGNMENT))
            place = self._schema.ConstantDataOffset(len(self._data), len(content), None)
            self._data.extend(content)
            self._numbers[content] = len(self._places)
            self._places.append(place)
        return self._numbers[content]

    def _add(
        self,
        dtype: str,
        shape: Shape,
        params: Any = None,
        *,
        constant: int = 0,
        external: int = _NONE,
        flags: int = 0,
    ) -> int:
        number = len(self._values)
        dims = [int(size) for size in shape]
        value = self._schema.XNNTensorValue(
            datatype=self._schema.XNNDatatype[f"xnn_datatype_{dtype}"],
            num_dims=len(dims),
            dims=dims,
            constant_buffer_idx=constant,
            external_id=external,
            flags=flags,
            id_out=number,
        )
        if params is not None:
            value = self._schema.XNNQuantizedTensorValue(value, params)
        self._values.append(self._schema.XValue(value))
        self.shapes.append(tuple(dims))
        return number
