"""The operators of quantization in training against plain float64 PyTorch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pyquant.errors import InvalidInputError
from pyquant.quantization.fake_quantize import FakeQuantize, PerChannelWeightFakeQuantize
from pyquant.quantization.fake_quantize_op import fake_quantize, observe_fake_quantize

GRID = (-128, 127)


def on_axis(values: Tensor, x: Tensor, axis: int | None) -> Tensor:
    if axis is None:
        return values.reshape([1] * x.dim())
    return values.reshape([-1 if dim == axis else 1 for dim in range(x.dim())])


def reference(
    x: Tensor, dy: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None
) -> tuple[Tensor, Tensor]:
    """Gradients in float64 of x and, by Esser et al. 2020, eq. 3, of the scale, not scaled."""
    s, z = (on_axis(value, x, axis) for value in (scale.double(), zero_point.double()))
    # Which values are clamped is decided in float32, as inference decides it.
    steps = (x * (1 / s).float()).double()
    low, high = GRID[0] - z, GRID[1] - z
    within = (steps.round() >= low) & (steps.round() <= high)
    slope = torch.where(within, steps.round() - x.double() / s, steps.clamp(low, high))
    products = dy.double() * slope
    if axis is None:
        return dy * within, products.sum().reshape(1)
    return dy * within, products.movedim(axis, 0).reshape(x.shape[axis], -1).sum(1)


def case(
    shape: tuple[int, ...], axis: int | None, layout: str, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x, dy = (torch.randn(shape, generator=generator) for _ in range(2))
    if layout == "channels_last" and x.dim() == 4:
        x = x.to(memory_format=torch.channels_last)
    elif layout == "transposed":
        x = x.transpose(0, -1)
        dy = dy.transpose(0, -1)
    elif layout == "strided":
        x = torch.stack([x, x], -1)[..., 0]
    channels = 1 if axis is None else x.shape[axis]
    scale = torch.rand(channels, generator=generator) * 0.02 + 0.002
    zero_point = torch.randint(-128, 128, (channels,), generator=generator)
    return x, dy, scale, zero_point


LAYOUTS = st.sampled_from(["contiguous", "channels_last", "transposed", "strided"])


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    axis=st.none() | st.integers(0, 3),
    layout=LAYOUTS,
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_rounding_and_gradients_of_any_layout(
    shape: tuple[int, ...], axis: int | None, layout: str, seed: int
) -> None:
    if axis is not None:
        axis %= len(shape)
    check(*case(shape, axis, layout, seed), axis)


def test_rounding_and_gradients_on_every_isa(isa: str) -> None:
    for axis in (None, 0, 1):
        check(*case((3, 5, 83, 101), axis, "contiguous", 0), axis)


def check(x: Tensor, dy: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> None:
    leaf, step = x.clone().requires_grad_(), scale.clone().requires_grad_()
    features = 12
    y, _ = fake_quantize(leaf, step, zero_point, *GRID, axis, features)
    y.backward(dy)

    s, z = on_axis(scale, x, axis), on_axis(zero_point, x, axis)
    inverse = (1 / s.double()).float()
    expected = (torch.clamp((x * inverse).round() + z, *GRID) - z) * s
    assert torch.equal(y, expected)
    dx, dscale = reference(x, dy, scale, zero_point, axis)
    assert leaf.grad is not None and step.grad is not None
    assert torch.equal(leaf.grad, dx)
    fixed = x.clone().requires_grad_()
    same, _ = fake_quantize(fixed, scale, zero_point, *GRID, axis, features)
    same.backward(dy)
    assert torch.equal(same, y)
    assert fixed.grad is not None and torch.equal(fixed.grad, dx)
    expected_step = dscale / (features * GRID[1]) ** 0.5
    bound = 1e-5 * (dy.abs().sum() * 256).item()
    torch.testing.assert_close(step.grad.double(), expected_step, rtol=1e-5, atol=bound)
    # A zero point that is trained: what is clamped moves with it.
    moved = (zero_point + 0.3).requires_grad_()
    y, _ = fake_quantize(x, scale, moved, *GRID, axis, features)
    assert torch.equal(y, expected)
    lost = ((dx - dy).double() * s.double()).movedim(axis or 0, 0)
    lost = lost.sum().reshape(1) if axis is None else lost.reshape(x.shape[axis], -1).sum(1)
    y.backward(dy)
    assert moved.grad is not None
    torch.testing.assert_close(
        moved.grad.double(), lost / (features * GRID[1]) ** 0.5, rtol=1e-4, atol=bound
    )


def test_rounding_is_that_of_the_quantized_graph() -> None:
    x = torch.randn(10_000) * 3
    scale, zero_point = 0.0237, 17
    q = torch.ops.quantized_decomposed.quantize_per_tensor(x, scale, zero_point, *GRID, torch.int8)
    expected = torch.ops.quantized_decomposed.dequantize_per_tensor(
        q, scale, zero_point, *GRID, torch.int8
    )

    y, _ = fake_quantize(x, torch.tensor([scale]), torch.tensor([zero_point]), *GRID, None, 1)

    assert torch.equal(y, expected)


def test_the_range_moves_in_train_mode_only_and_not_when_frozen() -> None:
    module = FakeQuantize(quant_min=-128, quant_max=127, averaging_constant=0.5)
    x = torch.tensor([-1.0, 3.0])
    module.eval()
    assert torch.equal(module(x), x)  # nothing known yet
    module.train()
    module(x)
    module(x * 3)
    assert (module.min_val.item(), module.max_val.item()) == (-2.0, 6.0)
    module.eval()
    module(x * 100)
    module.train()
    module.frozen = True
    module(x * 100)
    assert (module.min_val.item(), module.max_val.item()) == (-2.0, 6.0)
    scale, zero_point = module.calculate_qparams()
    torch.testing.assert_close(scale, torch.tensor([8 / 255]))
    assert zero_point.item() == -64
    assert module(x * 100).max() == (127 + 64) * scale


def test_minmax_keeps_the_extremes() -> None:
    module = FakeQuantize(quant_min=-128, quant_max=127, averaging_constant=None)
    for factor in (1.0, 3.0, 2.0):
        module(torch.tensor([-1.0, 2.0]) * factor)
    assert (module.min_val.item(), module.max_val.item()) == (-3.0, 6.0)


def test_two_passes_before_one_backward() -> None:
    module = FakeQuantize(quant_min=-128, quant_max=127)
    x = torch.randn(4, 8, requires_grad=True)

    (module(x).sum() + module(2 * x).sum()).backward()

    assert x.grad is not None and bool((x.grad > 0).any())


def test_a_channel_of_zeros_gets_the_largest_scale_of_the_others() -> None:
    module = PerChannelWeightFakeQuantize(quant_min=-127, quant_max=127)
    weight = torch.stack([torch.zeros(4), torch.ones(4), torch.full((4,), 2.0)])
    assert torch.equal(module(weight), weight)
    assert torch.equal(module.calculate_qparams()[0], torch.tensor([2.0, 1.0, 2.0]) / 127)


def test_nan_is_refused_by_name_while_observing() -> None:
    module = FakeQuantize(quant_min=-128, quant_max=127)
    module.label = "conv2d_3"
    with pytest.raises(InvalidInputError, match="conv2d_3"):
        module(torch.tensor([1.0, torch.nan]))


def test_a_learned_scale_starts_from_the_first_range_and_is_trained() -> None:
    module = FakeQuantize(quant_min=-128, quant_max=127, learned=True)
    scale = module.scale
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    x = torch.randn(4, 100)
    for _ in range(3):
        loss = (module(x) - x.clamp(-1, 1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    assert module.scale is scale and bool(scale.isfinite().all())
    start = (x.max() - x.min()) / 255
    assert 0 < abs(scale.item() - start) < start


def test_a_learned_offset_has_the_gradients_of_lsq_plus() -> None:
    """Bhalgat et al. 2020, eq. 4 to 6, in float64: ``(x - offset) / scale`` is rounded to
    ``-128..127``; here the offset itself is rounded to whole steps.
    """
    module = FakeQuantize(quant_min=-128, quant_max=127, learned=True, learned_offset=True)
    x = torch.randn(4, 1000) + 1
    module(x)
    with torch.no_grad():
        module.scale.mul_(0.5)  # so that values are clamped
        module.offset.add_(0.1)
    dy = torch.randn_like(x)
    module(x).backward(dy)

    s, offset = module.scale.detach().double(), module.offset.detach().double()
    steps = (x.double() - (offset / s).round() * s) / s
    within = (steps.round() >= GRID[0]) & (steps.round() <= GRID[1])
    slope = torch.where(within, steps.round() - steps, steps.clamp(*GRID))
    shrink = (x[0].numel() * GRID[1]) ** 0.5
    assert 0.1 < within.double().mean() < 0.99
    expected = (dy.double() * slope).sum() / shrink, (dy.double() * ~within).sum() / shrink
    # The clamped ones see the offset before it is rounded: up to half a step.
    slack = float((dy * ~within).sum().abs()) / shrink
    assert module.scale.grad is not None and module.offset.grad is not None
    torch.testing.assert_close(module.scale.grad[0].double(), expected[0], rtol=1e-4, atol=slack)
    torch.testing.assert_close(module.offset.grad[0].double(), expected[1], rtol=1e-4, atol=1e-3)
    _, zero_point = module.calculate_qparams()
    assert zero_point.dtype == torch.int64
    assert zero_point.item() == round(float(-offset / s))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_float_types_keep_their_type(dtype: torch.dtype) -> None:
    module = FakeQuantize(quant_min=-128, quant_max=127)
    x = torch.randn(3, 5, dtype=dtype, requires_grad=True)
    y = module(x)
    y.sum().backward()
    assert y.dtype is dtype and x.grad is not None and x.grad.dtype is dtype


def test_the_operators_pass_torchs_own_checks() -> None:
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    scale, zero_point = torch.rand(3) + 0.01, torch.zeros(3, dtype=torch.int64)
    torch.library.opcheck(fake_quantize, (x, scale.requires_grad_(), zero_point, *GRID, 1, 16))
    low, high = torch.tensor(-1.0), torch.tensor(1.0)
    scale, zero_point = torch.ones(1), torch.zeros(1, dtype=torch.int64)
    state = (low, high, scale, zero_point)
    for extremes in (None, torch.tensor([[-3.0], [4.0]])):
        arguments = (x, *state, extremes, -10.0, 10.0, 0.01, *GRID, False, None)
        torch.library.opcheck(observe_fake_quantize, arguments)
