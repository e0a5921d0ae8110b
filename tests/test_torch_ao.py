"""``pyquant.migrate``: models that torch.ao.quantization converted keep their numbers."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
import torch_ao_nets as nets
from torch import Tensor, nn

import pyquant
from pyquant.errors import CaptureError

SHAPE = (4, 8, 12, 12)


def step_of(values: Tensor) -> float:
    """The scale of a tensor on a grid, as far as its values tell."""
    differences = values.unique().diff()
    return float(differences[differences > 1e-6].min())


def put_biases_on_grid(model: nn.Module, scale: float) -> None:
    """Rounds the bias of a model's one layer as int32 biases are."""
    for module in model.modules():
        if hasattr(module, "set_weight_bias"):
            weight = module.weight()
            per_channel = weight.qscheme() == torch.per_channel_affine
            scales = weight.q_per_channel_scales() if per_channel else weight.q_scale()
            grid = torch.as_tensor(scales, dtype=torch.float32) * scale
            module.set_weight_bias(weight, torch.round(module.bias() / grid) * grid)


torch.manual_seed(0)  # the layers' weights are the same in every run
WEIGHTED: dict[str, nn.Module] = {
    "conv": nn.Conv2d(8, 32, 3, padding=1),
    "strided": nn.Conv2d(8, 16, (3, 2), stride=(2, 1), dilation=(1, 2)),
    "pointwise": nn.Conv2d(8, 32, 1),
    "depthwise": nn.Conv2d(8, 8, 3, groups=8),
    "grouped": nn.Conv2d(8, 32, 3, groups=4, stride=2),
}
#: Bit for bit.
EXACT: dict[str, nn.Module] = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "hardswish": nn.Hardswish(),
    "sigmoid": nn.Sigmoid(),
    "hardsigmoid": nn.Hardsigmoid(),
    "tanh": nn.Tanh(),
    "elu": nn.ELU(),
    "leaky_relu": nn.LeakyReLU(0.1),
    "max_pool": nn.MaxPool2d(2),
    "avg_pool": nn.AvgPool2d(3, 2, 1),
    "nearest": nn.Upsample(scale_factor=2),
    "dropout": nn.Dropout(),
    "add_relu": nets.Calls(lambda f, x: f.add_relu(x, x)),
    "mul": nets.Calls(lambda f, x: f.mul(x, x)),
    "cat": nets.Calls(lambda f, x: f.cat([x, x[:, 2:5]], 1)),
    "add_scalar": nets.Calls(lambda f, x: f.add_scalar(x, 0.7)),
    "mul_scalar": nets.Calls(lambda f, x: f.mul_scalar(x, 1.7)),
    "mul_negative": nets.Calls(lambda f, x: f.mul_scalar(x, -0.7)),
    "in_place": nets.Calls(lambda f, x: (x.relu_(), f.add(x, x))[1]),
    "chunks": nets.Calls(lambda f, x: f.add(*x.chunk(2, 1))),
    "shuffle": nets.Calls(
        lambda f, x: f.add(x, x.view(-1, 2, 4, 12, 12).transpose(1, 2).reshape(x.shape))
    ),
}
#: Not int8 in pyquant, and exact all the same.
FLOAT: dict[str, nn.Module] = {
    "batch_norm": nn.BatchNorm2d(8),
    "layer_norm": nn.LayerNorm(12),
    "group_norm": nn.GroupNorm(2, 8),
    "instance_norm": nn.InstanceNorm2d(8, affine=True),
    "matmul": nets.Calls(lambda f, x: f.matmul(x, x)),
    "reflect": nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect", bias=False),
}
#: Ties of rounding, or float32 sums in another order.
ONE_STEP: dict[str, nn.Module] = {
    "no_bias": nn.Conv2d(8, 32, 3, bias=False),  # exact for most weights only
    "bilinear": nn.Upsample(scale_factor=2, mode="bilinear"),
    "global_pool": nn.AdaptiveAvgPool2d(1),
    "mean": nets.Calls(lambda f, x: x.mean([2, 3])),
    "add": nets.Calls(lambda f, x: f.add(x, x.relu())),
    "far_add_scalar": nets.Calls(lambda f, x: f.add_scalar(x, 17.0)),
    "far_below": nets.Calls(lambda f, x: f.add_scalar(x, -17.0)),
}


def converted_and_migrated(
    module: nn.Module, shape: tuple[int, ...] = SHAPE
) -> tuple[nn.Module, pyquant.QuantizedModule, Tensor]:
    torch.manual_seed(3)
    model = nets.convert(nets.between_stubs(module), torch.randn(shape))
    return model, pyquant.migrate(model, torch.randn(shape)), torch.randn(7, *shape[1:])


@pytest.mark.parametrize("name", EXACT)
def test_an_operator_is_the_same_to_the_bit(name: str) -> None:
    with nets.engine("x86"):
        model, migrated, x = converted_and_migrated(EXACT[name])

        assert migrated.float_operators == []
        assert torch.equal(model(x), migrated(x))


@pytest.mark.parametrize("name", FLOAT)
def test_what_has_no_int8_operator_keeps_its_numbers(name: str) -> None:
    with nets.engine("x86"):
        model, migrated, x = converted_and_migrated(FLOAT[name])
        expected = model(x)
        differences = (expected - migrated(x)).abs() / step_of(expected)

        assert len(migrated.float_operators) == 1
        assert differences.max() < 1.01
        assert (differences > 0.5).float().mean() < 1e-3


@pytest.mark.parametrize("name", ONE_STEP)
def test_other_operators_are_within_a_step(name: str) -> None:
    with nets.engine("x86"):
        model, migrated, x = converted_and_migrated(ONE_STEP[name])
        expected = model(x)

        assert migrated.float_operators == []
        assert (expected - migrated(x)).abs().max() < 1.01 * step_of(expected)


@pytest.mark.parametrize("engine", nets.ENGINES)
@pytest.mark.parametrize("name", WEIGHTED)
def test_layers_differ_only_by_the_rounding_of_biases(name: str, engine: str) -> None:
    with nets.engine(engine):
        torch.manual_seed(3)
        data, x = torch.randn(SHAPE), torch.randn(7, *SHAPE[1:])
        model = nets.convert(nets.between_stubs(WEIGHTED[name]), data)
        migrated = pyquant.migrate(model, data)
        expected = model(x)

        assert migrated.float_operators == []
        differences = (expected - migrated(x)).abs() / step_of(expected)
        assert differences.max() < 1.01
        assert (differences > 0.5).float().mean() < 5e-3
        if engine == "fbgemm":  # the others round in ways of their own
            put_biases_on_grid(model, float(model[0].scale))
            assert torch.equal(model(x), pyquant.migrate(model, data)(x))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Linear(16, 9), (6, 16)),
        (nn.Conv1d(8, 12, 5, stride=2, padding=2), (4, 8, 33)),
        (nn.Sequential(nn.Conv1d(8, 12, 3), nn.ReLU(), nn.Conv1d(12, 4, 3)), (4, 8, 33)),
    ],
)
def test_linear_and_1d_layers(module: nn.Module, shape: tuple[int, ...]) -> None:
    with nets.engine("x86"):
        model, migrated, x = converted_and_migrated(module, shape)
        expected = model(x)

        assert migrated.float_operators == []
        assert (expected - migrated(x)).abs().max() < 1.01 * step_of(expected)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.ConvTranspose2d(8, 16, 3, stride=2, output_padding=1), SHAPE),
        (nn.ConvTranspose2d(8, 16, 3, groups=2, padding=1), SHAPE),
        (nn.ConvTranspose1d(8, 12, 4, stride=2), (4, 8, 33)),
    ],
)
def test_transposed_convolutions(module: nn.Module, shape: tuple[int, ...]) -> None:
    with nets.engine("qnnpack"):  # torch.ao has them only with one scale per tensor
        model, migrated, x = converted_and_migrated(module, shape)
        expected = model(x)

        assert migrated.float_operators == []
        assert (expected - migrated(x)).abs().max() < 1.01 * step_of(expected)


def test_the_graph_has_the_scales_and_weights_of_the_model() -> None:
    with nets.engine("x86"):
        model = nets.convert(nets.Residual().eval().fuse(), torch.randn(4, 3, 10, 10))
        graph = pyquant.migrate(model, torch.randn(4, 3, 10, 10)).graph
    assert graph is not None
    buffers = dict(graph.named_buffers())
    weight = model.conv2.weight()
    first = graph.graph.find_nodes(
        op="call_function", target=torch.ops.quantized_decomposed.quantize_per_tensor.default
    )[0]

    assert torch.equal(buffers["conv2._packed_params.values"], weight.int_repr())
    assert torch.equal(
        buffers["conv2._packed_params.scales"], weight.q_per_channel_scales().float()
    )
    assert torch.equal(buffers["conv2._packed_params.bias"], model.conv2.bias())
    assert first.args[1:5] == (float(model.quant.scale), int(model.quant.zero_point), 0, 255)


@pytest.mark.parametrize("engine", nets.ENGINES)
@pytest.mark.parametrize("how", ["eager", "fx", "reference"])
def test_whole_models(how: str, engine: str) -> None:
    with nets.engine(engine):
        x = torch.randn(8, 3, 10, 10)
        if how == "eager":
            model = nets.convert(nets.Residual().eval().fuse(), x)
        else:
            model = nets.convert_fx(nets.Plain(), x, reference=how == "reference")
        migrated = pyquant.migrate(model, x[:2])
        expected = model(x)

        assert migrated.program is not None
        # One step of a layer in the middle may become two at the end.
        assert (expected - migrated(x)).abs().max() < 2.01 * step_of(expected)


def test_the_least_weight_is_kept() -> None:
    weight = torch.quantize_per_tensor(torch.full((4, 8, 3, 3), -9.0), 0.01, 0, torch.qint8)
    model = nets.convert(nets.between_stubs(nn.Conv2d(8, 4, 3)), torch.randn(SHAPE), "fbgemm")
    model[1].set_weight_bias(weight, torch.zeros(4))
    with nets.engine("x86"):
        migrated = pyquant.migrate(model, torch.randn(SHAPE))
        x = torch.rand(SHAPE) * 4 - 2

        assert migrated.program is not None
        assert torch.equal(model(x), migrated(x))
    assert set(weight.int_repr().unique().tolist()) == {-128}


def test_outputs_that_stay_quantized_become_float() -> None:
    model = nn.Sequential(torch.ao.quantization.QuantStub(), nn.Conv2d(3, 4, 3, bias=False))
    with nets.engine("x86"):
        model = nets.convert(model, torch.randn(2, 3, 8, 8))
        x = torch.randn(2, 3, 8, 8)

        assert torch.equal(model(x).dequantize(), pyquant.migrate(model, x)(x))


def test_the_model_is_not_changed() -> None:
    with nets.engine("x86"):
        x = torch.randn(4, 3, 10, 10)
        model = nets.convert(nets.Residual(), x)
        before = model(x)
        pyquant.migrate(model, x)

        assert torch.equal(model(x), before)
        assert "forward" not in vars(model)


def test_save_and_export(tmp_path: Path) -> None:
    mobile = pytest.importorskip("pyquant.mobile")
    pytest.importorskip("executorch")
    x = torch.randn(4, 3, 10, 10)
    with nets.engine("x86"):
        migrated = pyquant.migrate(nets.convert(nets.Residual().eval().fuse(), x), x[:1])
    migrated.save(tmp_path / "model.pyq")
    mobile.export(
        migrated, tmp_path / "b", targets=("executorch", "torchscript"), example_inputs=x[:1]
    )

    assert torch.equal(pyquant.load(tmp_path / "model.pyq")(x), migrated(x))
    mobile.verify(tmp_path / "b")


# --- What is refused.


class _Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, 1)


def test_an_unknown_function_is_named_with_its_module() -> None:
    model = nn.Sequential(nets.between_stubs(nn.Conv2d(3, 4, 3)))
    with nets.engine("x86"):
        model = nets.convert(model, torch.randn(2, 3, 8, 8))
    model[0].insert(2, _Odd())

    with pytest.raises(CaptureError, match=r"module '0\.2': the function 'cumsum'"):
        pyquant.migrate(model, torch.randn(2, 3, 8, 8))


def test_dynamic_modules_are_named() -> None:
    with nets.silent():
        model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)))

    with pytest.raises(CaptureError, match=r"'0' \(Linear\).*pyquant\.quantize_dynamic"):
        pyquant.migrate(model, torch.randn(2, 4))


def test_float_models_are_sent_to_quantize() -> None:
    with pytest.raises(CaptureError, match=r"nothing that torch\.ao.*pyquant\.quantize"):
        pyquant.migrate(nn.Sequential(nn.Linear(4, 4)), torch.randn(2, 4))


def test_quantized_inputs_are_refused() -> None:
    with nets.engine("x86"):
        model = nets.convert(nets.Residual(), torch.randn(4, 3, 10, 10))
    inputs = torch.quantize_per_tensor(torch.randn(4, 3, 10, 10), 0.1, 0, torch.quint8)

    with pytest.raises(CaptureError, match="float tensors"):
        pyquant.migrate(model, inputs)


def test_quantize_sends_converted_models_to_migrate() -> None:
    x = torch.randn(4, 3, 10, 10)
    with nets.engine("x86"):
        model = nets.convert(nets.Residual(), x)

    with pytest.raises(CaptureError, match=r"pyquant\.migrate"):
        pyquant.quantize(model, x, x)


def test_it_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    with nets.engine("x86"):
        model = nets.convert(nets.Residual(), torch.randn(4, 3, 10, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pyquant.migrate(model, torch.randn(4, 3, 10, 10))

    assert capfd.readouterr() == ("", "")


def test_torch_ao_is_not_imported_with_pyquant() -> None:
    import subprocess

    code = "import sys, pyquant; print('torch.ao.nn.quantized' in sys.modules)"
    alone = "import sys, torch; print('torch.ao.nn.quantized' in sys.modules)"
    outputs = [
        subprocess.run(
            [sys.executable, "-c", source],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,  # where no source folder hides the installed package
        )
        for source in (code, alone)
    ]

    assert outputs[0].stdout == outputs[1].stdout
