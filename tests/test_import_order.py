"""The flow of DESIGN: a module imports only what stands before it. Read with ``ast``, not run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: The flow. A module belongs to the longest name that it begins with, and may import modules of
#: its own stage and of earlier ones.
STAGES: list[list[str]] = [
    ["pyquant.errors", "pyquant.version", "pyquant.progress", "pyquant.module_names"],
    ["pyquant.write_file"],
    ["pyquant._C", "pyquant.ir.ops", "pyquant.ir.program", "pyquant.ir.program_generated"],
    ["pyquant.dynamic"],
    ["pyquant.capture"],
    ["pyquant.quantization", "pyquant.torch_ao"],
    ["pyquant.ir", "pyquant.operators"],
    ["pyquant.targets"],
    ["pyquant.analysis"],
    ["pyquant.api", "pyquant.mixed_precision", "pyquant.cpp_package"],
    ["pyquant.module_call", "pyquant.quantize_modules"],
    ["pyquant.compile"],
    ["pyquant"],
    ["pyquant.mobile"],
    ["pyquant.cli", "pyquant.__main__"],
]
STAGE_OF = {name: index for index, names in enumerate(STAGES) for name in names}


def python_files() -> dict[str, Path]:
    """Every module of the package by its name when installed."""
    found = {}
    for folder, prefix in ((ROOT / "pyquant", "pyquant"), (ROOT / "mobile", "pyquant.mobile")):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join([prefix, *(part for part in parts if part != "__init__")])] = path
    return found


MODULES = python_files()
#: Modules without a source file here: they are compiled or generated.
KNOWN = {*MODULES, "pyquant._C", "pyquant.ir.program_generated"}


def stage_of(module: str) -> int:
    """The index of the stage that ``module`` belongs to."""
    name = module
    while name not in STAGE_OF or (name == "pyquant" and module != "pyquant"):
        name, dot, _ = name.rpartition(".")
        assert dot, f"{module} belongs to no stage: add it to STAGES"
    return STAGE_OF[name]


def imports(source: str) -> list[tuple[int, str]]:
    """Line and module of every import of pyquant, wherever in the file it stands."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.append((node.lineno, submodule if submodule in KNOWN else str(node.module)))
    return [(line, name) for line, name in found if name.partition(".")[0] == "pyquant"]


def backward_imports(module: str, source: str) -> list[str]:
    """What ``module`` imports from a later stage."""
    return [
        f"{module}:{line} imports {name}, which stands behind it"
        for line, name in imports(source)
        if stage_of(name) > stage_of(module)
    ]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_what_stands_before_it(module: str) -> None:
    assert backward_imports(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pyquant.capture.export", "from pyquant.ir import lower"),
        ("pyquant.capture.export", "def f():\n    import pyquant.quantization.calibrate"),
        ("pyquant.ir.ops", "from pyquant.capture import capture"),
        ("pyquant.ir.serialize", "from pyquant import load"),
        ("pyquant.api", "from pyquant import cli"),
        ("pyquant", "import pyquant.mobile"),
    ],
)
def test_the_check_finds_a_backward_import(module: str, source: str) -> None:
    assert len(backward_imports(module, source)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("pyquant.quantization.convert", "from pyquant.ir import ops"),
        ("pyquant.ir.lower", "from pyquant.ir import serialize"),
        ("pyquant.targets", "import torch, pyquantile"),
        ("pyquant.mobile.runtimes", "from pyquant import load"),
    ],
)
def test_the_check_allows_a_forward_import(module: str, source: str) -> None:
    assert backward_imports(module, source) == []


CSRC = ROOT / "csrc"
ISA_FOLDERS = {"scalar", "avx2", "avx512_vnni", "amx", "avx512", "neon", "neon_dotprod", "avx_vnni"}
#: Whose kernels an ISA may declare and take over, because every CPU that has it has them too.
IMPLIED_ISAS = {
    "avx_vnni": {"avx2"},
    "avx512_vnni": {"avx2"},
    "amx": {"avx512_vnni", "avx2"},
    "neon_dotprod": {"neon"},
}
#: What the tile kernels share, all of it with internal linkage: the vector epilogue, and loops that
#: are templates on the multiplication.
SHARED_BETWEEN_ISAS = {
    ("amx", "kernels/avx512_vnni/output.h"),
    ("avx_vnni", "kernels/avx2/convolve_tiles.h"),
    ("avx_vnni", "kernels/avx2/depthwise_columns.h"),
    ("neon_dotprod", "kernels/neon/output.h"),
    ("neon_dotprod", "kernels/neon/convolve_tiles.h"),
    ("neon_dotprod", "kernels/neon/depthwise_columns.h"),
}
#: Compiled for one ISA: nothing inline that the linker could pick for the baseline.
ISA_SYSTEM_HEADERS = {"immintrin.h", "arm_neon.h", "cstddef", "cstdint", "stddef.h", "stdint.h"} | {
    "utility"  # for integer_sequence, which is types only
}
TORCH_FOLDERS = ("engines/fbgemm/", "engines/qnnpack/", "engines/torch/", "bindings/")
TORCH_HEADERS = re.compile(r"(torch|ATen|c10|fbgemm|qnnpack|pthreadpool|pybind11|caffe2)\b")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)


def why_not(file: str, system: bool, header: str) -> str | None:
    """The rule that forbids ``file`` (relative to csrc) to include ``header``; else ``None``."""
    folders = file.split("/")[:-1]
    own_isa = folders[1] if folders[0] == "kernels" and len(folders) > 1 else None
    if own_isa is not None:
        if system:
            allowed = header in ISA_SYSTEM_HEADERS
        elif header.startswith("kernels/"):
            # Beside its own headers: what all ISAs share, and the scalar kernels for tails.
            shared = header.count("/") == 1 or header.split("/")[1] in (own_isa, "scalar")
            implied = IMPLIED_ISAS.get(own_isa, set())
            allowed = shared or header in {f"kernels/{isa}/kernels.h" for isa in implied}
            allowed = allowed or (own_isa, header) in SHARED_BETWEEN_ISAS
        else:
            allowed = header == "quant/requantize.h"
        return None if allowed else "a kernel folder holds intrinsics and scalar tails only"
    if not file.startswith(TORCH_FOLDERS):
        if TORCH_HEADERS.match(header) or header.startswith(TORCH_FOLDERS):
            return "the core is free of torch"
        if file.startswith("runtime/") and header.startswith("engines/"):
            return None if header == "engines/engine.h" else "the runtime knows no engine by name"
    engine = folders[1] if folders[0] == "engines" and len(folders) > 1 else None
    other = header.split("/")[1] if header.startswith("engines/") and header.count("/") > 1 else ""
    # engines/torch registers the two engines of libtorch, and holds what both of them use.
    if engine is not None and other not in ("", engine, "torch") and engine != "torch":
        return "an engine does not lean on another"
    if file.startswith(("include/", "quant/")) and header.startswith(
        ("runtime/", "engines/", "kernels/", "observers/", "bindings/")
    ):
        return "public headers and quant stand below everything else"
    if file.startswith("observers/") and header.startswith(
        ("runtime/", "engines/", "bindings/", "kernels/")
    ):
        return None if header == "kernels/kernel_table.h" else "observers need but the kernels"
    if file.startswith(("kernels/", "engines/", "runtime/")) and header.startswith("bindings/"):
        return "the bindings stand on top"
    return None


def c_files() -> list[str]:
    """Headers and sources, relative to csrc."""
    found = [path for suffix in ("*.h", "*.cpp") for path in CSRC.rglob(suffix)]
    return sorted(path.relative_to(CSRC).as_posix() for path in found)


@pytest.mark.parametrize("file", c_files())
def test_a_source_includes_only_what_stands_before_it(file: str) -> None:
    wrong = []
    for kind, header in INCLUDE.findall((CSRC / file).read_text()):
        reason = why_not(file, kind == "<", header)
        if reason is not None:
            wrong.append(f"{file} includes {header}: {reason}")
    assert wrong == []


def test_every_kernel_folder_is_known() -> None:
    folders = {path.name for path in (CSRC / "kernels").iterdir() if path.is_dir()}

    assert folders <= ISA_FOLDERS


@pytest.mark.parametrize(
    ("file", "kind", "header"),
    [
        ("kernels/avx2/rows.cpp", "<", "algorithm"),
        ("kernels/avx2/rows.cpp", '"', "kernels/avx512_vnni/kernels.h"),
        ("kernels/avx512_vnni/rows.cpp", '"', "kernels/avx2/rounding.h"),
        ("kernels/avx_vnni/convolve.cpp", '"', "kernels/avx2/multiply.h"),
        ("kernels/avx2/rows.cpp", '"', "pyquant/tensor.h"),
        ("runtime/session.cpp", '"', "engines/native/native_engine.h"),
        ("runtime/session.cpp", "<", "ATen/ATen.h"),
        ("engines/engine.cpp", '"', "engines/fbgemm/fbgemm_engine.h"),
        ("engines/native/conv2d.cpp", '"', "engines/reference/reference_engine.h"),
        ("engines/fbgemm/gemm.cpp", '"', "engines/qnnpack/linear.h"),
        ("include/pyquant/session.h", '"', "runtime/thread_pool.h"),
        ("runtime/session.cpp", '"', "bindings/bindings.h"),
        ("observers/histogram.cpp", '"', "runtime/thread_pool.h"),
    ],
)
def test_the_check_finds_a_forbidden_include(file: str, kind: str, header: str) -> None:
    assert why_not(file, kind == "<", header) is not None
