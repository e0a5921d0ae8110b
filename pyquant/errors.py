"""The exceptions that pyquant raises. All derive from :class:`PyquantError`."""

from __future__ import annotations


class PyquantError(Exception):
    """Base class of every exception that pyquant raises on purpose."""


class CaptureError(PyquantError):
    """The model is no float model, or ``torch.export`` cannot turn it into a graph."""


class CalibrationError(PyquantError):
    """Calibration data is empty, of the wrong form, or holds NaN or infinity."""


class QuantizationError(PyquantError):
    """The model's own numbers cannot be quantized (NaN or infinite weights, bad config)."""


class LoweringError(PyquantError):
    """A quantized graph holds something that the Program, or a target, cannot express."""


class InvalidProgramError(PyquantError):
    """A ``.pyq`` file or a Program is truncated, foreign, too new or inconsistent."""


class InvalidInputError(PyquantError, ValueError):
    """Inputs of a run have a wrong count, shape, dtype or value."""


class UnsupportedError(PyquantError):
    """An operator, engine or CPU feature that was asked for is not available."""


class ExportError(PyquantError):
    """A bundle could not be made, or one of its files gave other numbers than the Program."""


class IoError(PyquantError, OSError):
    """A file or folder could not be read or written."""
