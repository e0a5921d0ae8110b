"""Models written for ``torch.ao.quantization`` go into pyquant as they are."""

from __future__ import annotations

import pytest
import torch
import torch.ao.nn.intrinsic as nni
import torch_ao_nets as nets
import torchvision_models
from torch import nn

import pyquant
from pyquant.capture import capture


def operators(graph: torch.fx.GraphModule) -> list[str]:
    return [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]


def with_statistics(model: nn.Module) -> nn.Module:
    """Some training mode runs, so that batch norms do something."""
    with torch.no_grad():
        model.train()(torch.randn(8, 3, 10, 10))
    return model.eval()


def test_stubs_and_functionals_are_nothing() -> None:
    eager, plain = with_statistics(nets.Residual()), nets.Plain().eval()
    plain.load_state_dict(eager.state_dict())
    x = torch.randn(4, 3, 10, 10)

    assert operators(capture(eager, x)) == operators(capture(plain, x))
    assert torch.equal(pyquant.quantize(eager, x, x)(x), pyquant.quantize(plain, x, x)(x))


def test_a_quant_wrapper_is_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    wrapped = torch.ao.quantization.QuantWrapper(model).eval()
    x = torch.randn(2, 3, 8, 8)

    assert torch.equal(pyquant.quantize(wrapped, x, x)(x), pyquant.quantize(model, x, x)(x))


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (lambda f, x: f.add(x, x), "add.Tensor"),
        (lambda f, x: f.mul(x, x), "mul.Tensor"),
        (lambda f, x: f.cat([x, x], 1), "cat.default"),
        (lambda f, x: f.add_relu(x, x), "relu.default"),
        (lambda f, x: f.add_scalar(x, 2.0), "add.Tensor"),
        (lambda f, x: f.mul_scalar(x, 2.0), "mul.Tensor"),
    ],
)
def test_each_functional_is_its_operator(function: object, operator: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nets.Calls(function)).eval()  # type: ignore[arg-type]
    x = torch.randn(2, 3, 8, 8)
    quantized = pyquant.quantize(model, x, x)

    assert operators(capture(model, x))[-1] == f"aten.{operator}"
    assert quantized.program is not None


def test_matmul_stays_float() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nets.Calls(lambda f, x: f.matmul(x, x))).eval()
    x = torch.randn(2, 3, 8, 8)

    assert len(pyquant.quantize(model, x, x).float_operators) == 1


def normed(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    norm.running_mean, norm.running_var = torch.randn(channels), torch.rand(channels) + 0.5
    return norm


@pytest.mark.parametrize(
    ("fused", "shape"),
    [
        (lambda: nni.ConvReLU2d(nn.Conv2d(3, 4, 3), nn.ReLU()), (2, 3, 8, 8)),
        (lambda: nni.ConvBn2d(nn.Conv2d(3, 4, 3), normed(4)), (2, 3, 8, 8)),
        (lambda: nni.ConvBnReLU2d(nn.Conv2d(3, 4, 3), normed(4), nn.ReLU()), (2, 3, 8, 8)),
        (lambda: nni.ConvReLU1d(nn.Conv1d(3, 4, 3), nn.ReLU()), (2, 3, 8)),
        (lambda: nni.LinearReLU(nn.Linear(6, 4), nn.ReLU()), (2, 6)),
    ],
)
def test_fused_float_modules(fused: object, shape: tuple[int, ...]) -> None:
    module = fused().eval()  # type: ignore[operator]
    x = torch.randn(shape)

    assert pyquant.quantize(module, x, x).program is not None
    assert torch.allclose(capture(module, x)(x), module(x), atol=1e-5)


@pytest.mark.parametrize("how", ["prepare", "prepare_fx"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_observers_of_torch_are_left_out(how: str, calibrated: bool) -> None:
    x = torch.randn(4, 3, 10, 10)
    model: nn.Module
    with nets.engine("x86"), nets.silent():
        if how == "prepare":
            model = with_statistics(nets.Residual())
            prepared = nets.prepare(model, x if calibrated else None)
        else:
            from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

            model = with_statistics(nets.Plain())
            mapping = get_default_qconfig_mapping("x86")
            prepared = quantize_fx.prepare_fx(model, mapping, (x,))
            if calibrated:
                prepared(x)
        buffers = {name: value.clone() for name, value in prepared.named_buffers()}
    expected = pyquant.quantize(model, x, x)(x)
    actual = pyquant.quantize(prepared, x, x)(x)

    # FX folds the batch norm first, which rounds differently.
    assert (
        torch.equal(actual, expected)
        if how == "prepare"
        else torch.allclose(actual, expected, atol=0.05)
    )
    assert all(torch.equal(buffers[name], value) for name, value in prepared.named_buffers())


def test_models_from_qat_are_taken_with_their_float_weights() -> None:
    x = torch.randn(4, 3, 10, 10)
    with nets.engine("x86"), nets.silent():
        model = nets.Residual().train().fuse(training=True)
        model.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
        trained = torch.ao.quantization.prepare_qat(model.train())
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.01)
        trained(x).square().mean().backward()
        optimizer.step()
        trained.eval()
    plain = nets.Plain().eval()
    fused = trained.conv1
    plain.load_state_dict(
        {
            "conv1.weight": fused.weight,
            "conv1.bias": fused.bias,
            **{f"bn1.{name}": value for name, value in fused.bn.state_dict().items()},
            **{f"conv2.{n}": getattr(trained.conv2, n) for n in ("weight", "bias")},
            **{f"head.{n}": getattr(trained.head, n) for n in ("weight", "bias")},
        }
    )
    captured = capture(trained, x)

    assert torch.allclose(captured(x), plain(x), atol=1e-5)
    assert pyquant.quantize(trained, x, x).program is not None
    assert type(trained.conv1).__module__.startswith("torch.ao.nn.intrinsic.qat")


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v3_large", "shufflenet_v2_x0_5", "googlenet"]
)
def test_torchvision_quantizable_models_are_the_plain_ones(name: str) -> None:
    models = torchvision_models.import_torchvision()
    options = {"init_weights": False} if name == "googlenet" else {}
    torch.manual_seed(0)
    quantizable = getattr(models.quantization, name)(weights=None, quantize=False, **options)
    plain = getattr(models, name)(weights=None, **options)
    plain.load_state_dict(quantizable.state_dict())
    x = torch.randn(1, 3, 64, 64)
    graphs = [capture(model.eval(), x) for model in (quantizable, plain)]

    assert sorted(operators(graphs[0])) == sorted(operators(graphs[1]))
    assert torch.equal(graphs[0](x), graphs[1](x))


def test_torchvision_quantizable_mobilenet_v2_has_relu_for_relu6() -> None:
    models = torchvision_models.import_torchvision()
    quantizable = models.quantization.mobilenet_v2(weights=None, quantize=False).eval()
    x = torch.randn(1, 3, 64, 64)
    graph = capture(quantizable, x)

    assert "aten.relu.default" in operators(graph)
    assert torch.equal(graph(x), quantizable(x))
