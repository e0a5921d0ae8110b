"""Runs mypy on the package as it is installed: with ``mobile/`` inside, as ``pyquant.mobile``.

python tools/check_types.py [mypy's options]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Written by flatc during the build; it has no types.
GENERATED = ("ir/program_generated.pyi", "def __getattr__(name: str): ...  # type: ignore\n")


def main() -> int:
    """Mypy's exit code."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "pyquant"
        for source, target in ((ROOT / "pyquant", package), (ROOT / "mobile", package / "mobile")):
            for path in source.rglob("*.py*"):
                if path.suffix in (".py", ".pyi") or path.name == "py.typed":
                    link = target / path.relative_to(source)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(path)
        (package / GENERATED[0]).write_text(GENERATED[1])
        options = ["--strict", "--config-file", str(ROOT / "pyproject.toml"), *sys.argv[1:]]
        command = [sys.executable, "-m", "mypy", *options, "-p", "pyquant"]
        return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
