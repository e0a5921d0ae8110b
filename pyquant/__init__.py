"""pyquant: quantize a PyTorch model to int8 once, run it anywhere with the same numbers.

>>> q = pyquant.quantize(model, example_inputs, calibration_data)
>>> y = q(x)
>>> q.save("model.pyq")
"""

import torch  # noqa: F401  (the C++ module links libtorch, which this import loads)

from pyquant._C import engines
from pyquant.analysis.report import write_report
from pyquant.api import analyze, load, lower, migrate, quantize
from pyquant.compile import CompiledModel, CompiledQuantizer, compile_report
from pyquant.dynamic import quantize_dynamic
from pyquant.errors import PyquantError
from pyquant.mixed_precision import MixedPrecision, quantize_mixed
from pyquant.quantization import (
    FreezeSchedule,
    QatConfig,
    QuantizationConfig,
    adaround,
    calibrate,
    convert,
    freeze_batch_norm,
    freeze_observers,
    prepare,
    prepare_qat,
    sync_observers,
)
from pyquant.quantize_modules import quantize_modules
from pyquant.targets import QuantizedModule
from pyquant.version import __version__

__all__ = [
    "CompiledModel",
    "CompiledQuantizer",
    "FreezeSchedule",
    "MixedPrecision",
    "PyquantError",
    "QatConfig",
    "QuantizationConfig",
    "QuantizedModule",
    "__version__",
    "adaround",
    "analyze",
    "calibrate",
    "compile_report",
    "convert",
    "engines",
    "freeze_batch_norm",
    "freeze_observers",
    "load",
    "lower",
    "migrate",
    "prepare",
    "prepare_qat",
    "quantize",
    "quantize_dynamic",
    "quantize_mixed",
    "quantize_modules",
    "sync_observers",
    "write_report",
]
