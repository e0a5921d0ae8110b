"""Quantizers of several makers, and the comparison of their q/dq graphs with Programs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import pyquant
from pyquant.targets import QuantizedModule

# --- Quantizers.

Quantizer = Callable[[nn.Module, tuple[Tensor, ...]], GraphModule]


def _calibration(inputs: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
    return [tuple(torch.randn_like(value) for value in inputs) for _ in range(4)]


def by_pyquant(model: nn.Module, inputs: tuple[Tensor, ...]) -> GraphModule:
    prepared = pyquant.prepare(model.eval(), inputs)
    pyquant.calibrate(prepared, _calibration(inputs), progress=False)
    return pyquant.convert(prepared)


def _by_pt2e(model: nn.Module, inputs: tuple[Tensor, ...], quantizer: Any) -> GraphModule:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_pt2e(torch.export.export(model.eval(), inputs).module(), quantizer)
        for batch in _calibration(inputs):
            prepared(*batch)
        converted: GraphModule = convert_pt2e(prepared)
    return converted


def by_x86(
    model: nn.Module, inputs: tuple[Tensor, ...], *, reduce_range: bool = False
) -> GraphModule:
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    config = x86.get_default_x86_inductor_quantization_config(reduce_range=reduce_range)
    return _by_pt2e(model, inputs, x86.X86InductorQuantizer().set_global(config))


def by_x86_with_7_bits(model: nn.Module, inputs: tuple[Tensor, ...]) -> GraphModule:
    return by_x86(model, inputs, reduce_range=True)


def by_xnnpack(
    model: nn.Module, inputs: tuple[Tensor, ...], *, per_channel: bool = True
) -> GraphModule:
    xnnpack = pytest.importorskip("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
    config = xnnpack.get_symmetric_quantization_config(is_per_channel=per_channel)
    return _by_pt2e(model, inputs, xnnpack.XNNPACKQuantizer().set_global(config))


def by_xnnpack_per_tensor(model: nn.Module, inputs: tuple[Tensor, ...]) -> GraphModule:
    return by_xnnpack(model, inputs, per_channel=False)


QUANTIZERS: dict[str, Quantizer] = {
    "pyquant": by_pyquant,
    "x86": by_x86,
    "x86-7-bits": by_x86_with_7_bits,
    "xnnpack": by_xnnpack,
    "xnnpack-per-tensor": by_xnnpack_per_tensor,
}
quantizers = pytest.mark.parametrize("quantizer", QUANTIZERS.values(), ids=QUANTIZERS.keys())


# --- Comparison with the q/dq graph.


def leaves(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def output_steps(graph: GraphModule, outputs: list[Tensor]) -> list[float]:
    """The quantization step of each output; of a float output what a step of its range would be,
    at as many levels as the graph's activations have.
    """
    levels = max(
        node.args[4] - node.args[3]
        for node in graph.graph.nodes
        if "dequantize_per_tensor" in str(node.target)
    )
    (node,) = graph.graph.find_nodes(op="output")
    arguments = node.args[0] if isinstance(node.args[0], (list, tuple)) else [node.args[0]]
    return [
        float(argument.args[1])
        if "dequantize_per_tensor" in str(argument.target)
        else float(value.max() - value.min()) / levels
        for argument, value in zip(arguments, outputs, strict=True)
    ]


def steps_apart(graph: GraphModule, lowered: nn.Module, *inputs: Tensor) -> float:
    """The largest difference between graph and lowered model, in steps of each output."""
    with torch.no_grad():
        expected = leaves(graph(*inputs))
    found = leaves(lowered(*inputs))
    apart = 0.0
    for want, have, step in zip(expected, found, output_steps(graph, expected), strict=True):
        assert have.shape == want.shape
        assert have.dtype == want.dtype
        apart = max(apart, float((want - have).abs().max()) / step)
    return apart


def sqnr(reference: Tensor, actual: Tensor) -> float:
    noise = float((reference - actual).double().square().sum())
    return 10 * math.log10(float(reference.double().square().sum()) / max(noise, 1e-30))


def kinds(lowered: QuantizedModule) -> list[str]:
    return [type(node.op).__name__ for part in lowered.programs for node in part.program.nodes]


def assert_whole(lowered: QuantizedModule) -> None:
    assert lowered.float_operators == []
    assert lowered.program is not None
    assert len(lowered.programs) == 1
