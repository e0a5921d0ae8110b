"""Jobs for the emulator: model files with their inputs, and who runs them there."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from pyquant.errors import IoError, UnsupportedError
from pyquant.mobile.arm64.cached_folder import default_cache
from pyquant.mobile.arm64.releases import DEFAULT_RELEASE, RELEASES
from pyquant.mobile.arm64.userland import emulated, userland

_GUEST = Path(__file__).with_name("guest.py")
#: The sysroot of Debian's cross compiler.
_SYSROOT = Path("/usr/aarch64-linux-gnu")
#: Within a build of the preset ``arm64``.
_RUN_PROGRAM = Path("csrc/core_tests/run_program")


@dataclass(frozen=True)
class Job:
    """One model file to run.

    Attributes:
        target: As in the manifest.
        file: The model.
        inputs: Raw float32: the inputs of any number of runs, one behind the other.
        outputs: Is written in the same form.
        shapes: Of the inputs of one run.
    """

    target: str
    file: str
    inputs: str
    outputs: str
    shapes: Sequence[Sequence[int]]


class Runtime(Protocol):
    """What runs files of some targets in the emulator."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Whose files it runs."""
        ...

    @property
    def exact(self) -> bool:
        """Whether the outputs must be those of this machine, to the bit."""
        ...

    def label(self, target: str) -> str:
        """What a table calls it."""
        ...

    def run(self, jobs: Sequence[Job]) -> Iterator[str | None]:
        """Runs the jobs in their order; ``None`` for each that has run, or why it has not."""
        ...


@dataclass(frozen=True)
class TorchRuntime:
    """PyTorch's lite interpreter with QNNPACK, and ExecuTorch's runtime with XNNPACK."""

    version: str
    command: Sequence[str]
    targets: tuple[str, ...]
    exact: bool = False

    def label(self, target: str) -> str:
        """The release, and the library that computes."""
        release = next(w for w in RELEASES[self.version].wheels if w.startswith(_NAMES[target][0]))
        return f"{release.replace('==', ' ')} {_NAMES[target][1]}"

    def run(self, jobs: Sequence[Job]) -> Iterator[str | None]:
        """All jobs in one process: importing torch takes longest."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "jobs.json"
            path.write_text(json.dumps([asdict(job) for job in jobs]))
            # -B: the cache stays as it was checked.
            yield from _answers([*self.command, "-B", str(_GUEST), str(path)], len(jobs))


_NAMES = {"torchscript": ("torch", "QNNPACK"), "executorch": ("executorch", "XNNPACK")}


@dataclass(frozen=True)
class CoreRuntime:
    """pyquant's own core, cross-compiled, with one instruction set."""

    isa: str
    program: Path
    targets: tuple[str, ...] = ("program",)
    exact: bool = True

    def label(self, target: str) -> str:
        """The library and the instruction set."""
        return f"pyquant {self.isa}"

    def run(self, jobs: Sequence[Job]) -> Iterator[str | None]:
        """Each job in a process."""
        for job in jobs:
            files = (job.file, job.inputs, job.outputs)
            command = emulated(_SYSROOT, {"PYQUANT_ISA": self.isa}, self.program, *files)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            yield None if done.returncode == 0 else _last_words(done.returncode, done.stderr)


def torch_runtimes(
    versions: Sequence[str] = (DEFAULT_RELEASE,),
    cache: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[Runtime]:
    """The torch releases, fetched if they are not in ``cache`` (:func:`default_cache`).

    Raises as :func:`userland`, and :class:`UnsupportedError` for another version than those of
    :data:`RELEASES`.
    """
    unknown = sorted(set(versions) - set(RELEASES))
    if unknown:
        raise UnsupportedError(
            f"torch {unknown[0]} cannot be emulated; there are {', '.join(RELEASES)}"
        )
    return [
        TorchRuntime(
            version,
            userland(version, cache or default_cache(), say).command(),
            RELEASES[version].targets,
        )
        for version in versions
    ]


def core_runtimes(build: Path) -> list[Runtime]:
    """The core with each instruction set of the emulated CPU.

    Args:
        build: A build of the preset ``arm64``.

    Raises :class:`UnsupportedError` without QEMU or the cross compiler's libraries, and
    :class:`IoError` if the program is not there or does not start.
    """
    program = build / _RUN_PROGRAM
    if not program.is_file():
        raise IoError(f"{program} is missing: cmake --preset arm64 && cmake --build --preset arm64")
    if not _SYSROOT.is_dir():
        raise UnsupportedError(f"{_SYSROOT} is missing: apt-get install g++-aarch64-linux-gnu")
    done = subprocess.run(
        emulated(_SYSROOT, {}, program, "--isas"), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise IoError(f"{program}: {_last_words(done.returncode, done.stderr)}")
    return [CoreRuntime(isa, program) for isa in done.stdout.split()]


def _answers(command: Sequence[str], count: int) -> Iterator[str | None]:
    """What the guest says of each job; where it dies, that and every later one has failed."""
    found = 0
    with (
        tempfile.TemporaryFile("w+", errors="replace") as messages,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=messages, text=True, errors="replace"
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                answer = _answer(line)
                if "seconds" in answer or "error" in answer:
                    found += 1
                    yield answer.get("error")
        except GeneratorExit:  # nobody wants the rest
            process.kill()
            raise
        code = process.wait()
        messages.seek(0)
        death = f"the emulated Python died: {_last_words(code, messages.read())}"
        yield from [death] * (count - found)


def _answer(line: str) -> dict[str, str]:
    """A line of the guest; the libraries may print others."""
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _last_words(code: int, messages: str) -> str:
    said = messages.strip()[-500:]
    return f"exit code {code}" + (f", {said}" if said else "")
