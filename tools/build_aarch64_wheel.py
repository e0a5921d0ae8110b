"""Cross-builds the wheel for ARM64 Linux on x86-64, and runs the smoke tests with it in QEMU.

    python tools/build_aarch64_wheel.py        # writes dist/pyquant-*_aarch64.whl

What it needs is in docs/wheels.md. An ARM64 Python with what the wheel requires is fetched first,
and kept in ``~/.cache/pyquant/arm64``. The wheel is for Python 3.11, and for systems as new as the
cross compiler's: auditwheel finds out which tag that is.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

from pyquant.mobile.arm64.cached_folder import cached_folder, default_cache
from pyquant.mobile.arm64.releases import Debian
from pyquant.mobile.arm64.userland import emulated, install_wheels, unpack_debian

ROOT = Path(__file__).resolve().parent.parent
DEBIAN = Debian("bookworm", "3.11")
TRIPLE = "aarch64-linux-gnu"
#: What torch's cpuinfo reads; it crashes on those of x86-64, which QEMU hands through.
CPU = "neoverse-n1"
CPU_FILES = {
    "proc/cpuinfo": """processor\t: 0
Features\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1
""",
    "sys/devices/system/cpu/possible": "0\n",
    "sys/devices/system/cpu/present": "0\n",
}
EXTENSION = f".cpython-{DEBIAN.python.replace('.', '')}-{TRIPLE}.so"


def main() -> None:
    """Fetches, builds, repairs, tests; the wheel ends in ``dist/``."""
    if f"{sys.version_info[0]}.{sys.version_info[1]}" != DEBIAN.python:
        sys.exit(f"the wheel's tag is that of the Python that builds it: use {DEBIAN.python}")
    with tempfile.TemporaryDirectory() as folder:
        say("An ARM64 Python with what the wheel requires")
        target = fetch_target()
        say("The wheel")
        wheel = repair(build(target, Path(folder) / "built"), Path(folder) / "repaired")
        say(f"The smoke tests in QEMU, with {wheel.name}")
        smoke_test(target, wheel, Path(folder))
        (ROOT / "dist").mkdir(exist_ok=True)
        say(f"dist/{Path(shutil.copy(wheel, ROOT / 'dist')).name}: {wheel.stat().st_size} bytes")


def say(text: str) -> None:
    """A heading."""
    print(f"=== {text}", flush=True)


def fetch_target() -> Path:
    """The folder of ``debian``, which is ``/`` to the emulated Python, and ``site``, its wheels."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = (*DEBIAN.packages, f"libpython{DEBIAN.python}-dev")

    def make(folder: Path) -> None:
        debian = folder / "debian"
        unpack_debian(DEBIAN.suite, packages, debian)
        # Debian's pyconfig.h looks for the architecture's in the system's include folder.
        headers = f"python{DEBIAN.python}"
        include = debian / "usr" / "include"
        shutil.copy(include / TRIPLE / headers / "pyconfig.h", include / headers)
        for name, content in CPU_FILES.items():
            (debian / name).parent.mkdir(parents=True, exist_ok=True)
            (debian / name).write_text(content)
        # Byte code is the same on every CPU, and takes long in QEMU.
        library = debian / "usr" / "lib" / headers
        run(sys.executable, "-m", "compileall", "-q", "-x", "lib2to3", library)
        install_wheels(DEBIAN.python, folder / "site", project["dependencies"])

    key = [DEBIAN.suite, *packages, *project["dependencies"], CPU_FILES]
    return cached_folder(default_cache(), "wheel", key, make)


def build(target: Path, output: Path) -> Path:
    """The wheel for whatever glibc the cross compiler has."""
    settings = {
        "CMAKE_TOOLCHAIN_FILE": ROOT / "cmake" / "Arm64Qemu.cmake",
        "Python_INCLUDE_DIR": target / "debian" / "usr" / "include" / f"python{DEBIAN.python}",
        "PYTHON_MODULE_EXTENSION": EXTENSION,
        "TORCH_ROOT": target / "site" / "torch",
    }
    options = [f"-Ccmake.define.{name}={value}" for name, value in settings.items()]
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    # What crossenv and cibuildwheel set, too: the platform of the tag.
    environment = {"_PYTHON_HOST_PLATFORM": "linux-aarch64", "SETUPTOOLS_EXT_SUFFIX": EXTENSION}
    run(*pip, "--wheel-dir", output, *options, ROOT, environment=environment)
    return only_file(output)


def repair(wheel: Path, output: Path) -> Path:
    """The same with the manylinux tag that fits the symbols it needs."""
    libtorch = ("--exclude", "libtorch*.so", "--exclude", "libc10.so")
    run(sys.executable, "-m", "auditwheel", "repair", *libtorch, "-w", output, wheel)
    return only_file(output)


def smoke_test(target: Path, wheel: Path, folder: Path) -> None:
    """Installs the wheel as pip would on ARM64 and runs ``tests/wheel_smoke.py`` there."""
    installed = folder / "site"
    install_wheels(DEBIAN.python, installed, ["--no-deps", str(wheel)])
    root = target / "debian"
    settings = {"PYTHONHOME": root / "usr", "PYTHONPATH": f"{installed}:{target / 'site'}"}
    interpreter = root / "usr" / "bin" / f"python{DEBIAN.python}"
    # -B: the cache stays as it was checked.
    command = emulated(root, settings, interpreter, "-s", "-S", "-B")
    # For the kernel, an ARM64 program is none; sys.executable has to be one.
    python = folder / "python"
    python.write_text(
        f'#!/bin/sh\nQEMU_CPU={CPU} QEMU_ARGV0="$0" exec {shlex.join(command)} "$@"\n'
    )
    python.chmod(0o755)
    shutil.copy(ROOT / "tests" / "wheel_smoke.py", folder)
    # Not where `python -m pyquant` finds the sources.
    run(python, "wheel_smoke.py", folder=folder)


def only_file(folder: Path) -> Path:
    """The file in a folder that has one."""
    (file,) = folder.iterdir()
    return file


def run(
    *command: object, environment: dict[str, str] | None = None, folder: Path | None = None
) -> None:
    """Runs a command, and leaves with a message if it fails."""
    words = [str(word) for word in command]
    variables = {**os.environ, **(environment or {})}
    done = subprocess.run(words, env=variables, cwd=folder, check=False)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(words)}\nfailed with exit code {done.returncode}")


if __name__ == "__main__":
    main()
