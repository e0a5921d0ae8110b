"""The kernels of dynamic quantization on every instruction set, against plain NumPy and torch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference.dynamic import dynamic_linear
from torch import Tensor

from pyquant import _C
from pyquant.errors import InvalidInputError, UnsupportedError

Weights = tuple[Tensor, Tensor, Tensor | None]
seeds = st.integers(0, 2**32 - 1)
sizes = st.sampled_from((1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 67, 130, 257, 300))


pytestmark = pytest.mark.usefixtures("isa")


def weights_of(generator: torch.Generator, outputs: int, inputs: int) -> Weights:
    values = torch.randint(-127, 128, (outputs, inputs), generator=generator, dtype=torch.int8)
    scales = torch.rand(outputs, generator=generator) / 127 / inputs**0.5 + 1e-6
    return values, scales, torch.randn(outputs, generator=generator)


def expected_linear(x: Tensor, weights: Weights) -> Tensor:
    values, scales, bias = weights
    assert bias is not None
    with np.errstate(invalid="ignore", over="ignore"):
        y = dynamic_linear(x.numpy(), values.numpy(), scales.numpy(), bias.numpy())
    return torch.from_numpy(y)


@settings(max_examples=30)
@given(rows=sizes, inputs=sizes, outputs=sizes, seed=seeds, threads=st.sampled_from((1, 3)))
@example(rows=150, inputs=260, outputs=70, seed=0, threads=2)
def test_linear(rows: int, inputs: int, outputs: int, seed: int, threads: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = weights_of(generator, outputs, inputs)
    spread = torch.logspace(-12, 12, rows)[torch.randperm(rows, generator=generator)]
    x = (torch.randn(rows, inputs, generator=generator) + 0.3) * spread[:, None]
    y = _C.DynamicLinear(weights).run(x, _C.Workspace(threads))
    assert torch.equal(y, expected_linear(x, weights))


def ugly_rows(inputs: int) -> Tensor:
    rows = torch.randn(12, inputs)
    rows[0] = 0.0
    rows[1] = 5.0  # constant
    rows[2] = -5.0
    rows[3] = 1e-44  # denormal
    rows[4] = -0.0
    rows[5], rows[5, 0], rows[5, -1] = 0.0, 1e38, -1e38
    rows[6, inputs // 2] = float("nan")
    rows[7, -1] = float("inf")
    rows[8, 0] = -float("inf")
    rows[9] = rows[9].abs()
    rows[10] = -rows[10].abs()
    rows[11] = 1e-30
    return rows


@pytest.mark.parametrize("inputs", [2, 5, 16, 33, 300])
def test_ugly_rows(inputs: int) -> None:
    weights = weights_of(torch.Generator().manual_seed(0), 21, inputs)
    x = ugly_rows(inputs)
    y = _C.DynamicLinear(weights).run(x, _C.Workspace())
    assert torch.equal(y.nan_to_num(7.0), expected_linear(x, weights).nan_to_num(7.0))
    assert y[6:9].isnan().all() and y[:6].isfinite().all() and y[9:].isfinite().all()
    assert weights[2] is not None and torch.equal(y[0], weights[2])


def test_a_constant_row_is_exact() -> None:
    x = torch.full((1, 40), -2.5)
    y = _C.DynamicLinear((torch.eye(40, dtype=torch.int8), torch.ones(40), None)).run(
        x, _C.Workspace()
    )
    torch.testing.assert_close(y, x, rtol=1e-6, atol=0)


def test_the_largest_sums_fit() -> None:
    count = 65536
    values = torch.full((2, count), 127, dtype=torch.int8)
    values[1] = -127
    linear = _C.DynamicLinear((values, torch.ones(2), None))
    y = linear.run(torch.ones(1, count), _C.Workspace())
    torch.testing.assert_close(y, torch.tensor([[127.0 * count, -127.0 * count]]))
    with pytest.raises(UnsupportedError, match="65537 inputs"):
        _C.DynamicLinear((torch.zeros(1, count + 1, dtype=torch.int8), torch.ones(1), None))


def test_a_linear_layer_of_other_sizes_is_refused() -> None:
    ones = torch.ones(3, dtype=torch.int8)
    with pytest.raises(InvalidInputError, match="do not fit"):
        _C.DynamicLinear((ones.reshape(1, 3), torch.ones(2), None))
    with pytest.raises(InvalidInputError, match="no inputs"):
        _C.DynamicLinear((ones.reshape(3, 1)[:, :0], torch.ones(3), None))
    linear = _C.DynamicLinear((ones.reshape(1, 3), torch.ones(1), None))
    with pytest.raises(InvalidInputError, match="last dimension must be 3"):
        linear.run(torch.ones(2, 4), _C.Workspace())
    with pytest.raises(InvalidInputError, match="Double"):
        linear.run(torch.ones(2, 3, dtype=torch.float64), _C.Workspace())
    assert linear.run(torch.ones(0, 3), _C.Workspace()).shape == (0, 1)


def expected_step(
    cell: str, x_gates: Tensor, h_gates: Tensor, h: Tensor, c: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """torch's equations in float64."""
    x_gates, h_gates = x_gates.double(), h_gates.double()
    if cell == "lstm":
        assert c is not None
        i, f, g, o = (x_gates + h_gates).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    if cell == "gru":
        (xr, xz, xn), (hr, hz, hn) = x_gates.chunk(3, -1), h_gates.chunk(3, -1)
        z = (xz + hz).sigmoid()
        n = (xn + (xr + hr).sigmoid() * hn).tanh()
        return (1 - z) * n + z * h, None
    activation = torch.tanh if cell == "tanh" else torch.relu
    return activation(x_gates + h_gates), None


GATES = {"lstm": 4, "gru": 3, "tanh": 1, "relu": 1}


@settings(max_examples=12)
@given(
    cell=st.sampled_from(list(GATES)),
    batch=st.sampled_from((1, 2, 5, 43, 130)),
    steps=st.integers(1, 5),
    inputs=sizes,
    hidden=st.sampled_from((1, 3, 8, 16, 17, 40, 65)),
    projection=st.sampled_from((0, 1, 7)),
    reverse=st.booleans(),
    threads=st.sampled_from((1, 2, 3)),
    seed=seeds,
)
@example("lstm", 43, 5, 64, 65, 7, True, 2, 0)
def test_recurrent_layer(
    cell: str,
    batch: int,
    steps: int,
    inputs: int,
    hidden: int,
    projection: int,
    reverse: bool,
    threads: int,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = projection if cell == "lstm" and projection else hidden
    gates = GATES[cell] * hidden
    w_input = weights_of(generator, gates, inputs)
    w_state = weights_of(generator, gates, outputs)
    w_projection = weights_of(generator, outputs, hidden) if outputs != hidden else None
    if w_projection is not None:
        w_projection = (*w_projection[:2], None)
    layer = _C.RecurrentLayer(cell, w_input, w_state, w_projection)
    counts = sorted(torch.randint(1, batch + 1, (steps,), generator=generator).tolist())[::-1]
    counts[0] = batch
    starts = [0, *itertools.accumulate(counts)]
    x = torch.randn(starts[-1], inputs, generator=generator)
    first_h = torch.randn(batch, outputs, generator=generator)
    first_c = torch.randn(batch, hidden, generator=generator) if cell == "lstm" else None
    y = torch.full((starts[-1], outputs + 2), 9.0)
    last_h, last_c = first_h.clone(), None if first_c is None else first_c.clone()
    layer.run(x, counts, y, 1, last_h, last_c, reverse, _C.Workspace(threads))

    # Each step from the states that the kernels found, so that nothing is rounded differently.
    h, c = first_h.clone(), None if first_c is None else first_c.double()
    for step in reversed(range(steps)) if reverse else range(steps):
        rows, count = slice(starts[step], starts[step + 1]), counts[step]
        wanted, new_c = expected_step(
            cell,
            expected_linear(x[rows], w_input),
            expected_linear(h[:count], w_state),
            h[:count].double(),
            None if c is None else c[:count],
        )
        if w_projection is not None:
            zeros = torch.zeros(outputs)
            wanted = expected_linear(wanted.float(), (*w_projection[:2], zeros)).double()
        # A projection rounds its input, which may be on the border of two steps.
        tolerance = 1e-2 if w_projection is not None else 3e-6 * (1 + wanted.abs().max().item())
        torch.testing.assert_close(y[rows, 1:-1].double(), wanted, rtol=0, atol=tolerance)
        h[:count] = y[rows, 1:-1]
        if c is not None and new_c is not None:
            c[:count] = new_c
    assert torch.equal(last_h, h)
    if c is not None and last_c is not None:
        torch.testing.assert_close(last_c.double(), c, rtol=0, atol=1e-5)
    assert (y[:, 0] == 9).all() and (y[:, -1] == 9).all()


def test_recurrent_layers_of_other_sizes_are_refused() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = weights_of(generator, 8, 2)
    with pytest.raises(InvalidInputError, match="do not fit each other"):
        _C.RecurrentLayer("lstm", weights, weights_of(generator, 8, 3))
    with pytest.raises(InvalidInputError, match="do not fit each other"):
        _C.RecurrentLayer("gru", weights, weights)
    layer = _C.RecurrentLayer("lstm", weights, weights)
    x, y, h, space = torch.ones(3, 2), torch.ones(3, 2), torch.zeros(2, 2), _C.Workspace()
    for counts in ([1, 2], [3, 0]):
        with pytest.raises(InvalidInputError):
            layer.run(x, counts, y, 0, h, h.clone(), False, space)
    with pytest.raises(InvalidInputError, match="cell state"):
        layer.run(x, [2, 1], y, 0, h, None, False, space)
    with pytest.raises(InvalidInputError, match="too small"):
        layer.run(x, [2, 1], y, 1, h, h.clone(), False, space)


def test_activations_are_accurate_where_they_saturate() -> None:
    values = torch.cat([torch.linspace(-100, 100, 4001), torch.tensor([1e4, -1e4, 1e-3, -1e-8])])
    count = len(values)
    eye = (torch.zeros(count, 1, dtype=torch.int8), torch.ones(count), values)
    none = (torch.zeros(count, count, dtype=torch.int8), torch.ones(count), None)
    y = torch.empty(1, count)
    _C.RecurrentLayer("tanh", eye, none).run(
        torch.zeros(1, 1), [1], y, 0, torch.zeros(1, count), None, False, _C.Workspace()
    )
    torch.testing.assert_close(y[0], values.double().tanh().float(), rtol=0, atol=2**-20)
