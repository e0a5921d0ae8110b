"""Where the C++ side of this installation is: headers, libraries, the CMake package."""

from __future__ import annotations

from pathlib import Path

from pyquant import _C

# An editable install has its Python files elsewhere than what was compiled.
_ROOT = Path(_C.__file__).parent


def include_dir() -> Path:
    """The folder to search for ``pyquant/program.h`` and the other headers."""
    return _ROOT / "include"


def library_dir() -> Path:
    """The folder of the shared libraries ``libpyquant`` and ``libpyquant_torch``."""
    return _ROOT / "lib"


def cmake_dir() -> Path:
    """What ``pyquant_DIR`` must be for CMake's ``find_package(pyquant)``."""
    return library_dir() / "cmake" / "pyquant"
