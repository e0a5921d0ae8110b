"""The ARM64 proof's own logic, without an emulator and without the network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import pyquant
from pyquant import mobile
from pyquant.cli import main
from pyquant.errors import ExportError, InvalidInputError, IoError, UnsupportedError
from pyquant.mobile import arm64
from pyquant.mobile.arm64 import Result, core_runtimes, prove, torch_runtimes, userland
from pyquant.mobile.arm64.cached_folder import STAMP, cached_folder
from pyquant.mobile.arm64.proof import HERE
from pyquant.mobile.arm64.releases import RELEASES
from pyquant.mobile.arm64.runtimes import Job, TorchRuntime
from pyquant.mobile.runtimes import LOADERS


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()
    sample = torch.randn(1, 3, 8, 8)
    model = pyquant.quantize(net, sample, [sample], progress=False)
    path = tmp_path_factory.mktemp("bundles") / "net"
    mobile.export(model, path, ("torchscript",), example_inputs=sample, progress=False)
    return path


@dataclass(frozen=True)
class Moved:
    """This machine's outputs, with some of them moved: stands for an emulated runtime."""

    steps: float = 0.0
    values: int = 1
    exact: bool = False
    targets: tuple[str, ...] = ("torchscript",)
    error: str | None = None
    cut: int = 0

    def label(self, target: str) -> str:
        return f"moved {target}"

    def run(self, jobs: Sequence[Job]) -> Iterator[str | None]:
        for job in jobs:
            folder = Path(job.file).parent
            manifest = mobile.verify(folder).manifest
            size = int(np.prod(job.shapes[0]))
            inputs = np.fromfile(job.inputs, np.float32).reshape(-1, size)
            loaded = LOADERS[job.target](Path(job.file))
            outputs = [
                loaded.run([torch.from_numpy(x).reshape(job.shapes[0])])[0].numpy() for x in inputs
            ]
            moved = np.stack(outputs).astype(np.float32)
            moved[:, 0, : self.values] += self.steps * manifest.outputs[0].step
            moved.reshape(-1)[: moved.size - self.cut].tofile(job.outputs)
            yield self.error


def one(bundle: Path, runtime: Moved, samples: torch.Tensor | None = None) -> Result:
    return next(r for r in prove([bundle], [runtime], samples) if r.runtime != HERE)


def test_equal_outputs_are_identical(bundle: Path) -> None:
    samples = torch.randn(3, 3, 8, 8)
    here, there = prove([bundle], [Moved()], samples)
    assert here.runtime == HERE and here.from_here is None and here.error is None
    assert there.from_here is not None and there.from_program is not None
    assert there.from_here.identical and there.from_here.same_class == there.inputs == 4
    assert there.from_program.difference == here.from_program.difference  # type: ignore[union-attr]


def test_a_difference_is_measured_in_steps(bundle: Path) -> None:
    result = one(bundle, Moved(steps=3, values=1), torch.randn(2, 3, 8, 8))
    assert result.error is None and result.from_here is not None
    assert not result.from_here.identical
    assert result.from_here.difference.max_steps == pytest.approx(3, rel=1e-4)
    assert result.from_here.difference.mean_steps == pytest.approx(3 / 5, rel=1e-4)


def test_too_large_a_difference_is_an_error(bundle: Path) -> None:
    result = one(bundle, Moved(steps=200, values=1))
    assert result.error is not None and "disagrees" in result.error
    assert result.from_program is not None


def test_the_core_must_give_the_same_bits(bundle: Path) -> None:
    exact = Moved(exact=True, targets=("program",))
    assert one(bundle, exact).error is None
    # Far within the tolerance.
    moved = one(bundle, Moved(exact=True, targets=("program",), steps=1e-3))
    assert moved.error is not None and "bits" in moved.error


@pytest.mark.parametrize(
    ("runtime", "message"),
    [(Moved(error="no such operator"), "no such operator"), (Moved(cut=1), "holds 4 values")],
)
def test_a_file_that_does_not_run_is_an_error(bundle: Path, runtime: Moved, message: str) -> None:
    result = one(bundle, runtime)
    assert message in str(result.error) and result.from_here is None


def test_a_damaged_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "model.ptl").write_bytes(b"damaged")
    with pytest.raises(ExportError, match=r"model\.ptl is damaged"):
        list(prove([copy], [Moved()]))


def test_samples_must_fit(bundle: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"samples of shape \(2, 1, 8, 8\)"):
        list(prove([bundle], [], torch.zeros(2, 1, 8, 8)))


def guest(tmp_path: Path, script: str) -> TorchRuntime:
    """A runtime whose guest is a script for this machine's Python."""
    path = tmp_path / "guest.py"
    path.write_text(script)
    return TorchRuntime("2.10.0", (sys.executable, str(path)), ("torchscript",))


def jobs(count: int) -> list[Job]:
    return [Job("torchscript", "model.ptl", "in.bin", "out.bin", [[1]])] * count


def test_the_guest_answers_in_lines_among_others(tmp_path: Path) -> None:
    runtime = guest(
        tmp_path,
        """print('{"torch": "2"}\\nchatter\\n3\\n{"seconds": 0.1}\\n{"error": "why"}')""",
    )
    assert list(runtime.run(jobs(2))) == [None, "why"]


def test_a_guest_that_dies_fails_the_rest(tmp_path: Path) -> None:
    script = """
import os, sys
print('{"seconds": 0.1}', flush=True)
print("last words", file=sys.stderr, flush=True)
os.abort()
"""
    first, *rest = guest(tmp_path, script).run(jobs(3))
    assert first is None and len(rest) == 2
    assert all("died" in str(answer) and "last words" in str(answer) for answer in rest)


def test_the_guest_runs_a_file_as_this_machine_does(bundle: Path) -> None:
    """The script that the emulator runs, by this machine's Python."""
    runtime = TorchRuntime("2.10.0", (sys.executable,), ("torchscript",))
    result = next(
        r for r in prove([bundle], [runtime], torch.randn(2, 3, 8, 8)) if r.runtime != HERE
    )
    assert result.error is None and result.from_here is not None and result.from_here.identical
    job = Job("torchscript", "none.ptl", str(bundle / "golden_input.bin"), "", [[1, 3, 8, 8]])
    assert "none.ptl" in str(next(runtime.run([job])))


def test_a_cached_folder_is_made_once(tmp_path: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("content")

    first = cached_folder(tmp_path, "root", ["a"], make)
    assert cached_folder(tmp_path, "root", ["a"], make) == first and len(made) == 1
    assert cached_folder(tmp_path, "root", ["b"], make) != first


def test_a_half_made_folder_is_not_kept(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "file").write_text("half")
        raise IoError("the network is gone")

    with pytest.raises(IoError, match="network"):
        cached_folder(tmp_path, "root", [], make)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
from pyquant.mobile.arm64.cached_folder import cached_folder

def make(folder):
    (folder / "half").write_text("of it")
    os.kill(os.getpid(), 9)

cached_folder(Path(sys.argv[1]), "root", [], make)
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, cwd="/")
    assert [path.name.startswith(".root-") for path in tmp_path.iterdir()] == [True]
    folder = cached_folder(tmp_path, "root", [], lambda folder: (folder / "file").touch())
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize("damage", ["cut", "lost", "foreign", "unstamped"])
def test_a_damaged_folder_is_refused(tmp_path: Path, damage: str) -> None:
    def make(folder: Path) -> None:
        (folder / "sub").mkdir()
        (folder / "sub" / "file").write_text("content")

    folder = cached_folder(tmp_path, "root", [], make)
    {
        "cut": lambda: (folder / "sub" / "file").write_text("cont"),
        "lost": lambda: (folder / "sub" / "file").unlink(),
        "foreign": lambda: (folder / "more").touch(),
        "unstamped": lambda: (folder / STAMP).unlink(),
    }[damage]()
    with pytest.raises(IoError, match=f"damaged.*rm -r {folder}"):
        cached_folder(tmp_path, "root", [], make)


def test_missing_tools_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="apt-get install qemu-user-static"):
        torch_runtimes(["2.10.0"], tmp_path / "cache")
    qemu = tmp_path / "qemu-aarch64-static"
    qemu.write_text("#!/bin/sh\n")
    qemu.chmod(0o755)
    with pytest.raises(UnsupportedError, match="apt-get is missing"):
        torch_runtimes(["2.10.0"], tmp_path / "cache")
    with pytest.raises(IoError, match="cmake --preset arm64"):
        core_runtimes(tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_failed_download_says_what_apt_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("qemu-aarch64-static", "apt-get", "dpkg-deb"):
        (tmp_path / name).write_text("#!/bin/sh\necho Could not resolve; exit 100\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(userland, "_KEYRING", tmp_path)
    with pytest.raises(IoError, match=r"network(?s:.*)Could not resolve"):
        torch_runtimes(["1.13.1"], tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_unknown_release_is_named() -> None:
    with pytest.raises(UnsupportedError, match=r"torch 0\.4 .*1\.13\.1"):
        torch_runtimes(["0.4"])


def test_every_release_pins_what_it_fetches() -> None:
    for version, release in RELEASES.items():
        assert f"torch=={version}" in release.wheels
        assert all("==" in wheel for wheel in release.wheels)


def test_the_command_prints_writes_and_fails(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Moved()]
    monkeypatch.setattr(arm64, "torch_runtimes", lambda *_: found)  # type: ignore[attr-defined]
    arguments = ["arm64", str(bundle), "--json", str(tmp_path / "results.json")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "moved torchscript" in result.output and "same bits" in result.output
    written = json.loads((tmp_path / "results.json").read_text())
    assert [entry["runtime"] for entry in written] == [HERE, "moved torchscript"]
    found[0] = Moved(steps=200)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "disagrees" in result.output
