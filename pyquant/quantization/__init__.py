"""From a captured graph to a quantized one: prepare, calibrate, convert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyquant.quantization.adaround import adaround
from pyquant.quantization.calibrate import calibrate
from pyquant.quantization.config import QuantizationConfig
from pyquant.quantization.convert import convert
from pyquant.quantization.prepare import prepare
from pyquant.quantization.sync_observers import sync_observers

if TYPE_CHECKING:
    from pyquant.quantization.quantizer import PyquantQuantizer

__all__ = [
    "PyquantQuantizer",
    "QuantizationConfig",
    "adaround",
    "calibrate",
    "convert",
    "prepare",
    "sync_observers",
]


def __getattr__(name: str) -> Any:
    """Imports ``PyquantQuantizer`` on first use: its base class, torchao's, takes seconds."""
    if name == "PyquantQuantizer":
        from pyquant.quantization.quantizer import PyquantQuantizer

        return PyquantQuantizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
