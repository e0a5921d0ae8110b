"""Concatenation, slices, channel shuffles, resizing and transposed convolution, lowered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pyquant
from lowering.nets import IMAGE, Stem
from lowering.quantized_operator import FORMS, INT8, UINT8, fake_quantize, lowered_operator
from lowering.quantizers import (
    Quantizer,
    assert_whole,
    by_pyquant,
    by_x86,
    by_xnnpack,
    kinds,
    sqnr,
    steps_apart,
)
from pyquant.capture import capture
from pyquant.errors import InvalidInputError
from pyquant.ir import ops


def shuffle(x: Tensor, groups: int) -> Tensor:
    """As torchvision writes it."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, -1, height, width)


SHAPE = (2, 6, 9, 8)
MOVES: dict[str, tuple[Callable[[Tensor], Tensor], tuple[int, ...], list[ops.Op]]] = {
    "slice": (lambda x: x[:, 1:5], SHAPE, [ops.Slice(3, 1, 5)]),
    "slice from the end": (lambda x: x[:, -2:], SHAPE, [ops.Slice(3, 4, 6)]),
    "slice of rows": (lambda x: x[:, :, 2:7], SHAPE, [ops.Slice(1, 2, 7)]),
    "slice of columns": (lambda x: x[..., :3], SHAPE, [ops.Slice(2, 0, 3)]),
    "slice of rank 3": (lambda x: x[..., 1:3], (2, 5, 7), [ops.Slice(2, 1, 3)]),
    "chunk": (lambda x: x.chunk(3, 1)[1], SHAPE, [ops.Slice(3, 2, 4)]),
    "uneven chunk": (lambda x: x.chunk(4, 2)[2], SHAPE, [ops.Slice(1, 6, 9)]),
    "split": (lambda x: x.split(4, 1)[1], SHAPE, [ops.Slice(3, 4, 6)]),
    "split sizes": (lambda x: x.split([1, 2, 3], -3)[1], SHAPE, [ops.Slice(3, 1, 3)]),
    "channel shuffle": (lambda x: F.channel_shuffle(x, 3), SHAPE, [ops.ChannelShuffle(3)]),
    "nearest": (lambda x: F.interpolate(x, (5, 20)), SHAPE, [ops.ResizeNearest(5, 20)]),
    "nearest by scale": (
        lambda x: F.interpolate(x, scale_factor=2.0),
        SHAPE,
        [ops.ResizeNearest(0, 0, 2.0, 2.0)],
    ),
    "twice the same": (lambda x: torch.cat([x, x], 1), SHAPE, [ops.Concat(3)]),
    "cat of one": (lambda x: torch.cat([x], 1), SHAPE, []),
    "cat of rows": (
        lambda x: torch.cat([x, x[:, :, 1:]], -2),
        SHAPE,
        [ops.Slice(1, 1, 0), ops.Concat(1)],
    ),
    "cat of rank 2": (lambda x: torch.cat([x, x], 1), (3, 7), [ops.Concat(1)]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", MOVES)
def test_moves_are_exact(name: str, form: str) -> None:
    function, shape, expected = MOVES[name]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4)) * 3
    graph, lowered = lowered_operator(function, FORMS[form], x)
    assert_whole(lowered)
    assert steps_apart(graph, lowered, x) <= 0.01
    assert lowered.program is not None
    found = [node.op for node in lowered.program.nodes]
    assert [
        op for op in found if not isinstance(op, (ops.Quantize, ops.Dequantize, ops.LookupTable))
    ] == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("options", [{"size": (5, 20)}, {"scale_factor": (2.0, 1.5)}])
def test_bilinear_is_within_a_step(options: dict[str, Any], align: bool, form: str) -> None:
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(4)) * 3

    def function(x: Tensor) -> Tensor:
        return F.interpolate(x, mode="bilinear", align_corners=align, **options)

    graph, lowered = lowered_operator(function, FORMS[form], x)
    assert_whole(lowered)
    assert "ResizeBilinear" in kinds(lowered)
    assert steps_apart(graph, lowered, x) <= 1.01


class ConcatOfQparams(nn.Module):
    """Operands of other quantizers: each with qparams of its own."""

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        a, b = fake_quantize(a, UINT8), fake_quantize(b, (0.02, 30, 0, 255, torch.uint8))
        both = torch.cat([a, F.max_pool2d(b, 1), fake_quantize(c, UINT8)], 1)
        return fake_quantize(both, UINT8)


def test_operands_of_other_qparams_are_requantized_first() -> None:
    import torchao.quantization.pt2e.quantizer  # noqa: F401  (registers the q/dq operators)

    inputs = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(5)).unbind()
    graph = torch.export.export(ConcatOfQparams(), inputs).module()
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    assert kinds(lowered).count("LookupTable") == 1
    assert steps_apart(graph, lowered, *inputs) <= 0.01


TRANSPOSED: dict[str, dict[str, Any]] = {
    "plain": {"kernel_size": 2, "stride": 2},
    "padded": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    "groups": {"kernel_size": (4, 3), "stride": (2, 1), "padding": 1, "groups": 4},
    "dilated": {"kernel_size": 3, "dilation": 2, "padding": (2, 1)},
    "no bias": {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False},
}


class Upsampling(nn.Module):
    """A decoder: transposed convolution with BatchNorm and ReLU, then resizing."""

    def __init__(self, options: dict[str, Any], relu: bool = True) -> None:
        super().__init__()
        self.stem = Stem()
        self.up = nn.ConvTranspose2d(8, 12, **options)
        self.norm = nn.BatchNorm2d(12)
        nn.init.uniform_(self.norm.weight, 0.5, 2)
        nn.init.uniform_(self.norm.bias)
        self.relu = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.relu(self.norm(self.up(self.stem(x))))
        return result


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolution(name: str, relu: bool) -> None:
    model = Upsampling(TRANSPOSED[name], relu)
    graph = by_pyquant(model, IMAGE)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    # BatchNorm and ReLU are parts of it.
    assert kinds(lowered) == ["Quantize", "Conv2d", "ConvTranspose2d", "Dequantize"]
    assert steps_apart(graph, lowered, *IMAGE) <= 2.01
    with torch.no_grad():
        assert sqnr(model(*IMAGE), graph(*IMAGE)) >= 25


class TransposedHead(nn.Module):
    """A transposed convolution with a float32 result, which lies NHWC and leaves NCHW."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem()
        self.up = nn.ConvTranspose2d(8, 3, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.up(self.stem(x))
        return result


@pytest.mark.parametrize("quantizer", [by_pyquant, by_xnnpack])
def test_transposed_convolution_of_other_quantizers(quantizer: Quantizer) -> None:
    graph = quantizer(TransposedHead(), IMAGE)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    assert "ConvTranspose2d" in kinds(lowered)
    assert steps_apart(graph, lowered, *IMAGE) <= 1.01


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's unit with stride 1, and a pyramid's top-down step."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(8)
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True))
        self.down = nn.Conv2d(8, 8, 3, 2, 1)
        self.side = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        first, second = x.chunk(2, dim=1)
        x = shuffle(torch.cat((first, self.branch(second)), dim=1), 2)
        return self.side(x) + F.interpolate(self.down(x), size=x.shape[-2:])


@pytest.mark.parametrize("quantizer", [by_pyquant, by_x86, by_xnnpack])
def test_shuffle_unit(quantizer: Quantizer) -> None:
    graph = quantizer(ShuffleUnit(), IMAGE)
    lowered = pyquant.lower(graph)
    assert steps_apart(graph, lowered, *IMAGE) <= 2.01
    if quantizer is not by_pyquant:
        return  # the others know no channel shuffle and no resizing
    assert_whole(lowered)
    assert "ChannelShuffle" not in kinds(lowered)  # a part of the Concat
    batch = torch.randn(3, *IMAGE[0].shape[1:])
    assert steps_apart(graph, lowered, batch) <= 2.01


def test_concat_shares_the_qparams_of_its_operands() -> None:
    graph = by_pyquant(ShuffleUnit(), IMAGE)
    (concat,) = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.cat.default)
    (result,) = concat.users
    qparams = {source.args[1:6] for source in [*concat.args[0], result]}
    assert len(qparams) == 1


def test_capture_names_splits_and_shuffles() -> None:
    graph = capture(ShuffleUnit(), IMAGE)
    targets = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert targets.count("aten.slice.Tensor") == 2
    assert targets.count("aten.channel_shuffle.default") == 1
    assert not {"aten.chunk.default", "aten.transpose.int", "aten.reshape.default"} & set(targets)
    model = ShuffleUnit()
    with torch.no_grad():
        assert torch.equal(capture(model.eval(), IMAGE)(*IMAGE), model(*IMAGE))
        assert sqnr(model(*IMAGE), by_pyquant(model, IMAGE)(*IMAGE)) >= 25


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, ::2],
        lambda x: x.view(2, 2, 3, 9, 8).transpose(1, 3).reshape(SHAPE),
        lambda x: x.view(2, 3, 2, 8, 9).transpose(1, 2).reshape(SHAPE),
    ],
)
def test_what_only_looks_like_a_move_stays_float(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(SHAPE)
    graph, lowered = lowered_operator(function, INT8, x)
    assert lowered.float_operators != []
    assert steps_apart(graph, lowered, x) <= 0.01


class FrozenNorm(nn.Module):
    """torchvision's FrozenBatchNorm2d, behind a convolution and in front of one."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, 6, 3) for c in (3, 6))
        for name in ("weight", "bias", "mean", "var"):
            self.register_buffer(name, torch.rand(6) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, mean, var = (
            self.get_buffer(name).reshape(1, -1, 1, 1) for name in ("weight", "bias", "mean", "var")
        )
        scale = weight * (var + 1e-5).rsqrt()
        for conv in self.convs:
            x = F.relu(conv(x) * scale + (bias - mean * scale))
        return x


def test_frozen_batch_norm_is_folded() -> None:
    model = FrozenNorm()
    graph = by_pyquant(model, IMAGE)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    assert kinds(lowered) == ["Quantize", "Conv2d", "Conv2d", "Dequantize"]
    with torch.no_grad():
        captured = capture(model, IMAGE)(*IMAGE)
        assert torch.allclose(captured, model(*IMAGE), atol=1e-5)
        assert sqnr(model(*IMAGE), graph(*IMAGE)) >= 25


class Attention(nn.Module):
    """CBAM's gate: means and maxima of each channel through the same layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Stem(8)
        self.layers = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        pooled = (F.adaptive_avg_pool2d(y, 1), F.adaptive_max_pool2d(y, 1))
        return y * torch.sigmoid(self.layers(pooled[0]) + self.layers(pooled[1]))


def test_global_maxima_of_images_of_any_size() -> None:
    model = Attention().eval()
    graph = by_pyquant(model, IMAGE)
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    assert kinds(lowered).count("AdaptiveMaxPool2d") == 1
    for x in (*IMAGE, torch.randn(1, 3, 33, 8)):
        assert steps_apart(graph, lowered, x) <= 2.01
        with torch.no_grad():
            assert sqnr(model(x), graph(x)) > 20


class Cut(nn.Module):
    """A convolution, a cut, and a convolution behind it."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.function, self.last = Stem(6), function, nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.function(self.stem(x)))
        return result


#: name: the cut, and what it is in the Program.
CUTS: dict[str, tuple[Callable[[Tensor], Tensor], ops.Slice]] = {
    "inside": (lambda x: x[..., 1:-1], ops.Slice(2, 1, -1)),
    "to the end": (lambda x: x[:, :, 1:], ops.Slice(1, 1, 0)),
    "the last images": (lambda x: x[-2:], ops.Slice(0, -2, 0)),
    "from the end": (lambda x: x[:, :, -5:-1], ops.Slice(1, -5, -1)),
    "all of the example": (lambda x: x[:, :, -9:], ops.Slice(1, -9, 0)),
    "up to an index": (lambda x: x[..., -6:5], ops.Slice(2, -6, 5)),
    "absolute": (lambda x: x[..., 2:6], ops.Slice(2, 2, 6)),
    "narrow": (lambda x: x.narrow(2, -3, 2), ops.Slice(1, -3, -1)),
    "narrow to the end": (lambda x: x.narrow(3, -3, 3), ops.Slice(2, -3, 0)),
}


@pytest.mark.parametrize("name", CUTS)
def test_bounds_that_count_from_the_end_fit_other_sizes(name: str) -> None:
    function, expected = CUTS[name]
    torch.manual_seed(6)
    model = Cut(function).eval()
    graph = by_pyquant(model, (torch.randn(2, 3, 9, 8),))
    lowered = pyquant.lower(graph)
    assert_whole(lowered)
    assert lowered.program is not None
    slices = [node.op for node in lowered.program.nodes if isinstance(node.op, ops.Slice)]
    assert slices == [expected]
    for shape in [(2, 3, 9, 8), (5, 3, 12, 7), (3, 3, 10, 10)]:
        x = torch.randn(shape)
        with torch.no_grad():
            assert lowered(x).shape == model(x).shape
        assert steps_apart(graph, lowered, x) <= 1.01


def test_bounds_that_the_example_clamps_stay_float() -> None:
    # As an operator for this size they would be wrong for a larger one.
    model = Cut(lambda x: x[:, :, -20:-1]).eval()
    graph = by_pyquant(model, (torch.randn(2, 3, 9, 8),))
    lowered = pyquant.lower(graph)
    assert lowered.program is None
    for height in (9, 30):
        x = torch.randn(2, 3, height, 8)
        assert lowered(x).shape == model(x).shape
        assert steps_apart(graph, lowered, x) <= 1.01


def test_a_cut_of_more_than_there_is_names_the_operator() -> None:
    lowered = by_pyquant(Cut(lambda x: x[:, :, 3:-3]).eval(), (torch.randn(2, 3, 9, 8),))
    with pytest.raises(InvalidInputError, match=r"Slice 'slice.*3 to -3 of axis 1 is empty"):
        pyquant.lower(lowered)(torch.randn(2, 3, 6, 8))
