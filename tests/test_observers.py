"""pyquant.quantization.observers: against torchao's where those are exact, NumPy elsewhere."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchao.quantization.pt2e import observer as torchao

from pyquant import _C
from pyquant.errors import CalibrationError, InvalidInputError
from pyquant.quantization import observers as ours

SIDE = _C.HISTOGRAM_BINS // 2
PER_TENSOR: list[type[Any]] = [*dict.fromkeys(ours.ACTIVATION_OBSERVERS.values())]
PER_CHANNEL: list[type[Any]] = [
    ours.PerChannelMinMaxObserver,
    ours.PerChannelMovingAverageObserver,
    ours.PerChannelHistogramObserver,
    ours.PerChannelEntropyObserver,
    ours.PerChannelPercentileObserver,
]
#: dtype, scheme, quant_min, quant_max
TARGETS = [
    (torch.int8, torch.per_tensor_affine, -128, 127),
    (torch.int8, torch.per_tensor_symmetric, -127, 127),
    (torch.uint8, torch.per_tensor_affine, 0, 255),
    (torch.uint8, torch.per_tensor_symmetric, 0, 255),
]


def activations(seed: int = 0, relu: bool = False) -> Tensor:
    """Long-tailed, 70 000 values in several magnitudes, so that several threads count them."""
    x = torch.randn(2, 7, 50, 100, generator=torch.Generator().manual_seed(seed))
    x = x * x.abs().exp()
    return x.relu() if relu else x


def watch(observer: Any, *batches: Tensor) -> Any:
    for batch in batches:
        assert observer(batch) is batch
    return observer


def state(observer: Any) -> dict[str, list[Any]]:
    return {name: value.tolist() for name, value in observer.state_dict().items()}


# ------------------------------------------------------------------- against torchao, to the bit


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("own", "reference"),
    [
        (ours.MinMaxObserver, torchao.MinMaxObserver),
        (ours.MovingAverageObserver, torchao.MovingAverageMinMaxObserver),
    ],
)
@pytest.mark.parametrize("relu", [True, False])
def test_per_tensor_as_torchao(own: Any, reference: Any, target: Any, relu: bool) -> None:
    options = dict(zip(("dtype", "qscheme", "quant_min", "quant_max"), target, strict=True))
    batches = [activations(seed, relu) * (seed + 1) for seed in range(3)]
    actual, expected = (watch(cls(**options), *batches) for cls in (own, reference))
    for value, wanted in zip(actual.calculate_qparams(), expected.calculate_qparams(), strict=True):
        assert value.tolist() == wanted.tolist()


@pytest.mark.parametrize("axis", [0, 1, 3])
@pytest.mark.parametrize("qscheme", [torch.per_channel_affine, torch.per_channel_symmetric])
@pytest.mark.parametrize(
    ("own", "reference"),
    [
        (ours.PerChannelMinMaxObserver, torchao.PerChannelMinMaxObserver),
        (ours.PerChannelMovingAverageObserver, torchao.MovingAveragePerChannelMinMaxObserver),
    ],
)
def test_per_channel_as_torchao(own: Any, reference: Any, qscheme: Any, axis: int) -> None:
    options = {"dtype": torch.int8, "qscheme": qscheme, "quant_min": -127, "quant_max": 127}
    batches = [activations(seed) for seed in range(2)]
    actual, expected = (watch(cls(ch_axis=axis, **options), *batches) for cls in (own, reference))
    for value, wanted in zip(actual.calculate_qparams(), expected.calculate_qparams(), strict=True):
        assert value.tolist() == wanted.tolist()


# -------------------------------------------------------------------------------- the histogram


def numpy_histogram(x: np.ndarray[Any, Any], exponent: int) -> list[int]:
    distance = np.trunc(x.astype(np.float64) / 2.0**exponent).astype(int)
    return np.bincount(SIDE + distance - (x < 0), minlength=2 * SIDE).tolist()


def test_counts_are_those_of_numpy(isa: str) -> None:
    for relu in (False, True):
        for count in (1, 15, 16, 33, 5000, 70000):
            x = activations(relu=relu).flatten()[:count]
            histogram = watch(ours.HistogramObserver(), x)
            exponent = int(histogram.exponent)
            assert float(x.abs().max()) < SIDE * 2.0**exponent
            assert exponent == -40 or float(x.abs().max()) >= SIDE / 2 * 2.0**exponent
            assert histogram.counts.tolist() == numpy_histogram(x.numpy(), exponent)
            assert (histogram.min_val, histogram.max_val) == (x.min(), x.max())


def test_layouts_are_the_same_values() -> None:
    x = activations()
    expected = state(watch(ours.HistogramObserver(), x.contiguous()))
    with_gaps = torch.stack([x, x], -1)[..., 0]
    channels_last = x.to(memory_format=torch.channels_last)
    for other in (channels_last, x.transpose(1, 3), x.double(), with_gaps):
        assert state(watch(ours.HistogramObserver(), other)) == expected
    per_channel = state(watch(ours.PerChannelHistogramObserver(ch_axis=1), x))
    last = x.to(memory_format=torch.channels_last)
    assert state(watch(ours.PerChannelHistogramObserver(ch_axis=1), last)) == per_channel
    assert state(watch(ours.PerChannelHistogramObserver(ch_axis=2), x.transpose(1, 2))) == (
        per_channel
    )
    for channel in range(7):
        one = watch(ours.HistogramObserver(), x[:, channel])
        assert one.counts.tolist() == per_channel["counts"][channel]


def test_every_channel_grows_by_itself() -> None:
    x = torch.randn(3, 1000) * torch.tensor([[1.0], [1e-6], [1e6]])
    observer = watch(ours.PerChannelHistogramObserver(), x)
    assert observer.exponent[1] < observer.exponent[0] < observer.exponent[2]
    scales, zero_points = observer.calculate_qparams()
    assert scales.shape == zero_points.shape == (3,)
    for channel in range(3):
        one = watch(ours.HistogramObserver(), x[channel])
        assert float(one.calculate_qparams()[0]) == float(scales[channel])


def test_threads_change_nothing() -> None:
    x = torch.cat([activations(seed).flatten() for seed in range(4)])
    expected = state(watch(ours.HistogramObserver(), x))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert state(watch(ours.HistogramObserver(), x)) == expected
    finally:
        torch.set_num_threads(threads)


values = st.lists(
    st.floats(width=32, allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, -0.0, 1e30, -1e30, 1e-45, -1e-45, 1.0, -1.0, 2.0**-41, 3.4e38]),
    max_size=20,
)


@pytest.mark.parametrize("per_channel", [False, True])
@settings(deadline=None, max_examples=60)
@given(parts=st.lists(values, min_size=1, max_size=5), order=st.randoms(use_true_random=False))
def test_merging_is_seeing_all(per_channel: bool, parts: list[list[float]], order: Any) -> None:
    def new() -> Any:
        return ours.PerChannelHistogramObserver() if per_channel else ours.HistogramObserver()

    tensors = [torch.tensor(part * 2, dtype=torch.float32).view(2, -1) for part in parts]
    whole = watch(new(), torch.cat(tensors, 1))
    one_by_one = watch(new(), *tensors)
    separate = [watch(new(), tensor) for tensor in tensors]
    order.shuffle(separate)
    first, second = new(), new()
    for observer in separate[: len(separate) // 2]:
        first.merge(observer)
    for observer in separate[len(separate) // 2 :]:
        second.merge(observer)
    first.merge(second)
    if not whole.min_val.numel():  # an observer of channels that saw none
        whole = new()
    assert state(first) == state(one_by_one) == state(whole)


def test_merging_min_max_and_moving_averages() -> None:
    batches = [activations(seed) for seed in range(6)]
    for cls in (ours.MinMaxObserver, ours.MovingAverageObserver, *PER_CHANNEL[:2]):
        whole = watch(cls(), *batches)
        first, second = watch(cls(), *batches[:2]), watch(cls(), *batches[2:])
        first.merge(second)
        first.merge(cls())
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(first.state_dict()[name], value)
        empty = cls()
        empty.merge(whole)
        assert state(empty) == state(whole)


@pytest.mark.parametrize("cls", [*PER_TENSOR, *PER_CHANNEL])
def test_state_dict_round_trip(cls: type[Any], tmp_path: Path) -> None:
    observer = watch(cls(), activations(), activations(1) * 1000)  # grown
    torch.save(observer.state_dict(), tmp_path / "state.pt")
    restored = cls()
    restored.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert state(restored) == state(observer)
    assert state(watch(restored, activations(2))) == state(watch(observer, activations(2)))
    assert [value.tolist() for value in restored.calculate_qparams()] == [
        value.tolist() for value in observer.calculate_qparams()
    ]


# ------------------------------------------------------------------------------- choosing ranges


def mean_squared_error(x: Tensor, scale: Tensor, zero_point: Tensor, target: Any) -> float:
    q = torch.fake_quantize_per_tensor_affine(
        x, float(scale), int(zero_point), int(target[2]), int(target[3])
    )
    return float((x - q).double().square().mean())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "make",
    [
        lambda: activations(),
        lambda: activations(relu=True),
        lambda: torch.randn(100_000) + 1.5,
        lambda: -torch.rand(100_000) - 0.1,
        lambda: torch.cat([torch.randn(100_000), torch.tensor([300.0])]),
        lambda: torch.cat([torch.randn(100_000), torch.full((5000,), -20.0)]),
    ],
)
def test_least_squared_error(make: Callable[[], Tensor], target: Any) -> None:
    x = make()
    options = dict(zip(("dtype", "qscheme", "quant_min", "quant_max"), target, strict=True))
    scale, zero_point = watch(ours.HistogramObserver(**options), x).calculate_qparams()
    actual = mean_squared_error(x, scale, zero_point, target)
    grid = _C.Grid(target[2], target[3], target[1] is torch.per_tensor_symmetric)
    low, high = float(x.min().clamp(max=0)), float(x.max().clamp(min=0))
    steps = [2 ** (-i / 4) for i in range(24)]
    candidates = [
        (max(low, -max(-low, high) * step), min(high, max(-low, high) * step)) for step in steps
    ] + [(low * step, high * other) for step in steps for other in steps[::3]]
    best = min(
        mean_squared_error(x, *_C.qparams(torch.tensor([a]), torch.tensor([b]), grid), target)
        for a, b in candidates
    )
    assert actual < best * 1.02


def numpy_entropy_threshold(magnitudes: np.ndarray[Any, Any], levels: int, stride: int) -> int:
    """calib/histogram.py of NVIDIA's pytorch-quantization, _compute_amax_entropy."""
    bins = magnitudes.astype(np.float64).copy()
    bins[0] = bins[1]
    divergences = []
    sizes = range(levels, len(bins) + 1, stride)
    for size in sizes:
        level = np.digitize(range(size), np.linspace(0, size, num=levels + 1)) - 1
        level[bins[:size] == 0] = -1
        q = np.zeros(size)
        for number in range(levels):
            members = level == number
            if members.any():
                q[members] = bins[:size][members].sum() / members.sum()
        p = bins[:size].copy()
        p[-1] += bins[size:].sum()
        p, q = p / p.sum(), q / q.sum()
        if p[-1] > 0 and q[-1] == 0:
            q[-1] = 1e-4  # smoothed, as in ONNX Runtime
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(p > 0, p * np.log(p / q), 0)
        divergences.append(terms.sum())
    return sizes[int(np.argmin(divergences))]


@pytest.mark.parametrize(
    ("x", "target", "levels"),
    [
        (activations(), TARGETS[0], 128),
        (activations(), TARGETS[1], 128),
        (activations(relu=True), TARGETS[0], 256),
        (torch.randn(30_000).relu(), TARGETS[2], 256),
        (torch.randn(3000), TARGETS[1], 128),
    ],
)
def test_entropy_as_defined(x: Tensor, target: Any, levels: int) -> None:
    options = dict(zip(("dtype", "qscheme", "quant_min", "quant_max"), target, strict=True))
    observer = watch(ours.EntropyObserver(**options), x)
    width = 2.0 ** int(observer.exponent)
    magnitudes = np.bincount(np.trunc(x.abs().double().numpy().ravel() / width).astype(int))
    threshold = numpy_entropy_threshold(magnitudes, levels, stride=8) * width
    low, high = max(-threshold, float(x.min())), min(threshold, float(x.max()))
    expected = _C.qparams(torch.tensor([low]), torch.tensor([high]), observer._grid())
    assert [v.tolist() for v in observer.calculate_qparams()] == [v.tolist() for v in expected]
    assert threshold < float(x.abs().max())


@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.999, 100.0])
@pytest.mark.parametrize("target", TARGETS)
def test_percentile(target: Any, percentile: float) -> None:
    options = dict(zip(("dtype", "qscheme", "quant_min", "quant_max"), target, strict=True))
    x = activations()
    observer = watch(ours.PercentileObserver(percentile=percentile, **options), x)
    scale, zero_point = observer.calculate_qparams()
    low, high = ((q - int(zero_point)) * float(scale) for q in target[2:])
    width = 2.0 ** int(observer.exponent)
    if target[1] is torch.per_tensor_symmetric:
        wanted = np.quantile(x.abs().numpy(), percentile / 100, method="inverted_cdf")
        assert wanted <= high * 1.01 <= wanted * 1.02 + width
    else:
        cut = (1 - percentile / 100) / 2
        bounds = np.quantile(x.numpy(), [cut, 1 - cut], method="inverted_cdf")
        assert bounds[0] - width - float(scale) <= low <= bounds[0] + float(scale)
        assert bounds[1] - float(scale) <= high <= bounds[1] + width + float(scale)


def test_an_interval_bounds_what_is_seen() -> None:
    x = activations()
    for cls in PER_TENSOR:
        inside = watch(cls(interval=(-3.0, math.inf)), x)
        clamped = watch(cls(), x.clamp(min=-3))
        assert state(inside) == state(clamped)
        assert float(inside.min_val) == -3


# ------------------------------------------------------------------------------------ ugly input


@pytest.mark.parametrize("cls", [*PER_TENSOR, *PER_CHANNEL])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 20_000, -1])
def test_what_is_not_finite_is_refused(cls: type[Any], bad: float, position: int) -> None:
    observer = watch(cls(), activations())
    before = copy.deepcopy(state(observer))
    x = activations(1)
    x.view(-1)[position] = bad
    with pytest.raises(InvalidInputError, match="NaN or infinite"):
        observer(x)
    assert state(observer) == before


@pytest.mark.parametrize("cls", [*PER_TENSOR, *PER_CHANNEL])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(4, 8),
        -torch.zeros(4, 8),
        torch.full((4, 8), 2.5),
        torch.full((4, 8), -2.5),
        torch.full((4, 1), 7.0),
        torch.tensor([[1e30] * 8, [-1e30] * 8, [0.0] * 8, [1e-3] * 8]),
        torch.tensor([[3.4e38], [-3.4e38]]),
        torch.full((4, 8), 1e-42),
        torch.eye(4) * 1e-7,
        torch.tensor([[1.0], [float("1e-30")]]),
    ],
)
def test_ugly_tensors_get_sane_grids(cls: type[Any], target: Any, x: Tensor) -> None:
    scheme = (
        {
            torch.per_tensor_affine: torch.per_channel_affine,
            torch.per_tensor_symmetric: torch.per_channel_symmetric,
        }[target[1]]
        if cls in PER_CHANNEL
        else target[1]
    )
    observer = watch(cls(target[0], scheme, quant_min=target[2], quant_max=target[3]), x, x)
    scale, zero_point = observer.calculate_qparams()
    assert torch.isfinite(scale).all() and (scale >= 1.1920929e-7).all()
    assert (zero_point >= target[2]).all() and (zero_point <= target[3]).all()
    if cls is ours.MinMaxObserver:
        low, high = ((q - zero_point) * scale.double() for q in target[2:])
        tolerance = scale.double() * 0.51
        assert (x.min() >= low - tolerance).all() and (x.max() <= high + tolerance).all()
    if not x.any():
        assert (scale == 1).all()


def test_one_outlier_does_not_stop_percentile_and_entropy() -> None:
    x = torch.cat([torch.randn(1_000_000), torch.tensor([1000.0])])
    for cls in (ours.EntropyObserver, ours.PercentileObserver):
        scale, _ = watch(cls(), x).calculate_qparams()
        assert float(scale) < 0.2 * 1000 / 255


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("cls", [*PER_TENSOR, *PER_CHANNEL])
def test_other_float_types(cls: type[Any], dtype: torch.dtype) -> None:
    x = activations().to(dtype)
    observer = watch(cls(), x)
    assert state(observer) == state(watch(cls(), x.float()))
    assert observer.min_val.dtype == torch.float32


@pytest.mark.parametrize("cls", [*PER_TENSOR, *PER_CHANNEL])
def test_nothing_seen(cls: type[Any]) -> None:
    observer = watch(cls(), torch.zeros(0, 3))
    with pytest.raises(CalibrationError, match="no data"):
        observer.calculate_qparams()
    with pytest.raises(CalibrationError, match="no data"):
        watch(cls(), torch.zeros(3, 0)).calculate_qparams()


@pytest.mark.parametrize("cls", PER_CHANNEL)
def test_another_number_of_channels(cls: type[Any]) -> None:
    with pytest.raises(InvalidInputError, match="of 4 channels was given 5"):
        watch(cls(), torch.ones(4, 2), torch.ones(5, 2))


def test_a_weight_is_seen_once_and_read_when_asked() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    for cls in (ours.WeightObserver, ours.PerChannelWeightObserver):
        observer = cls(quant_min=-127, quant_max=127)
        watch(observer, weight, weight)
        scale, zero_point = observer.calculate_qparams()
        rows = weight.detach().reshape(1 if cls is ours.WeightObserver else 4, -1)
        assert scale.tolist() == _C.least_squares_scales(rows).tolist()
        assert not zero_point.any()
        with torch.no_grad():
            weight.mul_(2)  # e.g. equalization
        torch.testing.assert_close(observer.calculate_qparams()[0], scale * 2)
