"""pyquant as C++ projects find it: in the wheel, and where CMake has installed it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from pyquant import cpp_package

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "cpp"
TOOLS = ("cmake", "ninja", "c++", "cc", "nm", "readelf")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
#: A build folder of the core, as of `cmake --preset core-only`, to install from.
CORE_BUILD = os.environ.get("PYQUANT_CORE_BUILD")


@dataclass(frozen=True)
class CppPackage:
    """Folders of one installation."""

    cmake_dir: Path
    include_dir: Path
    library_dir: Path

    @property
    def library(self) -> Path:
        """The shared core, by the name that programs look for."""
        (found,) = self.library_dir.glob("libpyquant.so.*")
        return found


def wheel_package() -> CppPackage:
    """That of the installed Python package."""
    return CppPackage(cpp_package.cmake_dir(), cpp_package.include_dir(), cpp_package.library_dir())


def install_core(build: str, folder: Path) -> CppPackage:
    """Installs a build, and moves it: nothing may depend on where it was."""
    run("cmake", "--install", build, "--prefix", folder / "first")
    prefix = (folder / "first").rename(folder / "prefix with spaces")
    (config,) = prefix.rglob("pyquantConfig.cmake")
    return CppPackage(config.parent, prefix / "include", config.parent.parent.parent)


def run(*command: str | Path, **environment: str) -> str:
    """Standard output; a failure shows all that the command printed."""
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        cwd=Path(__file__).parent,  # where no source folder hides the installed package
    )
    assert result.returncode == 0, f"{command}:\n{result.stdout}\n{result.stderr}"
    return result.stdout


def configure(source: Path, build: Path, package: CppPackage, *options: str) -> str:
    """Runs CMake for a project that looks for pyquant."""
    arguments = (f"-Dpyquant_DIR={package.cmake_dir}", *options)
    return run("cmake", "-S", source, "-B", build, "-G", "Ninja", *arguments)


def configure_snippet(folder: Path, package: CppPackage, text: str, *options: str) -> str:
    """The same for a project of these lines and no language's sources."""
    folder.mkdir()
    head = "cmake_minimum_required(VERSION 3.24)\nproject(snippet LANGUAGES CXX)\n"
    (folder / "CMakeLists.txt").write_text(head + text)
    return configure(folder, folder / "build", package, *options)
