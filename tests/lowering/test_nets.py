"""Whole networks: the q/dq graphs of several quantizers against the Programs made of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

import pyquant
from lowering.nets import IMAGE, NETS, Depthwise
from lowering.quantizers import (
    Quantizer,
    _calibration,
    assert_whole,
    by_pyquant,
    by_x86,
    by_xnnpack,
    kinds,
    quantizers,
    sqnr,
    steps_apart,
)
from pyquant.ir import ops
from pyquant.ir.program import DType, Program
from pyquant.operators import Kernel, QParams

#: torchao's quantizer refuses the shared ReLU.
REFUSED = {("x86", "residual"), ("x86-7-bits", "residual")}
#: The quantizer leaves something float (padding; average pooling): no Program can be whole.
LEFT_FLOAT = {
    ("x86", "padded"),
    ("x86-7-bits", "padded"),
    ("xnnpack", "pools"),
    ("xnnpack-per-tensor", "pools"),
}


@quantizers
@pytest.mark.parametrize("net", NETS)
def test_small_net(net: str, quantizer: Quantizer, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.id.removesuffix(f"-{net}").removeprefix(f"{net}-")
    if (name, net) in REFUSED:
        pytest.skip("the quantizer cannot annotate this net")
    kind, inputs = NETS[net]
    graph = quantizer(kind(), inputs)
    lowered = pyquant.lower(graph)
    if (name, net) not in LEFT_FLOAT:
        assert_whole(lowered)
        # XNNPACKQuantizer gives the padded tensor qparams of its own, between which and the
        # convolution a change of qparams stands.
        assert "Pad" not in kinds(lowered) or "xnnpack" in name
    for values in (inputs, _calibration(inputs)[0]):
        # A rounding that falls the other way grows by the weights behind it.
        assert steps_apart(graph, lowered, *values) <= 2.01
        assert steps_apart(graph, copy.deepcopy(lowered), *values) <= 2.01


@pytest.mark.parametrize("engine", ["reference", "native", "fbgemm", "qnnpack"])
def test_engines_give_one_result(engine: str) -> None:
    graph = by_pyquant(Depthwise(), IMAGE)
    expected = pyquant.lower(graph, engine="reference")(*IMAGE)
    lowered = pyquant.lower(graph, engine=engine)
    assert lowered.engine == engine
    assert torch.equal(lowered(*IMAGE), expected)


def trained_statistics(model: nn.Module) -> nn.Module:
    """BatchNorm statistics of a few forwards."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(8, 3, 96, 96))
    return model.eval()


def channels_last(value: Tensor) -> Tensor:
    return value.permute(0, 2, 3, 1).contiguous() if value.ndim == 4 else value


def differences(graph: GraphModule, program: Program, *inputs: Tensor) -> dict[str, Tensor]:
    """For each operator with a uint8 result, how many steps it is from the q/dq graph, if its
    operands are that graph's own values.
    """
    values: dict[str, Tensor] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            values[n.name] = result = super().run_node(n)
            return result

    with torch.no_grad():
        Recorder(graph).run(*inputs)

    def quantized(index: int) -> Tensor:
        tensor = program.tensors[index]
        value = values[tensor.name]
        inverse = torch.tensor(float(np.float32(1 / float(tensor.scale[0]))))
        result = (value * inverse).round().add(tensor.zero_point).clamp(0, 255).to(torch.uint8)
        return channels_last(result)

    found = {}
    for node in program.nodes:
        operands = [program.tensors[index] for index in node.inputs]
        if isinstance(node.op, ops.Dequantize) or program.tensors[node.output].scale.size == 0:
            continue
        activations = [i for i in node.inputs if not program.tensors[i].is_constant]
        constants = [torch.from_numpy(t.data.copy()) for t in operands if t.data is not None]
        weight, bias = constants or (None, None)
        kernel = Kernel(
            node.op,
            [qparams_of(program, index) for index in activations],
            qparams_of(program, node.output),
            weight=weight,
            weight_scales=torch.from_numpy(operands[1].scale) if constants else None,
            bias=bias,
        )
        arguments = []
        for index in activations:
            name = program.tensors[index].name
            if program.tensors[index].dtype is not DType.float32:
                arguments.append(quantized(index))
            elif isinstance(node.op, ops.Quantize):
                arguments.append(values[name])
            else:  # a float32 result of an operator inside the Program
                arguments.append(channels_last(values[name]))
        result = kernel(*arguments)
        found[f"{type(node.op).__name__} {node.name}"] = (
            result.int() - quantized(node.output).int()
        ).abs()
    return found


def qparams_of(program: Program, index: int) -> QParams | None:
    tensor = program.tensors[index]
    if tensor.dtype is DType.float32:
        return None
    return QParams(float(tensor.scale[0]), tensor.zero_point)


#: torchao's X86InductorQuantizer refuses resnets (a shared in-place ReLU) and leaves table
#: activations and products float; XNNPACKQuantizer leaves mobilenet_v3's last hardswish so.
TORCHVISION: list[tuple[str, Quantizer]] = [
    ("mobilenet_v2", by_pyquant),
    ("mobilenet_v2", by_x86),
    ("mobilenet_v2", by_xnnpack),
    ("resnet18", by_pyquant),
    ("resnet18", by_xnnpack),
    ("mobilenet_v3_large", by_pyquant),
    ("efficientnet_v2_s", by_pyquant),
]
#: Down to the last pooling all images have odd sizes: the average of an even number of pixels is
#: often half way between two steps, where float32 may fall on either side.
TORCHVISION_IMAGE = (2, 3, 65, 65)


@pytest.mark.parametrize(("name", "quantizer"), TORCHVISION)
def test_torchvision_net(
    name: str, quantizer: Quantizer, torchvision_model: Callable[[str], nn.Module]
) -> None:
    model = trained_statistics(copy.deepcopy(torchvision_model(name)))
    inputs = (torch.randn(TORCHVISION_IMAGE),)
    graph = quantizer(model, inputs)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    found = lowered(*inputs)
    assert torch.equal(found, pyquant.lower(graph, engine="reference")(*inputs))
    # Every operator is right: one step where float32 falls on the other side of a half, seldom.
    assert lowered.program is not None
    for operator, apart in differences(graph, lowered.program, *inputs).items():
        assert int(apart.max()) <= 1, operator
        assert float(apart.float().mean()) <= 2e-3, operator
    assert_as_good_as_the_graph(model, graph, lowered, *inputs)


def assert_as_good_as_the_graph(
    model: nn.Module, graph: GraphModule, lowered: nn.Module, *inputs: Tensor
) -> None:
    """A network of random weights makes much of a step, but no more than of the quantization
    itself: the whole is as good as the q/dq graph, and nearer to it than that to float32.
    """
    with torch.no_grad():
        ideal, expected = model(*inputs), graph(*inputs)
    found = lowered(*inputs)
    assert sqnr(ideal, found) >= sqnr(ideal, expected) - 1
    assert sqnr(expected, found) >= sqnr(ideal, expected) + 1


@pytest.mark.parametrize(
    "name",
    ["mobilenet_v3_small", "efficientnet_b0", "mnasnet1_0", "regnet_x_400mf", "regnet_y_400mf"],
)
def test_torchvision_net_is_whole(name: str, torchvision_model: Callable[[str], nn.Module]) -> None:
    model = torchvision_model(name)
    inputs = (torch.randn(TORCHVISION_IMAGE),)
    prepared = pyquant.prepare(model, inputs, pyquant.QuantizationConfig(observer="minmax"))
    pyquant.calibrate(prepared, [inputs], progress=False)
    graph = pyquant.convert(prepared)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    assert_as_good_as_the_graph(model, graph, lowered, *inputs)
