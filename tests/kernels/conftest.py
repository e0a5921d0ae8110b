"""Hypothesis profiles: ``PYQUANT_TEST_PROFILE=thorough`` runs ten times as many examples."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_COMMON = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.filter_too_much, HealthCheck.too_slow],
    "print_blob": True,
}

settings.register_profile("pyquant", max_examples=250, **_COMMON)
settings.register_profile("thorough", max_examples=2500, **_COMMON)
settings.load_profile(os.environ.get("PYQUANT_TEST_PROFILE", "pyquant"))
