"""What a lowered model runs as."""

from pyquant.targets.intermediate import Intermediate
from pyquant.targets.program_module import ProgramModule
from pyquant.targets.quantized_module import QuantizedModule

__all__ = ["Intermediate", "ProgramModule", "QuantizedModule"]
