"""The benchmarks' commands: they are there and say what they take."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
COMMANDS = sorted(
    ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts)
    for path in FOLDER.rglob("*.py")
    if '__name__ == "__main__"' in path.read_text() or path.name == "__main__.py"
)


@pytest.fixture(autouse=True)
def _repository(monkeypatch: pytest.MonkeyPatch) -> None:
    # Last, because an installed pyquant comes before the one that is not compiled.
    monkeypatch.setattr(sys, "path", [*sys.path, str(FOLDER.parent)])


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(importlib.import_module(command).main, ["--help"])
    assert result.exit_code == 0, result.output
    assert "Usage:" in result.output
