"""Dynamic quantization: int8 weights, and activations quantized as they come.

:func:`quantize_dynamic` replaces layers of any module, :func:`report` tells which are int8, and
:data:`DYNAMIC_MODULES` is the table of what stands for what.
"""

from pyquant.dynamic.packing import DynamicModule
from pyquant.dynamic.quantize import (
    DYNAMIC_MODULES,
    DynamicLayer,
    DynamicReport,
    quantize_dynamic,
    report,
)

__all__ = [
    "DYNAMIC_MODULES",
    "DynamicLayer",
    "DynamicModule",
    "DynamicReport",
    "quantize_dynamic",
    "report",
]
