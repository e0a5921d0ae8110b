"""Hypothesis profiles: ``PYQUANT_TEST_PROFILE=thorough`` runs 25 times as many examples, of each
test on each engine and instruction set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from pyquant import _C

_COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.filter_too_much, HealthCheck.too_slow],
    "print_blob": True,
}

settings.register_profile("pyquant", max_examples=100, **_COMMON)
settings.register_profile("thorough", max_examples=1000, **_COMMON)
settings.load_profile(os.environ.get("PYQUANT_TEST_PROFILE", "pyquant"))


@pytest.fixture(autouse=True)
def default_instruction_set() -> Iterator[None]:
    """What a test has chosen is not what the next one of the process runs on."""
    yield
    _C.use_isa("")
