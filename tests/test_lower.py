"""``pyquant.lower``: q/dq graphs of several quantizers against the Programs made of them."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional as F

import pyquant
from pyquant.errors import LoweringError
from pyquant.ir import ops
from pyquant.ir.lower import lower_graph
from pyquant.ir.passes import fold_pad, fuse_clamp, remove_dead, remove_identity, simplify
from pyquant.ir.program import DType, Node, Program
from pyquant.ir.program import Tensor as ProgramTensor
from pyquant.operators import Kernel, QParams
from pyquant.targets import ProgramModule, QuantizedModule

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


# --- Small networks.


class Stem(nn.Module):
    """conv-bn-relu6."""

    def __init__(self, channels: int = 8, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.act(self.norm(self.conv(x)))
        return result


class ConvBnRelu6(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(16, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(torch.flatten(self.pool(self.stem(x)), 1))
        return result


class Residual(nn.Module):
    """A residual sum behind which the same in-place ReLU stands as within the block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        result: Tensor = self.relu(x + self.second(self.relu(self.first(x))))
        return result


class Depthwise(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(12)
        self.depthwise = nn.Conv2d(12, 12, 3, 2, 1, groups=12)
        self.project = nn.Conv2d(12, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.project(F.relu6(self.depthwise(self.stem(x))))
        return result


class Padded(nn.Module):
    """TensorFlow's asymmetric "same" padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.conv = nn.Conv2d(8, 9, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = F.relu(self.conv(F.pad(self.stem(x), (0, 1, 0, 1))))
        return result


class Pools(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.conv = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.stem(x), 3, 2, 1)
        x = F.avg_pool2d(self.conv(x), 2)
        x = F.adaptive_avg_pool2d(x, 2)
        result: Tensor = self.head(torch.flatten(x, 1))
        return result


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(33, 20), nn.ReLU(), nn.Linear(20, 7, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.conv = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        return self.conv(x), F.max_pool2d(x, 2)


IMAGE = (torch.randn(2, 3, 17, 14, generator=torch.Generator().manual_seed(1)),)
NETS: dict[str, tuple[type[nn.Module], tuple[Tensor, ...]]] = {
    "conv-bn-relu6": (ConvBnRelu6, IMAGE),
    "residual": (Residual, IMAGE),
    "depthwise": (Depthwise, IMAGE),
    "padded": (Padded, IMAGE),
    "pools": (Pools, IMAGE),
    "mlp": (Mlp, (torch.randn(3, 33, generator=torch.Generator().manual_seed(2)),)),
    "two outputs": (TwoOutputs, IMAGE),
}

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


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18"])
@pytest.mark.parametrize("quantizer", [by_pyquant, by_x86, by_xnnpack])
def test_torchvision_net(
    name: str, quantizer: Quantizer, torchvision_model: Callable[[str], nn.Module]
) -> None:
    if (quantizer, name) == (by_x86, "resnet18"):
        pytest.skip("torchao's X86InductorQuantizer refuses resnets (a shared in-place ReLU)")
    model = trained_statistics(copy.deepcopy(torchvision_model(name)))
    inputs = (torch.randn(2, 3, 96, 96),)
    graph = quantizer(model, inputs)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    with torch.no_grad():
        ideal, expected = model(*inputs), graph(*inputs)
    found = lowered(*inputs)
    assert torch.equal(found, pyquant.lower(graph, engine="reference")(*inputs))
    # Every operator is right: one step where float32 falls on the other side of a half, seldom.
    assert lowered.program is not None
    for operator, apart in differences(graph, lowered.program, *inputs).items():
        assert int(apart.max()) <= 1, operator
        assert float(apart.float().mean()) <= 2e-3, operator
    # A network of random weights makes much of such a step, but no more than of the quantization
    # itself: the whole is as good as the q/dq graph, and nearer to it than that to float32.
    assert sqnr(ideal, found) >= sqnr(ideal, expected) - 1
    assert sqnr(expected, found) >= sqnr(ideal, expected) + 1


# --- Single operators, as q/dq graphs written down by hand.


def fake_quantize(x: Tensor, qparams: tuple[Any, ...]) -> Tensor:
    quantized = torch.ops.quantized_decomposed.quantize_per_tensor(x, *qparams)
    result: Tensor = torch.ops.quantized_decomposed.dequantize_per_tensor(quantized, *qparams)
    return result


UINT8 = (0.05, 131, 0, 255, torch.uint8)
INT8 = (0.05, -17, -128, 127, torch.int8)
SEVEN_BITS = (0.1, 60, 0, 127, torch.uint8)
FORMS = {"uint8": UINT8, "int8": INT8, "7 bits": SEVEN_BITS}


class QuantizedOperator(nn.Module):
    """q/dq, a function, q/dq; weights are int8 behind a dequantize node."""

    def __init__(
        self,
        function: Callable[..., Tensor],
        form: tuple[Any, ...],
        *,
        output: tuple[Any, ...] | None = None,
        weight: tuple[int, ...] | None = None,
        bias: bool = True,
        per_tensor: bool = False,
        operands: int = 1,
    ) -> None:
        super().__init__()
        self.function, self.form, self.result = function, form, output or form
        self.operands, self.per_tensor = operands, per_tensor
        self.has_weight = weight is not None
        if weight is not None:
            generator = torch.Generator().manual_seed(3)
            values = torch.randint(-127, 128, weight, generator=generator).to(torch.int8)
            fan_in = math.prod(weight[1:])
            scales = (0.5 + torch.rand(weight[0], generator=generator)) / 70 / math.sqrt(fan_in)
            self.register_buffer("weight", values)
            self.register_buffer("scales", scales)
            self.register_buffer("zero_points", torch.zeros(weight[0], dtype=torch.int64))
            self.register_buffer("bias", torch.randn(weight[0], generator=generator))
        self.has_bias = bias

    def forward(self, *inputs: Tensor) -> Tensor:
        arguments = [fake_quantize(value, self.form) for value in inputs]
        if self.has_weight:
            decomposed = torch.ops.quantized_decomposed
            if self.per_tensor:
                weight = decomposed.dequantize_per_tensor(
                    self.weight, 0.001, 0, -127, 127, torch.int8
                )
            else:
                weight = decomposed.dequantize_per_channel(
                    self.weight, self.scales, self.zero_points, 0, -127, 127, torch.int8
                )
            arguments += [weight, self.bias if self.has_bias else None]
        return fake_quantize(self.function(*arguments), self.result)


def lowered_operator(
    function: Callable[..., Tensor], form: tuple[Any, ...], *inputs: Tensor, **options: Any
) -> tuple[GraphModule, QuantizedModule]:
    import torchao.quantization.pt2e.quantizer  # noqa: F401  (registers the q/dq operators)

    module = QuantizedOperator(function, form, **options).eval()
    graph = torch.export.export(module, inputs).module()
    return graph, pyquant.lower(graph)


#: name: function, weight shape, input shape, the Program's operator
OPERATORS: dict[str, tuple[Callable[..., Tensor], Any, tuple[int, ...], str]] = {
    "conv": (lambda x, w, b: F.conv2d(x, w, b, 2, 1), (8, 5, 3, 3), (2, 5, 9, 8), "Conv2d"),
    "conv same": (
        lambda x, w, b: F.conv2d(x, w, b, padding="same"),
        (8, 5, 4, 3),
        (2, 5, 9, 8),
        "Conv2d",
    ),
    "conv same dilated": (
        lambda x, w, b: F.conv2d(x, w, b, padding="same", dilation=(3, 2)),
        (8, 5, 2, 4),
        (2, 5, 9, 8),
        "Conv2d",
    ),
    "conv valid": (
        lambda x, w, b: F.conv2d(x, w, b, padding="valid"),
        (8, 5, 3, 2),
        (2, 5, 9, 8),
        "Conv2d",
    ),
    "conv groups": (
        lambda x, w, b: F.conv2d(x, w, b, (1, 2), (2, 0), (2, 1), 3),
        (6, 2, 3, 3),
        (1, 6, 9, 8),
        "Conv2d",
    ),
    "depthwise": (
        lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=7),
        (14, 1, 3, 3),
        (1, 7, 9, 8),
        "Conv2d",
    ),
    "conv relu6": (
        lambda x, w, b: F.hardtanh(F.conv2d(x, w, b), 0, 6),
        (8, 5, 1, 1),
        (1, 5, 9, 8),
        "Conv2d",
    ),
    "conv clamp": (
        lambda x, w, b: torch.clamp(F.conv2d(x, w, b), -0.3, 0.4),
        (8, 5, 1, 1),
        (1, 5, 9, 8),
        "Conv2d",
    ),
    "conv clamp min": (
        lambda x, w, b: torch.clamp(F.conv2d(x, w, b), min=-0.3),
        (8, 5, 1, 1),
        (1, 5, 9, 8),
        "Conv2d",
    ),
    "linear": (F.linear, (11, 33), (4, 33), "Linear"),
    "linear of rank 3": (F.linear, (11, 33), (4, 2, 33), "Linear"),
    "linear relu": (lambda x, w, b: F.relu(F.linear(x, w, b)), (11, 33), (4, 33), "Linear"),
    "max pool": (lambda x: F.max_pool2d(x, 3, 2, 1, 1), None, (1, 5, 9, 8), "MaxPool2d"),
    "max pool ceil": (
        lambda x: F.max_pool2d(x, 2, 2, 0, 2, ceil_mode=True),
        None,
        (1, 5, 9, 8),
        "MaxPool2d",
    ),
    "avg pool": (lambda x: F.avg_pool2d(x, 3, 2, 1), None, (1, 5, 9, 8), "AvgPool2d"),
    "avg pool inside": (
        lambda x: F.avg_pool2d(x, (3, 2), 2, (1, 1), True, False),
        None,
        (1, 5, 9, 8),
        "AvgPool2d",
    ),
    "avg pool divisor": (
        lambda x: F.avg_pool2d(x, 3, 2, 1, divisor_override=7),
        None,
        (1, 5, 9, 8),
        "AvgPool2d",
    ),
    "global pool": (lambda x: F.adaptive_avg_pool2d(x, 1), None, (1, 5, 9, 8), "AdaptiveAvgPool2d"),
    "adaptive pool": (
        lambda x: F.adaptive_avg_pool2d(x, (2, 3)),
        None,
        (1, 5, 9, 8),
        "AdaptiveAvgPool2d",
    ),
    "mean": (lambda x: x.mean((2, 3), keepdim=True), None, (1, 5, 9, 8), "AdaptiveAvgPool2d"),
    "flatten": (lambda x: torch.flatten(x, 1), None, (2, 5, 3, 4), "Flatten"),
    "reshape": (lambda x: x.reshape(2, 60), None, (2, 5, 3, 4), "Flatten"),
    "pad": (lambda x: F.pad(x, (1, 2, 3, 0)), None, (1, 5, 9, 8), "Pad"),
    "crop": (lambda x: F.pad(x, (-1, 2, -3, 1)), None, (1, 5, 9, 8), "Pad"),
    **{
        name: (function, None, (3, 300), "LookupTable")
        for name, function in {
            "hardswish": F.hardswish,
            "silu": F.silu,
            "sigmoid": torch.sigmoid,
            "hardsigmoid": F.hardsigmoid,
            "gelu": F.gelu,
            "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
            "elu": F.elu,
            "tanh": torch.tanh,
            "leaky relu": lambda x: F.leaky_relu(x, 0.1),
            "relu": F.relu,
            "neg": torch.neg,
        }.items()
    },
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", OPERATORS)
def test_operator_is_within_a_step(name: str, form: str) -> None:
    function, weight, shape, kind = OPERATORS[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4)) * 3
    # Weighted operators and tables may change qparams; moves must not.
    output = (0.03, 90, 0, 255, torch.uint8) if kind in ("Conv2d", "Linear") else None
    if form == "7 bits" and output is not None:
        output = (0.06, 60, 0, 127, torch.uint8)
    graph, lowered = lowered_operator(function, FORMS[form], x, weight=weight, output=output)
    limit = 0.01 if kind in ("MaxPool2d", "Flatten", "Pad", "LookupTable") else 1.01
    assert steps_apart(graph, lowered, x) <= limit
    assert_whole(lowered)
    assert kind in kinds(lowered)
    # A quantizer that gives up a bit needs a table behind what has no clamp bounds.
    if kind != "LookupTable" and form != "7 bits":
        assert "LookupTable" not in kinds(lowered)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("function", [torch.add, lambda a, b: F.relu(a + b)])
def test_add_is_within_a_step(function: Callable[..., Tensor], form: str) -> None:
    a, b = torch.randn(2, 2, 5, 6, 7, generator=torch.Generator().manual_seed(5)).unbind()
    graph, lowered = lowered_operator(function, FORMS[form], a, b, operands=2)
    assert_whole(lowered)
    assert kinds(lowered).count("Add") == 1
    assert form == "7 bits" or "LookupTable" not in kinds(lowered)
    assert steps_apart(graph, lowered, a, b) <= 1.01


@pytest.mark.parametrize("name", ["conv", "depthwise", "linear"])
@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_weights_and_biases_of_other_quantizers(name: str, per_tensor: bool, bias: bool) -> None:
    function, weight, shape, _ = OPERATORS[name]
    x = torch.randn(shape)
    graph, lowered = lowered_operator(
        function, UINT8, x, weight=weight, bias=bias, per_tensor=per_tensor
    )
    assert_whole(lowered)
    assert steps_apart(graph, lowered, x) <= 1.01


@pytest.mark.parametrize(
    "output", [(0.02, 200, 0, 255, torch.uint8), (4.0, 0, 0, 255, torch.uint8)]
)
def test_change_of_qparams_is_a_table(output: tuple[Any, ...]) -> None:
    x = torch.randn(3, 400) * 3
    graph, lowered = lowered_operator(lambda x: x.clone(), INT8, x, output=output)
    assert_whole(lowered)
    assert "LookupTable" in kinds(lowered)
    assert steps_apart(graph, lowered, x) <= 0.01


class DeadChannels(nn.Module):
    """Channels whose weight is zero, or next to it, and whose bias is not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        with torch.no_grad():
            self.conv.weight[1] = 0
            self.conv.weight[3] = 1e-20
            self.conv.weight[4] *= 1e-6
            assert self.conv.bias is not None
            self.conv.bias.copy_(torch.tensor([0.1, 3.0, -0.2, -2.0, 2.5, 0.0]))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(x)
        return result


@pytest.mark.parametrize("quantizer", [by_pyquant, by_x86, by_xnnpack])
def test_dead_channels_keep_their_bias(quantizer: Quantizer) -> None:
    graph = quantizer(DeadChannels(), IMAGE)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    assert steps_apart(graph, lowered, *IMAGE) <= 1.01


# --- Graphs that are no whole Program.


class Island(nn.Module):
    """Convolutions around something that has no int8 operator."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem = Stem()
        self.function = function
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(self.function(self.stem(x)))
        return result


class Across(Island):
    """An int8 value is used before and behind an island."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.conv(self.function(self.conv(x)))
        return F.relu(x + y)


class Branches(nn.Module):
    """Islands of different depth in parallel branches, crossing each other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.a = nn.Conv2d(8, 8, 1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.stem(x)
        left = torch.cumsum(self.a(x), 1)
        right = F.relu(self.b(x))
        right = self.c(F.softmax(right, 1) + right)
        joined = self.b(left + torch.cumsum(right, 2))
        return joined, F.max_pool2d(right, 2), x


ISLANDS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "cumsum": (lambda x: torch.cumsum(x, 1), "cumsum"),
    "softmax": (lambda x: F.softmax(x, 1), "softmax"),
    "fft": (lambda x: torch.fft.fft(x).real.contiguous(), "fft"),
    "deep": (lambda x: torch.sin(F.relu(torch.cumsum(x, 1) * 0.5)) + x, "sin"),
}


@pytest.mark.parametrize("quantizer", [by_pyquant, by_xnnpack])
@pytest.mark.parametrize("net", [Island, Across])
@pytest.mark.parametrize("island", ISLANDS)
def test_island(island: str, net: type[Island], quantizer: Quantizer, tmp_path: Any) -> None:
    function, name = ISLANDS[island]
    graph = quantizer(net(function), IMAGE)
    lowered = pyquant.lower(graph)
    assert steps_apart(graph, lowered, *IMAGE) <= 3.01
    assert lowered.program is None
    assert "Conv2d" in kinds(lowered)
    (operator,) = [entry for entry in lowered.float_operators if name in entry.target]
    assert operator.why
    with pytest.raises(LoweringError, match=name):
        lowered.save(tmp_path / "model.pyq")
    assert not list(tmp_path.iterdir())
    with pytest.raises(LoweringError, match=name):
        pyquant.lower(graph, whole=True)


@pytest.mark.parametrize("quantizer", [by_pyquant, by_xnnpack])
def test_islands_in_parallel_branches(quantizer: Quantizer) -> None:
    graph = quantizer(Branches(), IMAGE)
    lowered = pyquant.lower(graph)
    assert steps_apart(graph, lowered, *IMAGE) <= 4.01
    assert len(lowered.programs) >= 2
    targets = " ".join(operator.target for operator in lowered.float_operators)
    assert targets.count("cumsum") == 2
    assert targets.count("softmax") == 1


def test_a_mixed_model_reports_wrong_inputs() -> None:
    lowered = pyquant.lower(by_pyquant(Island(ISLANDS["cumsum"][0]), IMAGE))
    with pytest.raises(pyquant.PyquantError):
        lowered(IMAGE[0][:, :2])


# --- What lower() refuses.


def test_a_float_graph_is_refused() -> None:
    graph = torch.export.export(Mlp().eval(), NETS["mlp"][1]).module()
    with pytest.raises(LoweringError, match="quantize"):
        pyquant.lower(graph)


def test_a_prepared_graph_is_refused() -> None:
    with pytest.raises(LoweringError):
        pyquant.lower(pyquant.prepare(Mlp().eval(), NETS["mlp"][1]))


@pytest.mark.parametrize(
    "form",
    [(0.05, 0, -32768, 32767, torch.int16), (float("nan"), 0, 0, 255, torch.uint8)],
    ids=["int16", "NaN"],
)
def test_foreign_qparams_that_cannot_be_run_are_refused(form: tuple[Any, ...]) -> None:
    with pytest.raises(LoweringError):
        lowered_operator(F.relu, form, torch.randn(3, 4))


def test_unknown_engine() -> None:
    with pytest.raises(pyquant.errors.UnsupportedError, match="warp"):
        pyquant.lower(by_pyquant(Mlp(), NETS["mlp"][1]), engine="warp")


def test_lowering_does_not_change_the_graph() -> None:
    graph = by_pyquant(Residual(), IMAGE)
    before, expected = str(graph.graph), graph(*IMAGE)
    lower_graph(graph)
    assert str(graph.graph) == before
    assert torch.equal(graph(*IMAGE), expected)


# --- The passes: each does its work, and changes no bit.


class Builder:
    """A Program of uint8 activations, written node by node."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.program = Program()
        self.program.inputs = [self.tensor(shape)]
        self.last = self.program.inputs[0]

    def tensor(self, shape: tuple[int, ...], scale: float = 0.1, zero_point: int = 7) -> int:
        name = f"t{len(self.program.tensors)}"
        scales = np.array([scale], np.float32)
        return self.program.add_tensor(ProgramTensor(name, DType.uint8, shape, scales, zero_point))

    def node(
        self,
        op: ops.Op,
        shape: tuple[int, ...],
        *inputs: int,
        scale: float = 0.1,
        zero_point: int = 7,
    ) -> int:
        result = self.tensor(shape, scale, zero_point)
        name = f"n{len(self.program.nodes)}"
        self.program.nodes.append(Node(name, op, list(inputs) or [self.last], result))
        self.last = result
        return result

    def conv(self, op: ops.Conv2d, shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> int:
        generator = np.random.default_rng(0)
        values = generator.integers(-127, 128, weight_shape, dtype=np.int8)
        scales = np.full(weight_shape[0], 0.004, np.float32)
        bias = generator.integers(-2000, 2000, weight_shape[0], dtype=np.int32)
        weight = ProgramTensor("weight", DType.int8, weight_shape, scales, data=values)
        source = self.last
        return self.node(
            op,
            shape,
            source,
            self.program.add_tensor(weight),
            self.program.add_tensor(ProgramTensor("bias", DType.int32, bias.shape, data=bias)),
        )

    def finish(self, *outputs: int) -> Program:
        self.program.outputs = list(outputs) or [self.last]
        return self.program


def table(function: Callable[[Any], Any]) -> ops.LookupTable:
    return ops.LookupTable(function(np.arange(256)).astype(np.uint8).tobytes())


IDENTITY = table(lambda x: x)


def assert_same_bits(
    program: Program, rewrite: Callable[[Program], Program], names: list[str]
) -> Program:
    """Runs before and after ``rewrite`` (and behind all passes); checks the operators left."""
    before = ProgramModule(copy.deepcopy(program), "reference")
    rewritten = rewrite(copy.deepcopy(program))
    assert [type(node.op).__name__ for node in rewritten.nodes] == names
    for passes in (rewritten, simplify(copy.deepcopy(program))):
        after = ProgramModule(remove_dead(copy.deepcopy(passes)), "reference")
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            shape = program.tensors[program.inputs[0]].shape
            x = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            for want, have in zip(before(x), after(x), strict=True):
                assert torch.equal(want, have)
    return rewritten


def test_fold_pad() -> None:
    build = Builder((1, 6, 7, 4))
    build.node(ops.Pad(1, 0, 2, 1), (1, 9, 8, 4))
    build.node(ops.Pad(0, 1, 0, 0), (1, 9, 9, 4))
    build.conv(ops.Conv2d(ops.Window(3, 3, 2, 2, 1, 1, 0, 0)), (1, 4, 4, 5), (5, 3, 3, 4))
    program = build.finish()
    folded = assert_same_bits(program, lambda p: remove_dead(fold_pad(p)), ["Conv2d"])
    op = folded.nodes[0].op
    assert isinstance(op, ops.Conv2d)
    assert op.window == ops.Window(3, 3, 2, 2, 2, 2, 2, 1)


def test_fold_pad_leaves_crops_and_other_readers() -> None:
    build = Builder((1, 6, 7, 4))
    padded = build.node(ops.Pad(1, -1, 2, 1), (1, 9, 7, 4))
    build.conv(ops.Conv2d(ops.Window(3, 3)), (1, 7, 5, 5), (5, 3, 3, 4))
    program = build.finish()
    assert_same_bits(program, lambda p: remove_dead(fold_pad(p)), ["Pad", "Conv2d"])

    build = Builder((1, 6, 7, 4))
    padded = build.node(ops.Pad(1, 1, 1, 1), (1, 8, 9, 4))
    build.conv(ops.Conv2d(ops.Window(3, 3)), (1, 6, 7, 5), (5, 3, 3, 4))
    program = build.finish(build.last, padded)
    assert_same_bits(program, lambda p: remove_dead(fold_pad(p)), ["Pad", "Conv2d"])


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ((0, 255), (7, 67), (7, 67)),
        ((50, 255), (7, 67), (50, 67)),
        ((0, 5), (7, 67), (7, 7)),
        ((90, 255), (7, 67), (67, 67)),
        ((9, 60), (0, 255), (9, 60)),
    ],
)
def test_fuse_clamp(
    outer: tuple[int, int], inner: tuple[int, int], expected: tuple[int, int]
) -> None:
    build = Builder((1, 6, 7, 4))
    build.conv(ops.Conv2d(ops.Window(3, 3), 1, *outer), (1, 4, 5, 5), (5, 3, 3, 4))
    build.node(table(lambda x: np.clip(x, *inner)), (1, 4, 5, 5))
    fused = assert_same_bits(build.finish(), fuse_clamp, ["Conv2d"])
    op = fused.nodes[0].op
    assert isinstance(op, ops.Conv2d)
    assert (op.output_min, op.output_max) == expected


def test_fuse_clamp_twice_into_an_add() -> None:
    build = Builder((1, 30))
    build.node(ops.Add(), (1, 30), build.last, build.last)
    build.node(table(lambda x: np.clip(x, 20, 200)), (1, 30))
    build.node(table(lambda x: np.clip(x, 30, 255)), (1, 30))
    fused = assert_same_bits(build.finish(), fuse_clamp, ["Add"])
    assert fused.nodes[0].op == ops.Add(30, 200)


def test_fuse_clamp_keeps_what_others_read() -> None:
    clamp = table(lambda x: np.clip(x, 20, 200))
    build = Builder((1, 30))
    added = build.node(ops.Add(), (1, 30), build.last, build.last)
    clamped = build.node(clamp, (1, 30))
    program = build.finish(added, clamped)
    assert_same_bits(program, fuse_clamp, ["Add", "LookupTable"])

    build = Builder((1, 30))
    added = build.node(ops.Add(), (1, 30), build.last, build.last)
    clamped = build.node(clamp, (1, 30))
    build.node(ops.Add(), (1, 30), added, clamped)
    assert_same_bits(build.finish(), fuse_clamp, ["Add", "LookupTable", "Add"])


def test_fuse_clamp_keeps_other_tables_and_other_qparams() -> None:
    build = Builder((1, 30))
    build.node(ops.Add(), (1, 30), build.last, build.last)
    build.node(table(lambda x: 255 - x), (1, 30))
    assert_same_bits(build.finish(), fuse_clamp, ["Add", "LookupTable"])

    build = Builder((1, 30))
    build.node(ops.Add(), (1, 30), build.last, build.last)
    build.node(table(lambda x: np.clip(x, 20, 200)), (1, 30), scale=0.2)
    assert_same_bits(build.finish(), fuse_clamp, ["Add", "LookupTable"])


def test_remove_identity() -> None:
    build = Builder((1, 30))
    build.node(IDENTITY, (1, 30))
    build.node(IDENTITY, (1, 30))
    build.node(table(lambda x: 255 - x), (1, 30))
    assert_same_bits(build.finish(), remove_identity, ["LookupTable"])


def test_remove_identity_keeps_outputs_and_changes_of_qparams() -> None:
    build = Builder((1, 30))
    build.node(IDENTITY, (1, 30))
    assert_same_bits(build.finish(), remove_identity, ["LookupTable"])

    build = Builder((1, 30))
    build.node(IDENTITY, (1, 30), zero_point=9)
    build.node(ops.Add(), (1, 30), build.last, build.last)
    assert_same_bits(build.finish(), remove_identity, ["LookupTable", "Add"])


def test_remove_dead() -> None:
    build = Builder((1, 30))
    source = build.last
    build.node(table(lambda x: 255 - x), (1, 30), source)
    build.node(table(lambda x: x // 2), (1, 30))
    live = build.node(table(lambda x: x // 3), (1, 30), source)
    removed = assert_same_bits(build.finish(live), remove_dead, ["LookupTable"])
    assert len(removed.tensors) == 2
    assert removed.nodes[0].op == table(lambda x: x // 3)


def test_remove_dead_keeps_unused_inputs() -> None:
    build = Builder((1, 30))
    build.program.inputs.append(build.tensor((1, 4)))
    build.node(IDENTITY, (1, 30), build.program.inputs[0])
    removed = remove_dead(build.finish())
    assert len(removed.inputs) == 2
    assert [removed.tensors[index].shape for index in removed.inputs] == [(1, 30), (1, 4)]
