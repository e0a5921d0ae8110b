"""pyquant.prepare_qat: training with quantization in the graph, and what convert makes of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pyquant
from pyquant.analysis.sqnr import sqnr
from pyquant.errors import CalibrationError, CaptureError, QuantizationError
from pyquant.quantization.normalized_layer import NormalizedLayer


def train(prepared: nn.Module, data: Tensor, steps: int = 12, rate: float = 0.05) -> None:
    optimizer = torch.optim.SGD(prepared.parameters(), lr=rate, momentum=0.9)
    target = torch.randn(prepared(data).shape)
    prepared.train()
    for _ in range(steps):
        optimizer.zero_grad()
        F.mse_loss(prepared(data), target).backward()
        optimizer.step()
    prepared.eval()


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Conv2d(8, 8, 3, groups=8, padding=1),
        nn.BatchNorm2d(8, affine=False, momentum=0.3),
        nn.Hardswish(),
        nn.Flatten(),
        nn.Linear(8 * 36, 5),
        nn.BatchNorm1d(5),
    )


class TransposedAndShared(nn.Module):
    """A transposed convolution with batch norm and groups, a module used twice, a batch norm that
    nothing absorbs, and a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 8, 2, stride=2, groups=2)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.drop = nn.Dropout2d(0.2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.norm(self.up(self.first(x))))
        return self.drop(self.shared(self.shared(x)) + x).mean((2, 3))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "small": (small_net, (3, 8, 8)),
    "transposed and shared": (TransposedAndShared, (4, 6, 6)),
    "1-d": (
        lambda: nn.Sequential(nn.Conv1d(3, 6, 3), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 4, 1)),
        (3, 16),
    ),
}


LEARNED: dict[str, dict[str, bool]] = {
    "nothing learned": {},
    "step sizes": {"learned_step_size": True},
    "step sizes and offsets": {"learned_step_size": True, "learned_offset": True},
}


@pytest.mark.parametrize("learned", LEARNED)
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("net", NETS)
def test_the_converted_model_is_the_trained_one(net: str, per_channel: bool, learned: str) -> None:
    build, shape = NETS[net]
    model = build()
    before = copy.deepcopy(model.state_dict())
    data = torch.randn(16, *shape)
    config = pyquant.QatConfig(per_channel=per_channel, **LEARNED[learned])
    prepared = pyquant.prepare_qat(model, data[:2], config)
    train(prepared, data, rate=0.01)

    graph = pyquant.convert(prepared)
    quantized = pyquant.lower(graph)

    expected = prepared(data)
    step = float(last_scale(graph))
    assert (graph(data) - expected).abs().max() <= step * 1.01
    assert (quantized(data) - expected).abs().max() <= step * 1.01
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name  # the model itself is not trained


def last_scale(graph: torch.fx.GraphModule) -> float:
    nodes = [n for n in graph.graph.nodes if "dequantize_per_tensor" in str(n.target)]
    return nodes[-1].args[1]


def test_names_and_shapes_of_parameters_are_the_models() -> None:
    model = small_net()
    prepared = pyquant.prepare_qat(model, torch.randn(2, 3, 8, 8))
    assert dict(prepared.named_parameters()).keys() == dict(model.named_parameters()).keys()
    state = prepared.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value), name


def test_modes_keep_dropout_and_momentum() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, momentum=0.25), nn.Dropout(0.4))
    x = torch.randn(8, 3, 16, 16)
    prepared = pyquant.prepare_qat(model, x[:2])
    for _ in range(2):
        prepared.eval()
        assert torch.equal(prepared(x), prepared(x))
        prepared.train()
        share = float((prepared(x) == 0).float().mean())
        assert abs(share - 0.4) < 0.05
    twin = copy.deepcopy(model).train()
    assert not torch.equal(prepared.get_buffer("1.running_mean"), twin[1].running_mean)
    for _ in range(2):
        twin(x)
    mean = prepared.get_buffer("1.running_mean")
    torch.testing.assert_close(mean, twin[1].running_mean, atol=0.02, rtol=0)
    assert int(prepared.get_buffer("1.num_batches_tracked")) == 2


def test_training_is_that_of_the_model_but_for_rounding() -> None:
    """Of a net without activations to clamp: gradients are those of the float net."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).train()
    with torch.no_grad():
        model[1].weight.uniform_(-1, 1)
        model[1].weight[0] = 0  # as torchvision's zero_init_residual
        model[1].running_var.uniform_(0.5, 2)
    x, dy = torch.randn(8, 3, 9, 9), torch.randn(8, 8, 7, 7)
    prepared = pyquant.prepare_qat(model, x[:2])

    y = prepared(x)
    y.backward(dy)
    expected = model(x)
    expected.backward(dy)

    assert (y - expected).abs().max() < 0.1
    for (name, own), other in zip(
        prepared.named_parameters(),
        [dict(model.named_parameters())[n] for n, _ in prepared.named_parameters()],
        strict=True,
    ):
        assert own.grad is not None and other.grad is not None
        if name == "0.bias":  # batch norm takes it out: rounding errors only
            continue
        error = (own.grad - other.grad).norm() / other.grad.norm()
        assert error < 0.05, name


def test_a_batch_norm_in_eval_mode_stays_frozen() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)).train()
    model[1].eval()
    prepared = pyquant.prepare_qat(model, torch.randn(2, 3, 8, 8))
    prepared.train()
    prepared(torch.randn(4, 3, 8, 8) + 5)
    assert torch.equal(prepared.get_buffer("1.running_mean"), torch.zeros(4))


class PerChannel(nn.Module):
    """Slopes and factors per channel, and a linear layer over ``[N, H, W, C]``."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.slopes = nn.PReLU(8)
        self.linear = nn.Linear(8, 8)
        self.factors = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.slopes(self.first(x))
        return y + self.linear(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) * self.factors


def test_what_stands_per_channel_is_trained() -> None:
    torch.manual_seed(0)
    model, x = PerChannel(), torch.randn(4, 3, 9, 9)
    prepared = pyquant.prepare_qat(model, x)
    prepared(x).square().mean().backward()
    trained = {n: p for n, p in prepared.named_parameters() if p.grad is not None}
    assert sum(p.numel() for p in trained.values()) == sum(p.numel() for p in model.parameters())
    torch.optim.SGD(trained.values(), 0.1).step()
    prepared.eval()
    graph = pyquant.convert(prepared)
    lowered = pyquant.lower(graph, whole=True)
    assert torch.allclose(lowered(x), graph(x), atol=1e-6)


def test_freezing() -> None:
    x = torch.randn(8, 3, 8, 8)
    prepared = pyquant.prepare_qat(small_net(), x[:2])
    prepared(x)
    schedule = pyquant.FreezeSchedule(prepared, batch_norm=2, observers=1)

    schedule.step()
    seen = states(prepared, "min_val")
    prepared(3 * x)
    assert same(seen, states(prepared, "min_val"))
    mean = states(prepared, "running_mean")
    schedule.step()
    assert schedule.state_dict() == {"steps": 2}
    assert not same(mean, states(pyquant.prepare_qat(small_net(), x[:2]), "running_mean"))
    prepared(5 * x)
    assert same(mean, states(prepared, "running_mean"))
    pyquant.freeze_observers(prepared, False)
    pyquant.freeze_batch_norm(prepared, False)
    prepared(5 * x)
    assert not same(seen, states(prepared, "min_val"))
    assert not same(mean, states(prepared, "running_mean"))
    with pytest.raises(QuantizationError, match="prepare_qat"):
        pyquant.freeze_observers(nn.Linear(2, 2))


def states(module: nn.Module, kind: str) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items() if k.endswith(kind)}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_training_recovers_what_rounding_loses(
    digits: Any, digits_net: Callable[[str], nn.Module]
) -> None:
    """Channels of very different size and one scale per tensor: that costs a fifth."""
    net = copy.deepcopy(digits_net("resnet"))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in net:
            if hasattr(block, "body"):  # ReLU in between: the net computes what it did
                norm, after = block.body[0][1], block.body[1][0]
                shape = norm.weight.shape
                factors = 2.0 ** torch.empty(shape).uniform_(-4.5, 4.5, generator=generator)
                norm.weight *= factors
                norm.bias *= factors
                after.weight /= factors[:, None, None]
    config = pyquant.QuantizationConfig(per_channel=False)
    images, labels = digits.train_images, digits.train_labels
    after_training = pyquant.quantize(net, images[:1], images[:256], config, progress=False)
    prepared = pyquant.prepare_qat(net, images[:1], pyquant.QatConfig(per_channel=False))
    optimizer = torch.optim.SGD(prepared.parameters(), 2e-3, momentum=0.9)
    batches = torch.randperm(len(labels), generator=generator).split(64)[:-1]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(batches))
    for batch in batches:
        optimizer.zero_grad()
        F.cross_entropy(prepared(images[batch]), labels[batch], label_smoothing=0.1).backward()
        optimizer.step()
        schedule.step()
    prepared.eval()
    trained = pyquant.lower(pyquant.convert(prepared))

    assert digits.accuracy(trained) > digits.accuracy(after_training) + 0.1
    with torch.no_grad():
        assert sqnr(prepared(digits.test_images), trained(digits.test_images)) > 20


@pytest.mark.parametrize("learned", LEARNED)
def test_copies_and_saved_states_go_on_where_the_graph_was(learned: str) -> None:
    x = torch.randn(8, 3, 8, 8)
    config = pyquant.QatConfig(**LEARNED[learned])
    prepared = pyquant.prepare_qat(small_net(), x[:2], config)
    train(prepared, x, steps=3)
    pyquant.freeze_batch_norm(prepared)
    fresh = pyquant.prepare_qat(small_net(), x[:2], config)
    fresh.load_state_dict(prepared.state_dict())
    fresh.eval()
    assert torch.equal(fresh(x), prepared(x))
    assert torch.equal(copy.deepcopy(prepared)(x), prepared(x))
    layers = [m for m in fresh.modules() if isinstance(m, NormalizedLayer)]
    assert all(layer.frozen for layer in layers)


def test_keep_float_layers_are_trained_in_float() -> None:
    x = torch.randn(8, 3, 8, 8)
    config = pyquant.QatConfig(keep_float=("0",))
    prepared = pyquant.prepare_qat(small_net(), x[:2], config)
    train(prepared, x, steps=2)
    q = pyquant.lower(pyquant.convert(prepared))
    assert any("conv2d" in str(operator) for operator in q.float_operators)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observer": "histogram"}, "moving_average"),
        ({"bias_correction": True}, "bias_correction"),
        ({"equalize": True}, "equalize"),
        ({"averaging_constant": 0.0}, "averaging_constant"),
        ({"learned_offset": True}, "learned_step_size"),
    ],
)
def test_what_a_config_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(QuantizationError, match=message):
        pyquant.QatConfig(**options)


def test_what_prepare_qat_refuses() -> None:
    x = torch.randn(2, 3, 8, 8)
    with pytest.raises(QuantizationError, match="QatConfig"):
        pyquant.prepare_qat(small_net(), x, pyquant.QuantizationConfig())  # type: ignore[arg-type]
    from pyquant.capture import capture

    with pytest.raises(CaptureError, match="captured already"):
        pyquant.prepare_qat(capture(small_net(), x), x)
    with pytest.raises(CalibrationError, match="no data reached"):
        pyquant.convert(pyquant.prepare_qat(small_net(), x))
    with pytest.raises(QuantizationError, match="nothing to do"):
        pyquant.sync_observers(pyquant.prepare_qat(small_net(), x))
