"""pyquant: quantize a PyTorch model to int8 once, run it anywhere with the same numbers.

>>> q = pyquant.quantize(model, example_inputs, calibration_data)
>>> y = q(x)
>>> q.save("model.pyq")
"""

import torch  # noqa: F401  (the C++ module links libtorch, which this import loads)

from pyquant._C import engines
from pyquant.api import load, lower, quantize
from pyquant.errors import PyquantError
from pyquant.quantization import QuantizationConfig, adaround, calibrate, convert, prepare
from pyquant.targets import QuantizedModule
from pyquant.version import __version__

__all__ = [
    "PyquantError",
    "QuantizationConfig",
    "QuantizedModule",
    "__version__",
    "adaround",
    "calibrate",
    "convert",
    "engines",
    "load",
    "lower",
    "prepare",
    "quantize",
]
