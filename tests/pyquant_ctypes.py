"""The C interface by ctypes: what any other language's bindings do."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

FLOAT32 = 3


class Shape(ctypes.Structure):
    _fields_ = (("rank", ctypes.c_int32), ("dims", ctypes.c_int64 * 6))


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("bytes", ctypes.c_size_t),
        ("dtype", ctypes.c_int32),
        ("shape", Shape),
    )


def _shape(shape: tuple[int, ...]) -> Shape:
    return Shape(len(shape), (ctypes.c_int64 * 6)(*shape))


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    return Tensor(array.ctypes.data, array.nbytes, FLOAT32, _shape(array.shape))


class Library:
    """One loaded libpyquant."""

    def __init__(self, path: Path, mode: int = ctypes.DEFAULT_MODE) -> None:
        self._c = ctypes.CDLL(str(path), mode)
        self._c.pyquant_last_error_message.restype = ctypes.c_char_p
        self._c.pyquant_version.restype = ctypes.c_char_p
        for free in (self._c.pyquant_session_free, self._c.pyquant_program_free):
            free.argtypes, free.restype = (ctypes.c_void_p,), None

    @property
    def version(self) -> str:
        return str(self._c.pyquant_version().decode())

    def _check(self, status: int) -> None:
        if status != 0:
            message = self._c.pyquant_last_error_message().decode()
            raise RuntimeError(f"{status}: {message}")

    def run(self, model: bytes, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The output of a model of one float32 input and one float32 output."""
        program, session = ctypes.c_void_p(), ctypes.c_void_p()
        size = ctypes.c_size_t(len(model))
        self._check(self._c.pyquant_program_from_bytes(model, size, ctypes.byref(program)))
        try:
            self._check(self._c.pyquant_session_create(program, None, ctypes.byref(session)))
            one = ctypes.c_size_t(1)
            in_shape, out_shape = _shape(x.shape), Shape()
            self._check(
                self._c.pyquant_session_output_shapes(
                    session, ctypes.byref(in_shape), one, ctypes.byref(out_shape), one
                )
            )
            y = np.empty(out_shape.dims[: out_shape.rank], np.float32)
            inputs, outputs = _tensor(x), _tensor(y)
            self._check(
                self._c.pyquant_session_run(
                    session, ctypes.byref(inputs), one, ctypes.byref(outputs), one
                )
            )
            return y
        finally:
            self._c.pyquant_session_free(session)
            self._c.pyquant_program_free(program)
