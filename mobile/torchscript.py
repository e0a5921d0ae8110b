"""A Program as TorchScript for PyTorch's lite interpreter (``.ptl``), QNNPACK engine.

QNNPACK computes what the Program says, up to three roundings: its multiplier is
``(s_x * s_w) * (1 / s_y)``, not ``(s_x * s_w) / s_y``, and may differ in the last bit; its
addition is in fixed point; and averages that lie on a tie may go either way. Each changes a value
by one step at most, and rarely (one in 200 000 of MobileNetV2's). Biases are float32 in the file
and come back as the same int32 up to 2**22.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pyquant.errors import ExportError, UnsupportedError
from pyquant.ir import ops
from pyquant.ir.program import DType, Program
from pyquant.ir.program import Tensor as IrTensor
from pyquant.mobile import lite_file
from pyquant.mobile.stock_layers import FloatConvLayer, FloatLinearLayer
from pyquant.mobile.stock_program import build_layer
from pyquant.mobile.stock_tables import TableLayer


@contextlib.contextmanager
def qnnpack_engine() -> Iterator[None]:
    """Selects PyTorch's QNNPACK engine and puts the previous one back.

    The engine is a setting of the process: other threads must not run quantized operators
    meanwhile. Raises :class:`UnsupportedError` if this PyTorch was built without QNNPACK.
    """
    engines = torch.backends.quantized
    if "qnnpack" not in engines.supported_engines:
        raise UnsupportedError("this PyTorch build has no QNNPACK engine")
    previous = engines.engine
    engines.engine = "qnnpack"
    try:
        yield
    finally:
        engines.engine = previous


class StockModule(nn.Module):
    """A Program on stock quantized operators.

    ``forward`` takes the Program's inputs, float32 and NCHW if rank 4, and returns its outputs
    likewise: one tensor, or a tuple of them.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.steps: list[tuple[list[int], int]] = []
        self.names: list[str] = []
        self.inputs, self.outputs = list(program.inputs), list(program.outputs)
        for index in self.inputs + self.outputs:
            tensor = program.tensors[index]
            if tensor.dtype != DType.float32:
                raise ExportError(
                    f"the TorchScript target needs float32 inputs and outputs, but {tensor.name} "
                    f"is {tensor.dtype.name}"
                )
        for node in program.nodes:
            try:
                layer = build_layer(program, node)
            except (ExportError, RuntimeError) as error:
                raise ExportError(
                    f"layer {node.name} ({type(node.op).__name__}) cannot be exported to "
                    f"TorchScript: {error}. Export without the torchscript target, or keep this "
                    "layer in float"
                ) from error
            has_weights = isinstance(node.op, ops.Conv2d | ops.Linear)
            operands = node.inputs[:1] if has_weights else node.inputs
            for index in operands:
                self._add_constant(index, program.tensors[index])
            self.layers.append(layer)
            self.steps.append((list(operands), node.output))
            self.names.append(node.name)

    def _add_constant(self, index: int, tensor: IrTensor) -> None:
        """Registers an activation operand that is a constant, as the layers expect it."""
        if tensor.data is None or f"constant{index}" in self._buffers:
            return
        value = torch.from_numpy(tensor.data.copy())
        if tensor.dtype == DType.uint8:
            value = torch._make_per_tensor_quantized_tensor(
                value, float(tensor.scale.reshape(-1)[0]), tensor.zero_point
            )
        self.register_buffer(
            f"constant{index}", value.permute(0, 3, 1, 2) if value.dim() == 4 else value
        )

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The Program's inputs to its outputs; see the class."""
        values = dict(zip(self.inputs, inputs, strict=True))
        for layer, (operands, output) in zip(self.layers, self.steps, strict=True):
            arguments = [
                values[index] if index in values else self.get_buffer(f"constant{index}")
                for index in operands
            ]
            values[output] = layer(*arguments)
        outputs = tuple(values[index] for index in self.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def notes(self) -> list[str]:
        """What is exact but slow in this form, for the manifest."""
        kinds: list[tuple[str, type[nn.Module]]] = [
            ("computed in float32 from int8 weights", FloatConvLayer),
            ("computed in float32 from int8 weights", FloatLinearLayer),
            ("computed by a gather over its table", TableLayer),
        ]
        return [
            f"{name}: {text}"
            for name, layer in zip(self.names, self.layers, strict=True)
            for text, kind in kinds
            if any(isinstance(module, kind) for module in layer.modules())
        ]


def to_torchscript(
    program: Program, example_inputs: tuple[Tensor, ...] | None = None
) -> tuple[bytes, list[str]]:
    """The bytes of a ``.ptl`` file, and notes on layers without a fast stock operator.

    The file holds per-channel int8 weights and stock operators only, so any PyTorch or PyTorch
    Mobile runtime with QNNPACK loads it (``torch.backends.quantized.engine = "qnnpack"`` where
    the default is another). Batch size, height and width may differ from ``example_inputs``
    (float32, NCHW if rank 4; zeros of the Program's shapes if ``None``) as far as the model
    allows.

    Raises:
        ExportError: A layer cannot be expressed in stock operators, or the file needs what the
            oldest runtime does not have (see ``lite_file``); the message names it.
    """

    def save(frozen: Any) -> bytes:
        content = lite_file.compress(frozen._save_to_buffer_for_lite_interpreter())
        lite_file.check(content)
        return content

    return _traced(program, example_inputs, save)


def to_libtorch(
    program: Program, example_inputs: tuple[Tensor, ...] | None = None
) -> tuple[bytes, list[str]]:
    """The same as a full TorchScript file (``.pt``), for LibTorch in C++ or ``torch.jit.load``.

    It runs with every quantized engine (``x86``, ``fbgemm``, ``onednn``, ``qnnpack``).
    """

    def save(frozen: Any) -> bytes:
        buffer = io.BytesIO()
        torch.jit.save(frozen, buffer)
        return buffer.getvalue()

    return _traced(program, example_inputs, save)


def _traced(
    program: Program,
    example_inputs: tuple[Tensor, ...] | None,
    save: Callable[[Any], bytes],
) -> tuple[bytes, list[str]]:
    if example_inputs is None:
        shapes = [program.tensors[index].shape for index in program.inputs]
        example_inputs = tuple(torch.zeros(shape) for shape in shapes)
    with qnnpack_engine(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated; phones still need it
        module = StockModule(program).eval()
        try:
            trace: Any = torch.jit.trace
            traced = trace(module, example_inputs, check_trace=False)
            content = save(torch.jit.freeze(traced))
        except RuntimeError as error:
            raise ExportError(f"the TorchScript export failed: {error}") from error
    return content, module.notes()
