"""Kernels that add products in int16 must not lose bits, on any instruction set.

FBGEMM chooses an instruction set once per process (by ``FBGEMM_ENABLE_INSTRUCTIONS``), so its tests
run this file in a process of its own.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pyquant import _C
from pyquant.errors import UnsupportedError

HERE = Path(__file__).resolve()
#: fbgemm::inst_set_t
FBGEMM_AVX2, FBGEMM_AVX512 = 1, 2
#: groups, input channels a group, output channels a group, kernel
SHAPES = [
    (1, 64, 64, 3),
    (1, 3, 32, 3),
    (1, 17, 33, 1),
    (1, 256, 16, 1),
    (2, 8, 8, 3),
    (4, 16, 16, 3),
    (32, 1, 1, 3),
    (17, 1, 1, 3),
    (8, 1, 1, 5),
    (6, 1, 2, 3),
    (16, 1, 1, 1),
]


def fbgemm_isa() -> int:
    """The instruction set that FBGEMM uses in this process."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
    library._ZN6fbgemm18fbgemmSupportedCPUEv()
    return int(library._ZN6fbgemm20fbgemmInstructionSetEv())


def run_saturating_cases(engine: str) -> int:
    """Runs all shapes with the worst weights and activations; returns how many."""
    import reference

    from kernels.engines import assert_equal, runs
    from kernels.strategies import int8, uint8
    from pyquant.ir import ops
    from pyquant.operators import Kernel, QParams

    count = 0
    for index, (groups, group_in, group_out, size) in enumerate(SHAPES):
        for weight_kind in ("plus", "minus", "signs", "below", "all"):
            for zero_point in (0, 128, 255):
                x_qp, y_qp = QParams(0.02, zero_point), QParams(2.0, 100)
                weight = int8(index, (groups * group_out, size, size, group_in), weight_kind)
                scales = np.full(len(weight), 0.003, np.float32)
                bias = np.arange(len(weight), dtype=np.int32) * 1000
                x = uint8(index, (2, 6, 7, groups * group_in), "high")
                x[0] = 255
                pad = size // 2
                op = ops.Conv2d(ops.Window(size, size, 1, 1, pad, pad, pad, pad), groups)
                for output in (None, y_qp):
                    kernel = Kernel(
                        op,
                        [x_qp],
                        output,
                        weight=torch.from_numpy(weight),
                        weight_scales=torch.from_numpy(scales),
                        bias=torch.from_numpy(bias),
                        engine=engine if runs(engine, "Conv2d") else "auto",
                    )
                    expected = reference.conv2d(op, x, x_qp, weight, scales, bias, output)
                    context = (SHAPES[index], weight_kind, zero_point, kernel.engine)
                    assert_equal(kernel(torch.from_numpy(x)), expected, context=context)
                    count += 1
    return count


def run_elementwise_cases() -> int:
    """Every value through every kernel that has an instruction set of its own."""
    import reference

    from kernels.engines import assert_equal
    from kernels.strategies import UGLY_FLOATS, floats, uint8
    from pyquant.ir import ops
    from pyquant.operators import Kernel, QParams

    count = 0
    x_qp, y_qp = QParams(0.25, 3), QParams(0.5, 130)
    for length in (1, 7, 31, 32, 33, 64, 100, 1000):
        shape = (2, length)
        a, b, f = uint8(1, shape), uint8(2, shape), floats(3, shape, 0.5, ugly=True)
        table = ops.LookupTable(uint8(4, (256,)).tobytes())
        image = uint8(5, (1, 5, 6, length))
        window = ops.Window(3, 2, 2, 1, 1, 0, 1, 1)
        ugly = np.resize(UGLY_FLOATS, shape)
        cases = [
            (ops.Quantize(), [None], y_qp, [f], reference.quantize(f, y_qp)),
            (ops.Quantize(), [None], y_qp, [ugly], reference.quantize(ugly, y_qp)),
            (ops.Dequantize(), [x_qp], None, [a], reference.dequantize(a, x_qp)),
            (table, [x_qp], y_qp, [a], reference.lookup_table(table, a)),
        ]
        for b_qp, other in ((x_qp, b), (None, f)):
            add = ops.Add(10, 240)
            expected = reference.add(add, a, x_qp, other, b_qp, y_qp)
            cases.append((add, [x_qp, b_qp], y_qp, [a, other], expected))
        pool, average = ops.MaxPool2d(window), ops.AvgPool2d(window, False, False)
        cases += [
            (pool, [x_qp], x_qp, [image], reference.max_pool2d(pool, image)),
            (average, [x_qp], y_qp, [image], reference.avg_pool2d(average, image, x_qp, y_qp)),
        ]
        for op, inputs, output, values, expected in cases:
            kernel = Kernel(op, inputs, output, engine="native")
            result = kernel(*(torch.from_numpy(value) for value in values))
            assert_equal(result, expected, context=(op, length))
            count += 1
    return count


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs ``program`` in a new process, with the tests importable."""
    path = os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parents[1],
    )


IS_X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.mark.parametrize("engine", ["reference", "native", "fbgemm"])  # QNNPACK: uint8 only
def test_saturating_values_on_this_cpu(engine: str) -> None:
    assert run_saturating_cases(engine) == len(SHAPES) * 5 * 3 * 2


@pytest.mark.skipif(not IS_X86, reason="FBGEMM's instruction sets are x86's")
@pytest.mark.parametrize(("name", "isa"), [("AVX2", FBGEMM_AVX2), ("AVX512", FBGEMM_AVX512)])
def test_saturating_values_on_fbgemm_without_vnni(name: str, isa: int) -> None:
    done = python(
        "from kernels import test_saturation as t;"
        "print(t.run_saturating_cases('fbgemm'), t.fbgemm_isa())",
        FBGEMM_ENABLE_INSTRUCTIONS=name,
    )
    assert done.returncode == 0, done.stderr
    count, used = map(int, done.stdout.split())
    if name == "AVX512" and used == FBGEMM_AVX2:
        pytest.skip("this CPU has no AVX-512")
    assert used == isa, "FBGEMM did not take the instruction set that was asked for"
    assert count == len(SHAPES) * 5 * 3 * 2


def test_every_isa_gives_the_same_bits(isa: str) -> None:
    assert _C.isa() == isa
    assert run_elementwise_cases() == 8 * 8
    assert run_saturating_cases("native") == len(SHAPES) * 5 * 3 * 2


def test_the_environment_chooses_the_isa() -> None:
    for isa in _C.isas():
        done = python("from pyquant import _C; print(_C.isa())", PYQUANT_ISA=isa)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == isa


def test_the_best_isa_is_the_default() -> None:
    done = python("from pyquant import _C; print(_C.isa())", PYQUANT_ISA="")
    assert done.stdout.strip() == _C.isas()[0]


def test_an_unknown_isa_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"nonsense is unknown; .*scalar"):
        _C.use_isa("nonsense")
    done = python("from pyquant import _C; _C.isa()", PYQUANT_ISA="nonsense")
    assert "PYQUANT_ISA=nonsense is unknown" in done.stderr
