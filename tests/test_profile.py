"""The profiler: times of steps, the trace file's format, and the measured peak."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from programs import ProgramBuilder, fully_convolutional, small_net

from pyquant import _C
from pyquant.errors import InvalidInputError
from pyquant.ir import ops
from pyquant.ir.cost import multiply_adds
from pyquant.ir.program import Program
from pyquant.targets import ProgramModule
from pyquant.targets.profile import Profile


def wide_net() -> Program:
    """Two convolutions of very different cost between quantize and dequantize."""
    build = ProgramBuilder()
    x = build.input(build.floats((1, 3, 32, 32), "image"))
    x = build.node(ops.Quantize(), [x], build.uint8((1, 32, 32, 3)))
    x = build.conv(x, ops.Window(), 64, (1, 32, 32, 64))
    x = build.conv(x, ops.Window(5, 5, 1, 1, 2, 2, 2, 2), 64, (1, 32, 32, 64))
    return build.finish(build.node(ops.Dequantize(), [x], build.floats((1, 64, 32, 32))))


def profile_of(program: Program, *shape: int, runs: int = 5, engine: str = "auto") -> Profile:
    return ProgramModule(program, engine).profile(torch.randn(shape), runs=runs)


def test_the_steps_are_the_nodes_that_do_something() -> None:
    program = small_net()

    profile = profile_of(program, 1, 3, 8, 9)

    names = [name for step in profile.steps for name in step.names]
    kinds = [kind for step in profile.steps for kind in step.kinds]
    assert names == sorted(set(names), key=[node.name for node in program.nodes].index)
    assert "Conv2d" in kinds and "Linear" in kinds
    assert profile.name == program.name
    assert all(len(step.seconds) == 5 and min(step.seconds) >= 0 for step in profile.steps)


def test_multiply_adds_and_shapes_follow_the_input() -> None:
    program = fully_convolutional()

    small = profile_of(program, 1, 3, 8, 9)
    large = profile_of(program, 2, 3, 16, 18)

    assert small.multiply_adds == sum(multiply_adds(program, node) for node in program.nodes)
    convolutions = [step for step in large.steps if step.multiply_adds]
    assert [step.output_shape for step in convolutions] == [(2, 16, 18, 5), (2, 8, 9, 4)]
    assert convolutions[0].multiply_adds == 2 * 16 * 18 * 5 * 9 * 3
    assert convolutions[1].multiply_adds == 2 * 8 * 9 * 4 * 9 * 5


def test_the_times_of_the_steps_add_up_to_the_run() -> None:
    module = ProgramModule(wide_net(), "reference")
    x = torch.randn(1, 3, 32, 32)
    runs = 5
    module(x)

    start = time.perf_counter()
    profile = module.profile(x, runs=runs)
    elapsed = time.perf_counter() - start

    measured = sum(sum(step.seconds) for step in profile.steps)
    # One more run warms up.
    assert 0.5 * elapsed * runs / (runs + 1) < measured < elapsed
    heaviest = max(profile.steps, key=lambda step: step.median)
    assert heaviest.multiply_adds == 32 * 32 * 64 * 64 * 25
    assert heaviest.engine == "reference"
    assert heaviest.median > 0.8 * profile.median


def test_profiling_computes_what_a_run_computes() -> None:
    module = ProgramModule(small_net())
    x = torch.randn(1, 3, 8, 9)
    before = module(x)

    module.profile(x, runs=2)

    assert torch.equal(module(x)[0], before[0])


@pytest.mark.parametrize(
    ("x", "runs"), [(torch.zeros(1, 3, 8), 1), (torch.zeros(1, 3, 8, 9), 0), (None, 1)]
)
def test_bad_arguments_are_explained(x: torch.Tensor, runs: int) -> None:
    with pytest.raises(InvalidInputError):
        ProgramModule(small_net()).profile(x, runs=runs)


def test_the_trace_is_what_chrome_reads() -> None:
    profile = profile_of(small_net(), 1, 3, 8, 9)

    trace = json.loads(json.dumps(profile.chrome_trace()))

    metadata, *events = trace["traceEvents"]
    assert metadata["ph"] == "M" and metadata["args"]["name"] == profile.name
    assert [event["name"] for event in events] == [" + ".join(step.names) for step in profile.steps]
    for event in events:
        assert event["ph"] == "X"
        assert event["dur"] >= 0
        assert {"pid", "tid", "ts", "cat"} <= event.keys()
    for one, following in itertools.pairwise(events):
        assert following["ts"] == pytest.approx(one["ts"] + one["dur"])
    fastest = min(map(sum, zip(*(step.seconds for step in profile.steps), strict=True)))
    assert events[-1]["ts"] + events[-1]["dur"] == pytest.approx(fastest * 1e6)


def test_no_convolution_is_faster_than_the_peak() -> None:
    profile = profile_of(wide_net(), 1, 3, 32, 32, runs=50)
    peak = _C.measure_peak()
    if peak is None:
        pytest.skip(f"{_C.isa()} has no multiply-add whose peak could be measured")

    rates = [step.multiply_adds / min(step.seconds) for step in profile.steps]

    # A machine that changes its clock, or was interrupted during every burst, may look faster.
    assert max(rates) < 1.5 * peak


def test_a_wider_instruction_set_has_a_higher_peak(tmp_path: Path) -> None:
    peaks = {}
    for isa in ("scalar", "avx2", "avx512_vnni", "amx"):
        code = "from pyquant import _C; print(_C.isa(), _C.measure_peak())"
        result = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYQUANT_ISA": isa},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        if result.returncode == 0:
            name, peak = result.stdout.split()
            peaks[name] = None if peak == "None" else float(peak)

    assert peaks.pop("scalar") is None
    found = [peak for peak in peaks.values() if peak is not None]
    assert len(found) == len(peaks)
    assert found == sorted(found)
