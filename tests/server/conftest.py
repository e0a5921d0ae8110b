"""One build of the server, and models for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cpp_packages import wheel_package
from programs import small_net

from pyquant.ir import serialize
from server import running
from server.running import Running


@pytest.fixture(scope="session")
def server_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server, built once for all processes that run tests, or that of ``PYQUANT_SERVER``."""
    if running.PREBUILT:
        return Path(running.PREBUILT)
    reason = running.why_not_built()
    if reason:
        pytest.skip(reason)
    base = tmp_path_factory.getbasetemp()
    is_worker = base.name.startswith("popen-")  # of pytest-xdist
    return running.build(wheel_package(), (base.parent if is_worker else base) / "server")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``small_net``: "image" [batch, 3, 8, 9] to "logits" [batch, 6]."""
    path = tmp_path_factory.mktemp("model") / "model.pyq"
    path.write_bytes(serialize.to_bytes(small_net()))
    return path


@pytest.fixture(scope="module")
def server(server_program: Path, model: Path) -> Iterator[Running]:
    """With ``model`` and small limits."""
    limits = ("--max-request-batch", "4", "--max-body-mb", "1")
    times = ("--read-timeout-s", "1", "--idle-timeout-s", "2")
    with running.start(server_program, model, *limits, *times) as found:
        yield found
