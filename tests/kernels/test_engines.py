"""The engines that must be there, and what they must run."""

from __future__ import annotations

import pytest

import pyquant
from kernels.engines import ENGINES, REQUIRED, runs
from pyquant.errors import InvalidInputError, UnsupportedError
from pyquant.ir import ops
from pyquant.operators import Kernel, QParams


def test_all_engines_are_there() -> None:
    assert set(ENGINES) <= set(pyquant.engines())


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_runs_what_it_must(engine: str) -> None:
    assert {kind for kind in REQUIRED["reference"] if runs(engine, kind)} >= REQUIRED[engine]


def test_unknown_engine_is_named_with_those_that_exist() -> None:
    with pytest.raises(UnsupportedError, match=r"warp.*reference"):
        Kernel(ops.Quantize(), [None], QParams(1.0, 0), engine="warp")


def test_unsupported_operator_gives_a_reason() -> None:
    with pytest.raises(UnsupportedError, match="FBGEMM"):
        Kernel(ops.Quantize(), [None], QParams(1.0, 0), engine="fbgemm")


@pytest.mark.parametrize("threads", [0, -1])
def test_threads_must_be_positive(threads: int) -> None:
    with pytest.raises(InvalidInputError):
        Kernel(ops.Quantize(), [None], QParams(1.0, 0), threads=threads)
