"""LSTM, GRU and RNN: all layers and directions; one call of C++ runs all steps of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils.flop_counter import register_flop_formula

from pyquant import _C
from pyquant.dynamic.packing import (
    DynamicModule,
    PackedCache,
    calls_operators,
    dense_float32,
    quantize_rows,
    workspace,
)
from pyquant.errors import InvalidInputError

_packed: PackedCache[_C.RecurrentLayer] = PackedCache()

#: torch's names of cells, and ours.
CELLS = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "tanh", "RNN_RELU": "relu"}


def pack_recurrent(cell: str, weights: Sequence[Tensor]) -> _C.RecurrentLayer:
    """One direction of one layer, as the kernels read it; the same object for the same memory.

    Args:
        cell: ``"lstm"``, ``"gru"``, ``"tanh"`` or ``"relu"``.
        weights: int8 values, float32 scales and float32 bias of the input's weights, the same of
            the state's, and of an LSTM with projections values and scales of these.
    """
    parts = [part if part.dtype == torch.int8 else part.float() for part in weights]
    projection = (parts[6], parts[7], None) if len(parts) > 6 else None
    return _packed.get(
        weights[0],
        lambda: _C.RecurrentLayer(
            cell, (parts[0], parts[1], parts[2]), (parts[3], parts[4], parts[5]), projection
        ),
    )


def _run(
    layers: Sequence[_C.RecurrentLayer],
    x: Tensor,
    batch_sizes: list[int],
    h: Tensor,
    c: Tensor | None,
    directions: int,
) -> Tensor:
    """Rows ``x`` through all layers; ``h`` and ``c``, one per layer, are overwritten."""
    outputs, space = h.shape[-1], workspace()
    for first in range(0, len(layers), directions):
        y = x.new_empty((x.shape[0], directions * outputs))
        for direction in range(directions):
            i = first + direction
            state = None if c is None else c[i]
            at = direction * outputs
            layers[i].run(x, batch_sizes, y, at, h[i], state, direction == 1, space)
        x = y
    return x


def run_recurrent(
    x: Tensor,
    batch_sizes: Tensor | None,
    h: Tensor,
    c: Tensor | None,
    weights: Sequence[Tensor],
    cell: str,
    directions: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """``x``: ``[T, B, I]``, or ``[rows, I]`` of a packed sequence with ``batch_sizes``.

    ``h`` and ``c``: ``[layers * directions, B, …]``. Returns the outputs and the last states; the
    last cell state of other cells than an LSTM's is empty.
    """
    per_layer = len(weights) // h.shape[0]
    layers = [
        pack_recurrent(cell, weights[i : i + per_layer]) for i in range(0, len(weights), per_layer)
    ]
    sizes = [x.shape[1]] * x.shape[0] if batch_sizes is None else batch_sizes.tolist()
    h = h.to(torch.float32, copy=True).contiguous()
    c = None if c is None else c.to(torch.float32, copy=True).contiguous()
    rows = x.to(torch.float32).reshape(-1, x.shape[-1]).contiguous()
    if rows.shape[0] == 0:  # a batch of no sequences
        y = rows.new_empty((0, directions * h.shape[-1]))
    else:
        y = _run(layers, rows, sizes, h, c, directions)
    y = y.reshape(*x.shape[:-1], y.shape[-1])
    last = x.new_empty(0) if c is None else c.to(x.dtype)
    return y.to(x.dtype), h.to(x.dtype), last


#: The same for compiled and exported graphs.
dynamic_recurrent = torch.library.custom_op(
    "pyquant::dynamic_recurrent", run_recurrent, mutates_args=(), device_types="cpu"
)


@dynamic_recurrent.register_fake
def _(
    x: Tensor,
    batch_sizes: Tensor | None,
    h: Tensor,
    c: Tensor | None,
    weights: Sequence[Tensor],
    cell: str,
    directions: int,
) -> tuple[Tensor, Tensor, Tensor]:
    y = x.new_empty((*x.shape[:-1], directions * h.shape[-1]))
    last = x.new_empty(0) if c is None else x.new_empty(c.shape)
    return y, x.new_empty(h.shape), last


@register_flop_formula(torch.ops.pyquant.dynamic_recurrent)
def _(
    x: torch.Size,
    batch_sizes: torch.Size | None,
    h: torch.Size,
    c: torch.Size | None,
    weights: Sequence[torch.Size],
    *_: object,
    **__: object,
) -> int:
    # Every step of every sequence meets all matrices; scales and biases are vectors.
    return 2 * x[:-1].numel() * sum(shape.numel() for shape in weights if len(shape) == 2)


def operator_for(x: Tensor, layer: nn.Module) -> Any:
    """What runs on ``x``: the operator where it must be seen, else the function in it.

    Raises:
        InvalidInputError: The kernels cannot read ``x``.
    """
    if calls_operators():
        return dynamic_recurrent
    dense_float32(x[:0], layer)
    return run_recurrent


class DynamicRecurrent(DynamicModule):
    """What LSTM, GRU and RNN share; forward is that of the float module, without dropout.

    Buffers, for each layer and direction with torch's suffixes: ``weight_ih_l0`` int8 with
    ``scales_ih_l0``, ``weight_hh_l0``, ``bias_ih_l0`` and so on, and ``weight_hr_l0`` of an LSTM
    with projections.
    """

    def __init__(self, module: nn.RNNBase) -> None:
        super().__init__()
        self.cell = CELLS[module.mode]
        self.input_size, self.hidden_size = module.input_size, module.hidden_size
        self.num_layers, self.directions = module.num_layers, 2 if module.bidirectional else 1
        self.batch_first, self.proj_size = module.batch_first, module.proj_size
        self._names: list[list[str]] = []
        for layer in range(module.num_layers):
            for suffix in (f"l{layer}", f"l{layer}_reverse")[: self.directions]:
                self._names.append(register_layer(self, module, suffix))

    @classmethod
    def from_float(cls, module: nn.RNNBase) -> DynamicRecurrent:
        """The same layers with int8 weights."""
        return cls(module)

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """As the float module: a ``PackedSequence``, 3-d or (one sequence) 2-d, states or none.

        Raises:
            InvalidInputError: A wrong shape, or no dense floating tensor on the CPU.
        """
        packed = input if isinstance(input, PackedSequence) else None
        if packed is not None:
            x, sizes = packed.data, packed.batch_sizes
            batch = int(sizes[0])
        else:
            x, sizes = self._steps_first(input), None
            batch = x.shape[1]
        if x.shape[-1] != self.input_size:
            raise InvalidInputError(
                f"the input has {x.shape[-1]} features; {type(self).__name__} takes "
                f"{self.input_size}"
            )
        single = packed is None and input.dim() == 2
        h, c = self._states(hx, x, batch, single, packed)
        y, h, c = self._call(x, sizes, h, c)
        if packed is not None:
            result: Any = PackedSequence(y, sizes, packed.sorted_indices, packed.unsorted_indices)
            if packed.unsorted_indices is not None:
                h = h.index_select(1, packed.unsorted_indices)
                c = None if c is None else c.index_select(1, packed.unsorted_indices)
        elif single:
            result, h, c = y.squeeze(1), h.squeeze(1), None if c is None else c.squeeze(1)
        else:
            result = y.transpose(0, 1) if self.batch_first else y
        return result, h if c is None else (h, c)

    def _steps_first(self, x: Tensor) -> Tensor:
        if x.dim() not in (2, 3):
            raise InvalidInputError(
                f"{type(self).__name__} takes 2-d or 3-d inputs, not {list(x.shape)}"
            )
        x = x.unsqueeze(1) if x.dim() == 2 else x.transpose(0, 1) if self.batch_first else x
        if x.shape[0] == 0:
            raise InvalidInputError("a sequence has at least one step")
        return x

    def _states(
        self, hx: Any, x: Tensor, batch: int, single: bool, packed: PackedSequence | None
    ) -> tuple[Tensor, Tensor | None]:
        outputs = self.proj_size or self.hidden_size
        names = {"hidden": outputs, **({"cell": self.hidden_size} if self.cell == "lstm" else {})}
        given = (None,) * len(names) if hx is None else hx if self.cell == "lstm" else (hx,)
        states: list[Tensor | None] = []
        for (name, features), value in zip(names.items(), given, strict=True):
            shape = (len(self._names), batch, features)
            if value is None:
                states.append(x.new_zeros(shape))
                continue
            value = value.unsqueeze(1) if single and value.dim() == 2 else value
            if tuple(value.shape) != shape:
                raise InvalidInputError(
                    f"the {name} state is {list(value.shape)}; it must be {list(shape)}"
                )
            order = None if packed is None else packed.sorted_indices
            states.append(value if order is None else value.index_select(1, order))
        h, c = (*states, None)[:2]
        assert h is not None
        return h, c

    def _call(
        self, x: Tensor, sizes: Tensor | None, h: Tensor, c: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        weights = [getattr(self, name) for names in self._names for name in names]
        run = operator_for(x, self)
        y, h, last = run(x, sizes, h, c, weights, self.cell, self.directions)
        return y, h, None if c is None else last

    def extra_repr(self) -> str:
        """For ``print``."""
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, "
            f"bidirectional={self.directions == 2}, proj_size={self.proj_size}"
        )


def register_layer(to: nn.Module, module: nn.Module, suffix: str) -> list[str]:
    """Quantizes one layer's weights into buffers; their names, in the order of the kernels."""
    names: list[str] = []
    suffix = f"_{suffix}" if suffix else ""
    for part in ("ih", "hh", "hr"):
        weight = getattr(module, f"weight_{part}{suffix}", None)
        if weight is None:
            continue
        values, scales = quantize_rows(weight)
        buffers = {f"weight_{part}{suffix}": values, f"scales_{part}{suffix}": scales}
        if part != "hr":
            bias = getattr(module, f"bias_{part}{suffix}", None)
            zeros = torch.zeros(values.shape[0])
            buffers[f"bias_{part}{suffix}"] = zeros if bias is None else bias.detach().cpu().float()
        for name, value in buffers.items():
            to.register_buffer(name, value.clone())
        names += buffers
    return names


class DynamicLSTM(DynamicRecurrent):
    """``nn.LSTM`` with int8 weights."""

    float_type = nn.LSTM


class DynamicGRU(DynamicRecurrent):
    """``nn.GRU`` with int8 weights."""

    float_type = nn.GRU


class DynamicRNN(DynamicRecurrent):
    """``nn.RNN`` with int8 weights."""

    float_type = nn.RNN


class DynamicCell(DynamicModule):
    """One step of one layer; what LSTMCell, GRUCell and RNNCell share."""

    cell: ClassVar[str]

    def __init__(self, module: nn.RNNCellBase) -> None:
        super().__init__()
        self.input_size, self.hidden_size = module.input_size, module.hidden_size
        self.nonlinearity = getattr(module, "nonlinearity", None) or self.cell
        self._names = register_layer(self, module, "")

    @classmethod
    def from_float(cls, module: nn.RNNCellBase) -> DynamicCell:
        """The same cell with int8 weights."""
        return cls(module)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """As the float module: ``[B, I]`` or ``[I]``, states or none.

        Raises:
            InvalidInputError: A wrong shape, or no dense floating tensor on the CPU.
        """
        if input.dim() not in (1, 2) or input.shape[-1] != self.input_size:
            raise InvalidInputError(
                f"{type(self).__name__} takes [batch, {self.input_size}], not {list(input.shape)}"
            )
        single = input.dim() == 1
        x = input.reshape(1, -1, self.input_size)
        shape = (1, x.shape[1], self.hidden_size)
        count = 2 if self.nonlinearity == "lstm" else 1
        given = (None,) * count if hx is None else hx if count == 2 else (hx,)
        states = [x.new_zeros(shape) if v is None else v.reshape(1, -1, v.shape[-1]) for v in given]
        for state in states:
            if tuple(state.shape) != shape:
                raise InvalidInputError(f"a state is {list(state.shape[1:])}, not {shape[1:]}")
        weights = [getattr(self, name) for name in self._names]
        cell_state = states[1] if count == 2 else None
        run = operator_for(x, self)
        _, h, c = run(x, None, states[0], cell_state, weights, self.nonlinearity, 1)
        drop = (0, 0) if single else (0,)
        results = tuple(value[drop] for value in (h, c)[:count])
        return results if count == 2 else results[0]


class DynamicLSTMCell(DynamicCell):
    """``nn.LSTMCell`` with int8 weights."""

    float_type, cell = nn.LSTMCell, "lstm"


class DynamicGRUCell(DynamicCell):
    """``nn.GRUCell`` with int8 weights."""

    float_type, cell = nn.GRUCell, "gru"


class DynamicRNNCell(DynamicCell):
    """``nn.RNNCell`` with int8 weights."""

    float_type, cell = nn.RNNCell, "tanh"
