"""pyquant.quantization: prepare, calibrate, convert."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn
from torch.utils.data import DataLoader, TensorDataset

from pyquant.capture import capture
from pyquant.errors import CalibrationError, IoError, QuantizationError
from pyquant.quantization import (
    PyquantQuantizer,
    QuantizationConfig,
    calibrate,
    convert,
    prepare,
)

IMAGE = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
aten = torch.ops.aten
WEIGHTED = (aten.conv2d.default, aten.linear.default)
CLAMPS = (aten.relu.default, aten.hardtanh.default)
SAME_SCALE = (
    aten.max_pool2d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default,
    aten.flatten.using_ints,
    aten.pad.default,
)


class Small(nn.Module):
    """conv-bn-relu6, a residual sum, pooling, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU6())
        self.branch = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.stem(x)
        y = F.relu(y + self.branch(y))
        return self.head(F.max_pool2d(y, 2).mean([2, 3]))


class Apply(nn.Module):
    """A convolution, then ``function(its output)``."""

    def __init__(self, function: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.function = function
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, self.conv(x))


def quantized(model: nn.Module, *inputs: torch.Tensor, **options: Any) -> fx.GraphModule:
    prepared = prepare(model.eval(), inputs or IMAGE, QuantizationConfig(**options))
    calibrate(prepared, [inputs or (IMAGE,)])
    return convert(prepared)


def sqnr(reference: torch.Tensor, actual: torch.Tensor) -> float:
    noise = (reference - actual).double().square().sum()
    return 10 * math.log10(float(reference.double().square().sum() / noise))


def is_dequantize(node: Any) -> bool:
    return isinstance(node, fx.Node) and "dequantize_per" in str(node.target)


def is_quantize(node: Any) -> bool:
    return str(node.target).startswith("quantized_decomposed.quantize_per_tensor")


def calls(module: fx.GraphModule, *targets: Any) -> list[Any]:
    return [n for n in module.graph.nodes if n.op == "call_function" and n.target in targets]


def check_regions(module: fx.GraphModule) -> None:
    """Every operator reads dequantized values; its (clamped) output is quantized at once."""
    for node in calls(module, *WEIGHTED, aten.add.Tensor, *SAME_SCALE):
        operands = node.args[:2] if node.target in (*WEIGHTED, aten.add.Tensor) else node.args[:1]
        for operand in operands:
            assert is_dequantize(operand), node.format_node()
        last = node
        if node.target not in SAME_SCALE and next(iter(last.users)).target in CLAMPS:
            assert len(last.users) == 1
            last = next(iter(last.users))
        assert last.users and all(is_quantize(user) for user in last.users), last.format_node()
        if node.target in SAME_SCALE:
            assert node.args[0].args[1:3] == next(iter(node.users)).args[1:3]
    for node in calls(module, *WEIGHTED):
        data = node.args[1].args[0]
        assert data.op == "get_attr"
        assert getattr(module, data.target).dtype == torch.int8
        assert int(getattr(module, data.target).min()) >= -127


@pytest.mark.parametrize("observer", ["histogram", "minmax", "moving_average"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_small_model(observer: str, per_channel: bool) -> None:
    model = Small().eval()
    module = quantized(model, observer=observer, per_channel=per_channel)
    check_regions(module)
    assert not calls(module, aten.batch_norm.default)
    with torch.no_grad():
        assert sqnr(model(IMAGE), module(IMAGE)) > 20
    weight = calls(module, aten.conv2d.default)[0].args[1]
    assert ("per_channel" in str(weight.target)) is per_channel


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_torchvision(name: str, torchvision_model: Callable[[str], nn.Module]) -> None:
    model = torchvision_model(name)
    x = torch.randn(4, 3, 96, 96)
    module = quantized(model, x, observer="minmax")
    check_regions(module)
    sums = {"resnet18": 8, "mobilenet_v2": 10}[name]
    assert len(calls(module, aten.add.Tensor)) == sums
    assert not calls(module, aten.batch_norm.default)
    with torch.no_grad():
        assert sqnr(model(x), module(x)) > {"resnet18": 20, "mobilenet_v2": 8}[name]
        assert module(x[:1]).shape == (1, 1000)


def test_efficientnet_lite_beats_the_peers(
    efficientnet_lite0: nn.Module, photo_crops: Callable[[int, int], torch.Tensor]
) -> None:
    prepared = prepare(efficientnet_lite0, photo_crops(1, 0))
    calibrate(prepared, photo_crops(16, 0))
    module = convert(prepared)
    check_regions(module)
    unseen = photo_crops(8, 1)
    with torch.no_grad():
        reference, actual = efficientnet_lite0(unseen), module(unseen)
    assert sqnr(reference, actual) > 20
    assert (reference.argmax(1) == actual.argmax(1)).float().mean() >= 0.75


def test_range_is_taken_after_the_clamp() -> None:
    model = Apply(lambda self, y: F.relu6(y))
    nn.init.normal_(model.conv.weight, std=5)
    module = quantized(model, observer="minmax")
    (clamp,) = calls(module, aten.hardtanh.default)
    scale, zero_point = next(iter(clamp.users)).args[1:3]
    assert scale == pytest.approx(6 / 255)
    assert zero_point == -128


def test_no_fusion_when_the_intermediate_is_read_twice() -> None:
    module = quantized(Apply(lambda self, y: F.relu(y) + y))
    (conv,) = calls(module, aten.conv2d.default)
    assert all(is_quantize(user) for user in conv.users)
    check_regions(module)


def test_sum_of_a_tensor_with_itself() -> None:
    module = quantized(Apply(lambda self, y: y + y))
    check_regions(module)


def test_sum_that_repeats_dimensions() -> None:
    module = quantized(Apply(lambda self, y: y + y.mean([2, 3], keepdim=True)))
    (add,) = calls(module, aten.add.Tensor)
    assert all(is_quantize(user) for user in add.users)
    check_regions(module)


@pytest.mark.parametrize(
    "function",
    [
        lambda self, y: torch.add(y, y.sigmoid(), alpha=2),
        lambda self, y: y + torch.ones(8, 1, 1),
    ],
)
def test_other_sums_stay_float(function: Callable[..., Any]) -> None:
    (add,) = calls(quantized(Apply(function)), aten.add.Tensor)
    assert not any(is_quantize(user) for user in add.users)


def test_nothing_is_quantized_far_from_quantized_operators() -> None:
    module = quantized(Apply(lambda self, y: F.relu(y.softmax(1).flatten(1)).exp()))
    for node in calls(module, aten.flatten.using_ints, aten.relu.default):
        assert not is_dequantize(node.args[0])


@pytest.mark.parametrize(
    "function",
    [
        lambda self, y: self.norm(y) + y,  # another reader of the convolution
        lambda self, y: self.norm(F.max_pool2d(y, 2)),
        lambda self, y: self.norm(self.conv(self.norm(y)[:, :3])),  # one weight, used twice
        lambda self, y: self.flat(self.linear(y.mean([2, 3]))),
        lambda self, y: self.flat(F.relu(y.mean([2, 3]))),
    ],
)
def test_batch_norm_is_folded_exactly(function: Callable[..., Any]) -> None:
    model = Apply(
        function, norm=nn.BatchNorm2d(8), linear=nn.Linear(8, 8), flat=nn.BatchNorm1d(8)
    ).eval()
    for norm in (model.norm, model.flat):
        assert isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d))
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            assert tensor is not None
            nn.init.uniform_(tensor, 0.5, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared = prepare(model, IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(prepared(IMAGE), model(IMAGE), rtol=1e-4, atol=1e-4)
    assert not calls(prepared, aten.batch_norm.default)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_prepare_takes_a_captured_graph() -> None:
    model = Small().eval()
    captured = capture(model, IMAGE)
    prepared = prepare(captured, IMAGE)
    prepared.train()
    prepared.eval()
    with torch.no_grad():
        torch.testing.assert_close(prepared(IMAGE), captured(IMAGE), rtol=1e-4, atol=1e-4)
    assert calls(captured, aten.batch_norm.default), "the captured graph was changed"


def test_convert_leaves_the_prepared_graph_usable() -> None:
    prepared = prepare(Small(), IMAGE)
    calibrate(prepared, IMAGE)
    first = convert(prepared)
    calibrate(prepared, IMAGE * 10)
    second = convert(prepared)
    scales = [next(n for n in m.graph.nodes if is_quantize(n)).args[1] for m in (first, second)]
    assert scales[1] > scales[0]


def test_zero_tensors_and_channels_get_sane_scales() -> None:
    model = Apply(lambda self, y: self.second(F.relu(y)), second=nn.Conv2d(8, 4, 1)).eval()
    assert model.conv.bias is not None
    nn.init.constant_(model.conv.bias, -1e3)
    assert isinstance(model.second, nn.Conv2d)
    with torch.no_grad():
        model.second.weight[1] = 0
    for observer in ("histogram", "minmax", "moving_average"):
        module = quantized(model, observer=observer)
        for node in module.graph.nodes:
            if is_quantize(node):
                assert 1e-6 < node.args[1] < 1e6
        scale = calls(module, aten.conv2d.default)[1].args[1].args[1]
        scales = getattr(module, scale.target)
        assert float(scales[1]) == float(scales[[0, 2, 3]].max())
        torch.testing.assert_close(module(IMAGE), model(IMAGE), rtol=0.02, atol=0.02)


# ------------------------------------------------------------------------------------ errors


def test_a_model_without_quantizable_operators() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.exp(x) * self.factor

    with pytest.raises(QuantizationError, match="no operator that pyquant quantizes"):
        prepare(Scale(), IMAGE)


def test_half_precision_is_refused() -> None:
    with pytest.raises(QuantizationError, match=r"'conv\.weight' is bfloat16"):
        prepare(Apply(lambda self, y: y).bfloat16(), IMAGE.bfloat16())


def test_unknown_observer() -> None:
    with pytest.raises(QuantizationError, match="'histogram', 'mse', "):
        QuantizationConfig(observer="mean")  # type: ignore[arg-type]


def test_convert_refuses_what_is_not_calibrated() -> None:
    prepared = prepare(Small(), IMAGE)
    with pytest.raises(CalibrationError, match=r"no data reached 'x'"):
        convert(prepared)
    with pytest.raises(QuantizationError, match="prepare"):
        convert(capture(Small(), IMAGE))
    with pytest.raises(QuantizationError, match="prepare"):
        convert(Small())  # type: ignore[arg-type]


# ------------------------------------------------------------------------------- calibration


@pytest.fixture
def prepared() -> fx.GraphModule:
    return prepare(Small(), IMAGE, QuantizationConfig(observer="minmax"))


DATA = torch.randn(70, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def generator() -> Iterator[torch.Tensor]:
    yield from DATA


@pytest.mark.parametrize(
    "data",
    [
        DATA,
        DATA.numpy(),
        DATA.double(),
        list(torch.split(DATA, 7)),
        list(DATA),
        [(x, 3) for x in DATA],
        generator(),
        DataLoader(TensorDataset(DATA, torch.arange(70)), batch_size=16),
    ],
)
def test_forms_of_data(prepared: fx.GraphModule, data: Any) -> None:
    calibrate(prepared, data)
    first = next(n for n in convert(prepared).graph.nodes if is_quantize(n))
    low, high = float(DATA.min()), float(DATA.max())
    assert first.args[1] == pytest.approx((high - low) / 255, rel=1e-5)


def test_tensors_run_in_batches_of_32(prepared: fx.GraphModule) -> None:
    sizes: list[int] = []
    prepared.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    calibrate(prepared, DATA)
    assert sizes == [32, 32, 6]
    sizes.clear()
    calibrate(prepared, DATA, max_batches=1)
    assert sizes == [32]


def test_folder_of_images(prepared: fx.GraphModule, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "more").mkdir()
    for index, name in enumerate(["a.png", "more/b.JPG"]):
        pixels = np.full((16, 16, 3), 40 * (index + 1), np.uint8)
        image.fromarray(pixels).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")

    def transform(picture: Any) -> torch.Tensor:
        return torch.tensor(np.asarray(picture)).permute(2, 0, 1) / 255

    calibrate(prepared, tmp_path, transform=transform)
    first = next(n for n in convert(prepared).graph.nodes if is_quantize(n))
    assert first.args[1] == pytest.approx(80 / 255 / 255, rel=0.05)
    with pytest.raises(CalibrationError, match="transform"):
        calibrate(prepared, tmp_path)
    (tmp_path / "broken.png").write_bytes(b"not a png")
    with pytest.raises(CalibrationError, match=r"broken\.png"):
        calibrate(prepared, str(tmp_path), transform=transform)
    with pytest.raises(IoError):
        calibrate(prepared, tmp_path / "nowhere", transform=transform)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "empty"),
        (iter(()), "empty"),
        (DATA[:0], "empty"),
        ([{"image": DATA, "label": 1}], r"dict.*'image'.*batch\['image'\]"),
        ({"image": DATA}, "dict"),
        (17, "got int"),
        (["x"], "must hold 1 input"),
        ([DATA[:, :2]], r"expected shape \[N, 3, 16, 16\], got \[70, 2, 16, 16\]"),
        ([DATA[:, :, :8]], r"got \[70, 3, 8, 16\]"),
        ([DATA.byte()], "dtype"),
        ([DATA, DATA.where(DATA < 3, torch.nan)], "batch 1.*NaN"),
        ([DATA.where(DATA < 3, torch.inf)], "batch 0.*infinite"),
    ],
)
def test_bad_data(prepared: fx.GraphModule, data: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        calibrate(prepared, data)


@pytest.mark.parametrize("observer", ["histogram", "minmax", "moving_average"])
@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_nan_inside_names_the_layer_and_spoils_nothing(observer: str, bad: str) -> None:
    class Fragile(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 1)
            self.fragile = Fraction(bad)
            self.last = nn.Conv2d(8, 8, 1)

        def forward(self, x: torch.Tensor) -> Any:
            return self.last(self.fragile(self.first(x)))

    prepared = prepare(Fragile(), IMAGE, QuantizationConfig(observer=observer))  # type: ignore[arg-type]
    calibrate(prepared, IMAGE)
    with pytest.raises(CalibrationError, match=r"batch 1.*'fragile'"):
        calibrate(prepared, [IMAGE, IMAGE + 100])
    with torch.no_grad():
        assert torch.isfinite(convert(prepared)(IMAGE)).all()


class Fraction(nn.Module):
    """Fine for inputs around 0; not a number, or infinite, where the mean is large."""

    def __init__(self, bad: str) -> None:
        super().__init__()
        self.bad = bad

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        size = y.abs().amax()
        return y * (20 - size).sqrt() if self.bad == "nan" else y * (size * 10).exp()


def test_models_bound_to_their_batch_size() -> None:
    def pairs(self: nn.Module, y: torch.Tensor) -> torch.Tensor:
        return y.view(16, 16, 8).sum(1)  # holds the example's batch size, 1

    prepared = prepare(Apply(pairs), IMAGE)
    calibrate(prepared, DATA[:5])
    convert(prepared)
    two = prepare(Apply(lambda self, y: y.view(32, 16, 8).sum(1)), DATA[:2])
    calibrate(two, DATA[:4])
    with pytest.raises(CalibrationError, match=r"batch 0 of shape \[3, 3, 16, 16\] fails"):
        calibrate(two, DATA[:3])


def test_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
            return self.conv(x) + y

    prepared = prepare(Two(), (IMAGE, IMAGE))
    calibrate(prepared, [(DATA[:4], DATA[4:8], "label")])
    with pytest.raises(CalibrationError, match=r"2 input\(s\) \(x, y\)"):
        calibrate(prepared, DATA)


# ------------------------------------------------------------------------------------ extras


def test_the_quantizer_is_a_torchao_quantizer() -> None:
    from torchao.quantization.pt2e.quantizer import Quantizer

    assert isinstance(PyquantQuantizer(), Quantizer)


def test_import_is_light_and_silent() -> None:
    code = (
        "import sys, torch\n"
        "import pyquant.capture, pyquant.quantization\n"
        "heavy = {'torchao', 'executorch', 'torchvision', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "pyquant.quantization.PyquantQuantizer\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_the_whole_path_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    quantized(Small())
    assert capfd.readouterr() == ("", "")
