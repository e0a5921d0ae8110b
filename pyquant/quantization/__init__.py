"""From a captured graph to a quantized one: prepare, calibrate, convert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyquant.quantization.adaround import adaround
from pyquant.quantization.calibrate import calibrate
from pyquant.quantization.config import QatConfig, QuantizationConfig
from pyquant.quantization.convert import convert
from pyquant.quantization.freeze import FreezeSchedule, freeze_batch_norm, freeze_observers
from pyquant.quantization.prepare import prepare
from pyquant.quantization.prepare_qat import prepare_qat
from pyquant.quantization.sync_observers import sync_observers

if TYPE_CHECKING:
    from pyquant.quantization.quantizer import PyquantQuantizer

__all__ = [
    "FreezeSchedule",
    "PyquantQuantizer",
    "QatConfig",
    "QuantizationConfig",
    "adaround",
    "calibrate",
    "convert",
    "freeze_batch_norm",
    "freeze_observers",
    "prepare",
    "prepare_qat",
    "sync_observers",
]


def __getattr__(name: str) -> Any:
    """Imports ``PyquantQuantizer`` on first use: its base class, torchao's, takes seconds."""
    if name == "PyquantQuantizer":
        from pyquant.quantization.quantizer import PyquantQuantizer

        return PyquantQuantizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
