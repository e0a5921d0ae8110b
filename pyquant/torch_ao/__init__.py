"""Models that ``torch.ao.quantization`` converted become quantized graphs, number for number.

``torch.ao``'s quantized tensors cannot be exported. So the model runs once, inside of torch.export,
with float tensors that remember their scale and zero point (:mod:`quantized_tensors`); a table says
what each ``torch.ops.quantized`` operator computes in terms of dequantize, float operator, quantize
(:mod:`operators`). Modules and code of the model stay as they are; only their packed weights are
unpacked (:mod:`unpack`).
"""

from pyquant.torch_ao.import_model import import_torch_ao

__all__ = ["import_torch_ao"]
