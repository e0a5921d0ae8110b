"""An ARM64 Debian with one torch release, as plain folders: fetched and unpacked, not installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyquant.errors import IoError, UnsupportedError
from pyquant.mobile.arm64.cached_folder import cached_folder
from pyquant.mobile.arm64.releases import RELEASES, Release

_MIRROR = "http://deb.debian.org/debian"  # signed: apt checks against the key ring
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
#: Up to the glibc of Debian 12.
_PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(36, 16, -1)]
_PLATFORMS.append("manylinux2014_aarch64")


@dataclass(frozen=True)
class Userland:
    """A folder: ``debian`` in it is ``/`` to the emulated program, ``site`` holds the wheels."""

    folder: Path
    python: str

    def command(self, *arguments: object) -> list[str]:
        """The command line that runs the emulated Python with these arguments."""
        root = self.folder / "debian"
        settings = {"PYTHONHOME": root / "usr", "PYTHONPATH": self.folder / "site"}
        python = root / "usr" / "bin" / f"python{self.python}"
        # Nothing of the machine's own Python.
        return emulated(root, settings, python, "-s", "-S", *arguments)


def emulated(root: Path, settings: Mapping[str, object], *command: object) -> list[str]:
    """``command`` in QEMU, with these environment variables.

    Raises :class:`UnsupportedError` without QEMU.
    """
    names = ("qemu-aarch64-static", "qemu-aarch64")
    qemu = next(filter(None, map(shutil.which, names)), None)
    if qemu is None:
        raise UnsupportedError("ARM64 is emulated by QEMU: apt-get install qemu-user-static")
    options = [word for name, value in settings.items() for word in ("-E", f"{name}={value}")]
    return [qemu, "-L", str(root), *options, *map(str, command)]


def userland(version: str, cache: Path, say: Callable[[str], None]) -> Userland:
    """The user land of torch ``version``, made in ``cache`` if it is not there.

    Needs apt-get and dpkg-deb of any Debian-like system, pip, and the network; no root.

    Args:
        version: One of :data:`RELEASES`.
        say: Is told what is being done, if that takes long.

    Raises :class:`UnsupportedError` where a tool is missing, and :class:`IoError` if a download
    fails or the cache is damaged or not writable.
    """
    release = RELEASES[version]
    debian = release.debian

    def make(folder: Path) -> None:
        made = Userland(folder, debian.python)
        # Fails early where there is no QEMU.
        command = made.command("-c", _import_all(release))
        say(f"fetching {debian.suite} for ARM64, about 20 MB")
        unpack_debian(debian.suite, debian.packages, folder / "debian")
        say(f"fetching {', '.join(release.wheels[:-1])} for ARM64, 60 to 150 MB")
        # No byte code: it would be this Python's, which may be another version.
        options = ["--no-deps", "--no-compile"]
        install_wheels(debian.python, folder / "site", [*options, *release.wheels])
        say(f"importing torch {version} for the first time, a minute or two")
        # It must write byte code, whatever this process was told.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        _run(command, "the emulated Python", environment)

    key = [debian.suite, *debian.packages, *release.wheels]
    return Userland(cached_folder(cache, f"torch-{version}", key, make), debian.python)


def _import_all(release: Release) -> str:
    """Proves that the wheels work, and leaves the byte code that later imports need."""
    modules = ["torch.jit.mobile", "torch.utils._pytree"]
    if "executorch" in release.targets:
        modules.append("executorch.extension.pybindings._portable_lib")
    return f"import warnings; warnings.simplefilter('ignore'); import {', '.join(modules)}"


def unpack_debian(suite: str, packages: Sequence[str], root: Path) -> None:
    """Makes the folder ``root`` of these ARM64 packages and what they depend on.

    Raises :class:`UnsupportedError` where a tool is missing, and :class:`IoError` if it fails.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UnsupportedError(
                f"{tool} is missing: the emulated Debian is fetched by apt, on a Debian or Ubuntu"
            )
    root.mkdir()
    if not _KEYRING.exists():
        raise UnsupportedError(
            f"{_KEYRING} is missing, which Debian's packages are checked with: "
            "apt-get install debian-archive-keyring"
        )
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "APT_CONFIG": str(_apt_configuration(suite, Path(folder)))}
        _run(["apt-get", "--quiet", "update"], "apt-get update", environment)
        download = ["apt-get", "--quiet", "--yes", "--download-only", "install", *packages]
        _run(download, "apt-get install --download-only", environment)
        for package in sorted(Path(folder).glob("cache/archives/*.deb")):
            _run(["dpkg-deb", "--extract", str(package), str(root)], "dpkg-deb")


def _apt_configuration(suite: str, folder: Path) -> Path:
    """apt with a state of its own: another architecture, and no root."""
    for name in ("state/lists/partial", "cache/archives/partial", "empty"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {_MIRROR} {suite} main\n")
    configuration = folder / "apt.conf"
    configuration.write_text(
        f"""Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "{folder}/empty";
Dir::Etc::preferencesparts "{folder}/empty";
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "3";
"""
    )
    return configuration


def install_wheels(python: str, site: Path, arguments: Sequence[str]) -> None:
    """``pip install`` of ARM64 wheels for this version of Python into the folder ``site``.

    Raises :class:`IoError` if it fails.
    """
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    options = ["--quiet", "--only-binary=:all:", "--target", str(site)]
    version = ["--implementation", "cp", "--python-version", python]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    _run([*pip, *options, *version, *platforms, *arguments], "pip install")


def _run(command: Sequence[str], name: str, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode != 0:
        raise IoError(
            f"{name} failed ({done.returncode}) while the ARM64 user land was made; is the network "
            f"there? It said:\n{done.stdout.strip()[-1500:]}"
        )
