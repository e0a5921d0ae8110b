"""pyquant.sync_observers: two processes calibrate as one does, exactly."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch import nn

import pyquant
from pyquant.errors import QuantizationError
from pyquant.quantization import observers as ours
from pyquant.quantization.convert import observers

EXAMPLE = Path(__file__).parent.parent / "examples" / "distributed_calibration.py"
OBSERVERS = ("histogram", "entropy", "percentile", "minmax", "moving_average")


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Conv2d(8, 4, 1), nn.ReLU6()).eval()


def batch(index: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(index)
    return torch.randn(2, 3, 16, 16, generator=generator) * 3**index  # ranges grow


def prepared_with(observer: Any) -> Any:
    return pyquant.prepare(build(), batch(0), pyquant.QuantizationConfig(observer=observer))


def states(prepared: Any) -> dict[str, Any]:
    return {
        f"{node.name}.{name}": value
        for node, observer in observers(prepared)
        for name, value in observer.state_dict().items()
    }


def calibrate_share(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    result = {}
    for observer in OBSERVERS:
        prepared = prepared_with(observer)
        pyquant.calibrate(prepared, [batch(2 * rank), batch(2 * rank + 1)], progress=False)
        pyquant.sync_observers(prepared)
        result[observer] = states(prepared)
    torch.save(result, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_calibrate_as_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(calibrate_share, (str(tmp_path),), nprocs=2)
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for observer in OBSERVERS:
        prepared = prepared_with(observer)
        pyquant.calibrate(prepared, [batch(index) for index in range(4)], progress=False)
        for name, expected in states(prepared).items():
            first, second = (result[observer][name] for result in results)
            assert torch.equal(first, second)
            if observer == "moving_average":
                torch.testing.assert_close(first, expected)
            else:
                assert torch.equal(first, expected), (observer, name)


def test_the_example_alone_and_by_torchrun(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [sys.executable, *launch, str(EXAMPLE)], capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr
    found = [
        re.findall(r"processes: (\d); sum of outputs: (\S+)", text)
        for text in (capsys.readouterr().out, run.stdout)
    ]
    assert [processes for ((processes, _),) in found] == ["1", "2"]
    assert found[0][0][1] == found[1][0][1]


def test_what_cannot_be_synchronised() -> None:
    prepared = prepared_with("histogram")
    with pytest.raises(QuantizationError, match="init_process_group"):
        pyquant.sync_observers(prepared)
    with pytest.raises(QuantizationError, match="prepare"):
        pyquant.sync_observers(torch.fx.symbolic_trace(build()))
    from torchao.quantization.pt2e.observer import HistogramObserver

    for name, module in list(prepared.named_modules()):
        if isinstance(module, ours.HistogramObserver):
            prepared.set_submodule(name, HistogramObserver())
    with pytest.raises(QuantizationError, match="HistogramObserver cannot be merged"):
        pyquant.sync_observers(prepared)
