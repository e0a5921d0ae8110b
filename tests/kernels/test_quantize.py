"""Quantize and Dequantize on every engine, to the bit, and against torch."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernels.engines import assert_equal, engines_for, kernel
from kernels.strategies import UGLY_FLOATS, calls, floats, qparams, seeds, threads, uint8
from pyquant.ir import ops
from pyquant.operators import QParams


@engines_for("Quantize")
@given(shapes=calls, qp=qparams, ugly=st.booleans(), seed=seeds, workers=threads)
def test_quantize(
    engine: str,
    shapes: list[tuple[int, ...]],
    qp: QParams,
    ugly: bool,
    seed: int,
    workers: int,
) -> None:
    prepared = kernel(engine, ops.Quantize(), [None], qp, threads=workers)
    for call, shape in enumerate(shapes):
        x = floats(seed + call, shape, qp.scale, ugly)
        assert_equal(prepared(torch.from_numpy(x)), reference.quantize(x, qp), context=shape)


@engines_for("Quantize")
@pytest.mark.parametrize("length", range(1, 40))
@pytest.mark.parametrize("zero_point", [0, 128, 255])
def test_quantize_of_nan_and_infinity(engine: str, length: int, zero_point: int) -> None:
    x = np.resize(UGLY_FLOATS, length)
    result = kernel(engine, ops.Quantize(), [None], QParams(0.1, zero_point))(torch.from_numpy(x))
    expected = [0, 255, 0, 255, 0, zero_point, zero_point, zero_point, 255, 0, 255]
    assert result.tolist() == np.resize(expected, length).tolist()


@engines_for("Quantize")
@given(qp=qparams, seed=seeds)
def test_quantize_is_pt2es(engine: str, qp: QParams, seed: int) -> None:
    import torchao.quantization.pt2e.quantizer  # noqa: F401  (registers the operators)

    x = torch.from_numpy(floats(seed, (500,), qp.scale, ugly=False))
    expected = torch.ops.quantized_decomposed.quantize_per_tensor(
        x, qp.scale, qp.zero_point, 0, 255, torch.uint8
    )
    assert torch.equal(kernel(engine, ops.Quantize(), [None], qp)(x), expected)


@engines_for("Dequantize")
@given(shapes=calls, qp=qparams, seed=seeds, workers=threads)
def test_dequantize(
    engine: str, shapes: list[tuple[int, ...]], qp: QParams, seed: int, workers: int
) -> None:
    prepared = kernel(engine, ops.Dequantize(), [qp], None, threads=workers)
    for call, shape in enumerate(shapes):
        x = uint8(seed + call, shape)
        assert_equal(prepared(torch.from_numpy(x)), reference.dequantize(x, qp), context=shape)


@given(shapes=calls, seed=seeds)
def test_dequantize_of_float32_changes_the_layout_only(
    shapes: list[tuple[int, ...]], seed: int
) -> None:
    prepared = kernel("reference", ops.Dequantize(), [None], None)
    for call, shape in enumerate(shapes):
        x = floats(seed + call, shape, 1.0, ugly=True)
        assert_equal(prepared(torch.from_numpy(x)), reference.dequantize(x, None), context=shape)


@pytest.mark.parametrize("scale", [1e-6, 0.37, 1e6])
@pytest.mark.parametrize("zero_point", [0, 77, 255])
@engines_for("Dequantize")
def test_a_round_trip_changes_no_value(engine: str, scale: float, zero_point: int) -> None:
    qp = QParams(scale, zero_point)
    q = torch.arange(256, dtype=torch.uint8)
    x = kernel(engine, ops.Dequantize(), [qp], None)(q)
    assert torch.equal(kernel(engine, ops.Quantize(), [None], qp)(x), q)
