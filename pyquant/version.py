"""The version, from the installed package's metadata (its one source is ``pyproject.toml``)."""

from __future__ import annotations

from importlib import metadata

__version__ = metadata.version("pyquant")
