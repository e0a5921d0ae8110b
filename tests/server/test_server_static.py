"""The server as one file that needs nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cpp_packages import CORE_BUILD, install_core, run

from server import running

MAX_BYTES = 5_000_000


def test_a_static_server_is_small_and_needs_no_libraries(model: Path, tmp_path: Path) -> None:
    if CORE_BUILD is None:
        pytest.skip("set PYQUANT_CORE_BUILD to a build folder of the core")
    if reason := running.why_not_built():
        pytest.skip(reason)
    package = install_core(CORE_BUILD, tmp_path)
    program = running.build(package, tmp_path / "server", "-DSERVER_STATIC=ON")
    stripped = Path(shutil.copy(program, tmp_path / "stripped"))
    run("strip", stripped)

    assert stripped.stat().st_size <= MAX_BYTES
    assert "NEEDED" not in run("readelf", "-d", stripped)
    with running.start(stripped, model) as server:
        assert server.request("GET", "/v2/models/test")[0] == 200
