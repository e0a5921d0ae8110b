"""What an installed wheel must do; run by itself, with nothing but the wheel and what it requires.

python tests/wheel_smoke.py
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
from importlib import metadata, resources
from pathlib import Path

import torch

import pyquant
from pyquant import cpp_package


def net() -> torch.nn.Module:
    """A small net with a convolution, BatchNorm, ReLU, pooling and a linear layer."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 5),
    ).eval()


def check_numbers(folder: Path) -> None:
    """Quantize, run on every engine, save and load: one result."""
    model = net()
    images = torch.randn(16, 3, 12, 12)
    quantized = pyquant.quantize(model, (images[:1],), images, progress=False)
    expected = quantized(images[:2])
    error = (expected - model(images[:2])).pow(2).mean() / expected.pow(2).mean()
    assert error < 1e-3, error
    quantized.save(folder / "model.pyq")
    loaded = pyquant.load(folder / "model.pyq")
    assert torch.equal(loaded(images[:2]), expected)


def check_libraries() -> None:
    """The C++ side is inside of the package, and its shared library loads."""
    package = Path(str(resources.files(pyquant)))
    assert (package / "py.typed").is_file()
    for folder in (cpp_package.include_dir(), cpp_package.library_dir(), cpp_package.cmake_dir()):
        assert folder.is_relative_to(package), folder
        assert folder.is_dir(), folder
    assert (cpp_package.include_dir() / "pyquant" / "pyquant.h").is_file()
    command = [sys.executable, "-m", "pyquant", "--cmake-dir"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert (Path(printed.strip()) / "pyquantConfig.cmake").is_file(), printed

    # pyquant_torch, too: `import torch` has loaded the libraries that it needs.
    libraries = sorted(cpp_package.library_dir().glob("libpyquant*.*"))
    assert len(libraries) == 2, libraries
    core, _ = (ctypes.CDLL(str(library)) for library in libraries)
    core.pyquant_version.restype = ctypes.c_char_p
    assert core.pyquant_version().decode() == metadata.version("pyquant") == pyquant.__version__


def main() -> None:
    """All checks."""
    with tempfile.TemporaryDirectory() as folder:
        check_numbers(Path(folder))
    check_libraries()
    print(f"pyquant {pyquant.__version__}: the wheel works; engines {', '.join(pyquant.engines())}")


if __name__ == "__main__":
    main()
