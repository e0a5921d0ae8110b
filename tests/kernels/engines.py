"""Which engine must run what, and how a kernel's results are compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import assume, event

import pyquant
from pyquant import _C
from pyquant.errors import UnsupportedError
from pyquant.ir import ops
from pyquant.operators import Kernel, QParams

ENGINES = ("reference", "native", "fbgemm", "qnnpack")

_Q = QParams(0.1, 7)
_WEIGHTED = {
    "weight_scales": torch.full((4,), 0.01),
    "bias": torch.zeros(4, dtype=torch.int32),
}
_CONV_WEIGHT = torch.ones((4, 3, 3, 4), dtype=torch.int8)
_WINDOW = ops.Window(3, 3)

#: One plain operator of each kind: an engine that runs this one runs the kind.
_PLAIN: dict[str, Any] = {
    "Quantize": (ops.Quantize(), [None], _Q, {}),
    "Dequantize": (ops.Dequantize(), [_Q], None, {}),
    "Conv2d": (ops.Conv2d(_WINDOW), [_Q], _Q, {"weight": _CONV_WEIGHT, **_WEIGHTED}),
    "Linear": (ops.Linear(), [_Q], _Q, {"weight": _CONV_WEIGHT[:, 0, 0], **_WEIGHTED}),
    "Add": (ops.Add(), [_Q, _Q], _Q, {}),
    "MaxPool2d": (ops.MaxPool2d(_WINDOW), [_Q], _Q, {}),
    "AvgPool2d": (ops.AvgPool2d(_WINDOW), [_Q], _Q, {}),
    "AdaptiveAvgPool2d": (ops.AdaptiveAvgPool2d(), [_Q], _Q, {}),
    "AdaptiveMaxPool2d": (ops.AdaptiveMaxPool2d(), [_Q], _Q, {}),
    "Flatten": (ops.Flatten(), [_Q], _Q, {}),
    "Pad": (ops.Pad(1, 1, 1, 1), [_Q], _Q, {}),
    "LookupTable": (ops.LookupTable(bytes(256)), [_Q], _Q, {}),
    "Reshape": (ops.Reshape((-1,)), [_Q], _Q, {}),
    "Mul": (ops.Mul(), [_Q, _Q], _Q, {}),
    "Concat": (ops.Concat(), [_Q, _Q], _Q, {}),
    "Slice": (ops.Slice(), [_Q], _Q, {}),
    "ChannelShuffle": (ops.ChannelShuffle(), [_Q], _Q, {}),
    "ResizeNearest": (ops.ResizeNearest(2, 2), [_Q], _Q, {}),
    "ResizeBilinear": (ops.ResizeBilinear(2, 2), [_Q], _Q, {}),
    "ConvTranspose2d": (
        ops.ConvTranspose2d(_WINDOW),
        [_Q],
        _Q,
        {"weight": _CONV_WEIGHT, **_WEIGHTED},
    ),
}

#: What must be there; an engine may run more.
REQUIRED: dict[str, frozenset[str]] = {
    "reference": frozenset(_PLAIN),
    "native": frozenset(_PLAIN) - {"Reshape"},
    "fbgemm": frozenset({"Conv2d", "Linear"}),
    "qnnpack": frozenset(
        {"Conv2d", "Linear", "Add", "MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d"}
    ),
}


def runs(engine: str, kind: str) -> bool:
    """Whether ``engine`` runs a plain operator of this kind."""
    op, inputs, output, constants = _PLAIN[kind]
    try:
        return Kernel(op, inputs, output, engine=engine, **constants).engine == engine
    except UnsupportedError:
        return False


def engines_for(kind: str) -> pytest.MarkDecorator:
    """Parametrises ``engine`` over all that run this kind, native once for each ISA."""
    names: list[str] = []
    for engine in pyquant.engines():
        if runs(engine, kind):
            names += [f"native:{isa}" for isa in _C.isas()] if engine == "native" else [engine]
    return pytest.mark.parametrize("engine", names)


def kernel(engine: str, *args: Any, **kwargs: Any) -> Kernel:
    """The kernel; the example does not count if the engine says that it cannot run it.

    The instruction set of ``"native:<isa>"`` stays chosen for what is prepared and run until the
    next call.
    """
    engine, _, isa = engine.partition(":")
    _C.use_isa(isa)
    try:
        prepared = Kernel(*args, engine=engine, **kwargs)
    except UnsupportedError as error:
        assert engine not in ("reference",), str(error)
        event(f"unsupported: {error}")
        assume(False)
    assert prepared.engine == engine
    return prepared


def assert_equal(
    result: torch.Tensor, expected: npt.NDArray[Any], *, steps: int = 0, context: object = ""
) -> None:
    """Same shape and dtype, and no element more than ``steps`` away."""
    found = result.numpy()
    assert found.shape == expected.shape, f"shape {found.shape}, expected {expected.shape}"
    assert found.dtype == expected.dtype
    if np.array_equal(found, expected, equal_nan=found.dtype == np.float32):
        return
    wrong = np.abs(found.astype(np.float64) - expected.astype(np.float64)) > steps
    if wrong.any():
        where = tuple(int(index[0]) for index in np.nonzero(wrong))
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.size} elements differ; first at {where}: "
            f"{found[where]!r}, expected {expected[where]!r} {context}"
        )
