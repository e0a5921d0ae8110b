"""Models that cannot be exported: what torch.compile captures of them is quantized.

Dynamo hands over a model piece by piece, as it runs: a graph for all code between two graph
breaks. Every graph goes the way of a whole model (capture, prepare, calibrate, convert, lower);
the code between them stays as it is.
"""

from pyquant.compile.backend import backend
from pyquant.compile.options import CompileOptions
from pyquant.compile.quantizer import CompiledModel, CompiledQuantizer
from pyquant.compile.report import CompileReport, compile_report

__all__ = [
    "CompileOptions",
    "CompileReport",
    "CompiledModel",
    "CompiledQuantizer",
    "backend",
    "compile_report",
]
