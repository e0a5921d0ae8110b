"""pyquant.capture: the graph computes what the model computes, in canonical spelling."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from pyquant.capture import capture
from pyquant.errors import CaptureError, QuantizationError

make_quantized: Any = torch.ao.nn.quantized.ReLU6
IMAGE = torch.linspace(-4, 4, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8).roll(7, -1)


class Lambda(nn.Module):
    """A convolution and then a function of its output."""

    def __init__(self, function: Callable[..., Any], channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.conv(x))


def ops(module: fx.GraphModule) -> Counter[str]:
    """How often each operator occurs, by its short name."""
    calls = (node for node in module.graph.nodes if node.op.startswith("call"))
    return Counter(str(node.target).removeprefix("aten.").split(".")[0] for node in calls)


def check(model: nn.Module, *inputs: torch.Tensor, exact: bool = True) -> fx.GraphModule:
    """Captures and compares with the model, also with another batch size."""
    model.eval()
    module = capture(model, inputs)
    for batch in (inputs, tuple(x[:1] for x in inputs)):
        with torch.no_grad():
            expected = model(*(x.clone() for x in batch))
            actual = module(*(x.clone() for x in batch))
        tolerance = 0.0 if exact else 1e-5
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)
    return module


def view_then_write(y: torch.Tensor) -> torch.Tensor:
    y[:, 0] = 0
    return y * 2


def mutated_through_view(y: torch.Tensor) -> torch.Tensor:
    flat = y.view(y.shape[0], -1)
    flat.add_(1)
    return y * 2


def old_view_sees_mutation(y: torch.Tensor) -> torch.Tensor:
    flat = y.flatten(1)
    y.relu_()
    return flat + 1


def clone_keeps_old(y: torch.Tensor) -> torch.Tensor:
    old = y.clone()
    y.relu_()
    return y - old


def dropout_aliases(y: torch.Tensor) -> torch.Tensor:
    kept = F.dropout(y, training=False)
    y.mul_(2)
    return kept + y


def original_read_later(y: torch.Tensor) -> torch.Tensor:
    z = y.add_(1)
    return y.mul_(3) + z


@pytest.mark.parametrize(
    "function",
    [
        lambda y: F.relu_(y),
        lambda y: F.hardtanh_(y, -1, 2),
        lambda y: F.hardswish(y, inplace=True),
        lambda y: F.silu(y, inplace=True),
        lambda y: y.add_(y).mul_(2),
        lambda y: y.clamp_(0, 6).sub_(1),
        view_then_write,
        mutated_through_view,
        old_view_sees_mutation,
        clone_keeps_old,
        dropout_aliases,
        original_read_later,
    ],
)
def test_in_place_operators_become_functional(function: Callable[..., Any]) -> None:
    module = check(Lambda(function), IMAGE)
    for node in module.graph.nodes:
        if node.op == "call_function":
            assert not node.target._schema.is_mutable, node.format_node()


def test_in_place_on_the_input() -> None:
    class Subtract(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x -= self.mean
            return x * 2

    assert set(ops(check(Subtract(), IMAGE))) == {"sub", "mul"}


@pytest.mark.parametrize(
    "function",
    [
        lambda y: F.dropout2d(F.dropout(y, training=False), training=False),
        lambda y: F.alpha_dropout(y, training=False),
        lambda y: y.contiguous(memory_format=torch.channels_last).clone().detach(),
        lambda y: y.to(torch.float32).to("cpu").float(),
        lambda y: y[:, :, :],
        lambda y: y.view(y.shape),
    ],
)
def test_identities_vanish(function: Callable[..., Any]) -> None:
    assert ops(check(Lambda(function), IMAGE)) == {"conv2d": 1}


def test_views_stay_valid_when_contiguous_vanishes() -> None:
    def shuffle(y: torch.Tensor) -> torch.Tensor:
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)

    assert "contiguous" not in ops(check(Lambda(shuffle), IMAGE))


def test_quant_stubs_and_float_functional_vanish() -> None:
    class Eager(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant = torch.ao.quantization.QuantStub()
            self.dequant = torch.ao.quantization.DeQuantStub()
            self.functional = torch.ao.nn.quantized.FloatFunctional()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.quant(x)
            y: torch.Tensor = self.dequant(self.functional.add_relu(x, self.conv(x)))
            return y

    assert ops(check(Eager(), IMAGE)) == {"conv2d": 1, "add": 1, "relu": 1}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda y: F.relu6(y), ("hardtanh", 0.0, 6.0)),
        (lambda y: nn.ReLU6(inplace=True)(y), ("hardtanh", 0.0, 6.0)),
        (lambda y: y.clamp(-1, 2), ("hardtanh", -1.0, 2.0)),
        (lambda y: torch.clip(y, min=-1, max=2), ("hardtanh", -1.0, 2.0)),
        (lambda y: F.hardtanh(y), ("hardtanh", -1.0, 1.0)),
        (lambda y: y.clamp(min=0), ("relu",)),
        (lambda y: y.clamp_min(0.0), ("relu",)),
        (lambda y: F.threshold(y, 0, 0), ("relu",)),
        (lambda y: y.clamp(max=2), ("clamp", None, 2)),
        (lambda y: y.clamp(min=-1), ("clamp", -1)),
        (lambda y: y.clamp(2, 1), ("clamp", 2, 1)),
    ],
)
def test_clamps(function: Callable[..., Any], expected: tuple[Any, ...]) -> None:
    module = check(Lambda(function), IMAGE)
    node = next(n for n in reversed(module.graph.nodes) if n.op == "call_function")
    assert (str(node.target).split(".")[1], *node.args[1:]) == expected


class Padded(nn.Module):
    def __init__(self, pad: Callable[..., Any], conv: nn.Module | None = None) -> None:
        super().__init__()
        self.pad = pad
        self.conv = conv or nn.Conv2d(3, 4, 3, padding=(1, 0), stride=2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.conv(self.pad(x))


@pytest.mark.parametrize(
    ("pad", "padding", "left_over"),
    [
        (lambda x: F.pad(x, (2, 2, 1, 1)), [2, 2], 0),
        (nn.ZeroPad2d(1), [2, 1], 0),
        (nn.ConstantPad2d((1, 1, 0, 0), 0.0), [1, 1], 0),
        (lambda x: torch.constant_pad_nd(x, (1, 1, 1, 1), 0), [2, 1], 0),
        (lambda x: F.pad(F.pad(x, (1, 0, 1, 0)), (0, 1, 0, 1)), [2, 1], 0),
        (lambda x: F.pad(x, (0, 1, 0, 1)), [1, 0], 1),
        (lambda x: F.pad(x, (-1, -1, 0, 0)), [1, 0], 1),
        (lambda x: F.pad(x, (1, 1, 1, 1), value=1.0), [1, 0], 1),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), [1, 0], 1),
    ],
)
def test_padding_folds_into_convolution(
    pad: Callable[..., Any], padding: list[int], left_over: int
) -> None:
    module = check(Padded(pad), IMAGE, exact=False)
    (conv,) = module.graph.find_nodes(op="call_function", target=torch.ops.aten.conv2d.default)
    assert conv.args[4] == padding
    assert ops(module)["pad"] == left_over
    assert ops(module)["constant_pad_nd"] == 0


def test_padding_with_another_reader_stays() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.pad(x, (1, 1, 1, 1))
            return torch.as_tensor(self.conv(y)) + y

    assert ops(check(Two(), IMAGE))["pad"] == 1


@pytest.mark.parametrize(
    ("conv", "pads"),
    [
        (nn.Conv2d(3, 4, 3, padding="same", dilation=2), 0),
        (nn.Conv2d(3, 4, (2, 3), padding="same"), 1),
        (nn.Conv2d(3, 4, 3, padding="valid"), 0),
    ],
)
def test_named_padding(conv: nn.Module, pads: int) -> None:
    module = check(Padded(lambda x: x, conv), IMAGE, exact=False)
    assert ops(module) == Counter({"conv2d": 1, "pad": pads}) + Counter()


@pytest.mark.parametrize(
    "function",
    [
        lambda y: y.mean([2, 3]),
        lambda y: y.mean((-1, -2)),
        lambda y: F.adaptive_avg_pool2d(y, 1).view(y.shape[0], -1),
        lambda y: F.adaptive_avg_pool2d(y, 1).reshape(y.size(0), 4),
        lambda y: torch.flatten(F.adaptive_avg_pool2d(y, 1), start_dim=-3),
        lambda y: F.adaptive_avg_pool2d(y, 1).squeeze(-1).squeeze(-1),
        lambda y: y.mean([2, 3], keepdim=True).squeeze([2, 3]),
    ],
)
def test_global_pooling_has_one_spelling(function: Callable[..., Any]) -> None:
    module = check(Lambda(function), IMAGE, exact=False)
    assert ops(module) == {"conv2d": 1, "adaptive_avg_pool2d": 1, "flatten": 1}


@pytest.mark.parametrize(
    "function",
    [
        lambda y: F.adaptive_max_pool2d(y, 1).flatten(1),
        lambda y: F.adaptive_max_pool2d(y, (1, 1), return_indices=True)[0].view(y.shape[0], -1),
        lambda y: y.amax((-1, -2)),
        lambda y: y.amax([3, 2], keepdim=True).squeeze([2, 3]),
    ],
)
def test_global_max_pooling_has_one_spelling(function: Callable[..., Any]) -> None:
    module = check(Lambda(function), IMAGE, exact=False)
    assert ops(module) == {"conv2d": 1, "amax": 1, "flatten": 1}


def test_other_adaptive_max_pooling() -> None:
    module = check(Lambda(lambda y: F.adaptive_max_pool2d(y[..., :6, :8], (3, 2))), IMAGE)
    assert ops(module)["max_pool2d"] == 1
    for function in (
        lambda y: F.adaptive_max_pool2d(y[..., :6, :8], (3, 3)),
        lambda y: F.adaptive_max_pool2d(y, 1, return_indices=True)[1] * y,
    ):
        assert ops(check(Lambda(function), IMAGE))["adaptive_max_pool2d"] == 1


@pytest.mark.parametrize("rank", [3, 4])
def test_a_slope_per_channel(rank: int) -> None:
    layer = nn.PReLU(3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([-0.3, 0.0, 1.7]))
    x = IMAGE if rank == 4 else IMAGE[..., 0]
    found = ops(check(layer, x, exact=False))
    assert found == {"relu": 1, "clamp": 1, "batch_norm": 1, "add": 1}
    assert ops(check(nn.PReLU(), x)) == ops(check(nn.PReLU(4), torch.randn(2, 4))) == {"prelu": 1}


class ChannelsLast(nn.Module):
    """The second half of a ConvNeXt block, and a residual sum over ``[N, H, W, C]``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.LayerNorm(6)
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))
        self.scale = nn.Parameter(torch.rand(6, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).permute(0, 2, 3, 1)
        y = (y + self.layers(self.norm(y))).permute(0, -1, 1, 2)
        return y + y * self.scale


def test_linear_layers_over_images_are_convolutions() -> None:
    found = ops(check(ChannelsLast(), IMAGE, exact=False))
    # Around the layer norm permutations stay.
    assert found == {
        "conv2d": 3,
        "permute": 2,
        "layer_norm": 1,
        "gelu": 1,
        "add": 2,
        "batch_norm": 1,
    }


def test_what_is_no_image_stays_a_linear_layer() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(self.layer(x))

    for shape in ((5, 6), (2, 5, 6), (2, 3, 4, 5, 6)):
        assert ops(check(Rows(), torch.randn(shape))) == {"linear": 1, "relu": 1}
    assert ops(check(Rows(), torch.randn(2, 4, 5, 6), exact=False)) == {
        "permute": 2,
        "conv2d": 1,
        "relu": 1,
    }


def test_constants_fold() -> None:
    conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    assert ops(check(Padded(lambda x: x, conv), IMAGE, exact=False)) == {"conv2d": 1}


def test_shared_weights() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3, padding=1)
            self.second = nn.Conv2d(3, 3, 3, padding=1)
            self.second.weight = self.first.weight
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: torch.Tensor) -> Any:
            return self.relu(self.second(self.relu(self.first(self.relu(self.first(x))))))

    assert ops(check(Shared(), IMAGE)) == {"conv2d": 3, "relu": 3}


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5", "mobilenet_v3_small", "densenet121"]
)
def test_torchvision(name: str, torchvision_model: Callable[[str], nn.Module]) -> None:
    check(torchvision_model(name), torch.randn(2, 3, 64, 64), exact=False)


def test_efficientnet_lite(efficientnet_lite0: nn.Module) -> None:
    module = check(efficientnet_lite0, torch.randn(2, 3, 224, 224), exact=False)
    assert ops(module)["pad"] == 5  # 17, of which only those with stride 2 are asymmetric


def test_the_model_is_left_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    capture(model, IMAGE)
    assert [m.training for m in model.modules()] == [True, True, False, True]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_mode_may_be_switched() -> None:
    module = capture(Lambda(F.relu), IMAGE)
    module.train()
    module.eval()


def test_capturing_twice_copies() -> None:
    module = capture(Lambda(F.relu), IMAGE)
    again = capture(module, IMAGE)
    assert again is not module
    assert torch.equal(again(IMAGE), module(IMAGE))


def test_data_dependent_control_flow_names_the_line() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> Any:
            if x.sum() > 0:  # the culprit
                return self.conv(x)
            return x

    with pytest.raises(CaptureError, match=r"test_capture\.py:\d+ .*the culprit") as info:
        capture(Branch(), IMAGE)
    assert "torch.where" in str(info.value)


def test_a_model_that_does_not_run_says_so() -> None:
    with pytest.raises(CaptureError, match="does not run on the example inputs"):
        capture(nn.Conv2d(5, 4, 3), IMAGE)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet18", "got str"),
        (nn.ReLU(), "no floating-point parameters"),
        (nn.Sequential(nn.Conv2d(3, 3, 1), make_quantized()), "module '1'"),
    ],
)
def test_what_is_no_float_model_is_refused(model: Any, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        capture(model, IMAGE)


@pytest.mark.parametrize("inputs", ["x", (), None, {"x": IMAGE}])
def test_example_inputs_are_checked(inputs: Any) -> None:
    with pytest.raises(CaptureError, match="example_inputs"):
        capture(Lambda(F.relu), inputs)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_parameters_are_named(value: float) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model.get_buffer("1.running_var")[2] = value
    with pytest.raises(QuantizationError, match=r"1\.running_var"):
        capture(model, IMAGE)


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> Any:
            return self.conv(x) if x.sum() > 0 else x

    level = logging.getLogger("torch").level
    capture(Lambda(view_then_write), IMAGE)
    with pytest.raises(CaptureError):
        capture(Branch(), IMAGE)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch").level == level
