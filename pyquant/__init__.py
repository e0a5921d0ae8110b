"""pyquant: quantize a PyTorch model to int8 once, run it anywhere with the same numbers.

>>> q = pyquant.quantize(model, example_inputs, calibration_data)
>>> y = q(x)
>>> q.save("model.pyq")
"""

import torch  # noqa: F401  (the C++ module links libtorch, which this import loads)

from pyquant._C import engines
from pyquant.analysis.report import write_report
from pyquant.api import analyze, load, lower, quantize
from pyquant.compile import CompiledModel, CompiledQuantizer, compile_report
from pyquant.errors import PyquantError
from pyquant.mixed_precision import MixedPrecision, quantize_mixed
from pyquant.quantization import (
    QuantizationConfig,
    adaround,
    calibrate,
    convert,
    prepare,
    sync_observers,
)
from pyquant.targets import QuantizedModule
from pyquant.version import __version__

__all__ = [
    "CompiledModel",
    "CompiledQuantizer",
    "MixedPrecision",
    "PyquantError",
    "QuantizationConfig",
    "QuantizedModule",
    "__version__",
    "adaround",
    "analyze",
    "calibrate",
    "compile_report",
    "convert",
    "engines",
    "load",
    "lower",
    "prepare",
    "quantize",
    "quantize_mixed",
    "sync_observers",
    "write_report",
]
