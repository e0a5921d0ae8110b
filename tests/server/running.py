"""Builds the example server, starts it, and talks to it, also in ways that no client should."""

from __future__ import annotations

import fcntl
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cpp_packages
from cpp_packages import CppPackage

SOURCE = cpp_packages.ROOT / "examples" / "server"
#: What the build needs besides pyquant, by a file of each Debian package.
PACKAGES = {
    "libboost-dev": "/usr/include/boost/beast.hpp",
    "nlohmann-json3-dev": "/usr/include/nlohmann/json.hpp",
    "libcli11-dev": "/usr/include/CLI/CLI.hpp",
    "libturbojpeg0-dev": "/usr/include/turbojpeg.h",
    "libpng-dev": "/usr/include/png.h",
}
#: A server that was built elsewhere, e.g. with sanitizers, to be tested instead of one's own.
PREBUILT = os.environ.get("PYQUANT_SERVER")


def why_not_built() -> str:
    """What is missing, and how to get it; empty if nothing is."""
    if cpp_packages.MISSING:
        return f"needs {', '.join(cpp_packages.MISSING)}"
    missing = [name for name, file in PACKAGES.items() if not Path(file).exists()]
    return f"needs Debian's packages: apt-get install {' '.join(missing)}" if missing else ""


def build(package: CppPackage, folder: Path, *options: str) -> Path:
    """The compiled server; processes that ask for the same folder share it."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        program = folder / "build" / "pyquant_server"
        if not program.exists():
            launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
            strict = "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"
            cpp_packages.configure(SOURCE, program.parent, package, strict, *launcher, *options)
            cpp_packages.run("cmake", "--build", program.parent)
    return program


@dataclass(frozen=True)
class Running:
    """A server that listens."""

    process: subprocess.Popen[str]
    name: str
    port: int

    def url(self) -> str:
        """As clients want it."""
        return f"127.0.0.1:{self.port}"

    def connect(self, timeout: float = 20) -> socket.socket:
        """A connection to send anything on."""
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Status and body of an answer; ``_`` in the headers' names stand for ``-``."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request(method, path, body, named)
        response = client.getresponse()
        answer = response.status, response.read()
        client.close()
        return answer

    def metric(self, name: str) -> float:
        """The value of one line of ``/metrics``."""
        _, text = self.request("GET", "/metrics")
        found = re.search(rf"^{re.escape(name)} (\S+)$", text.decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def stop(self) -> int:
        """Asks it to leave; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


@contextmanager
def start(program: Path, model: Path, *options: str) -> Iterator[Running]:
    """A server with one worker on a free port; at the end it must still live, and leave well."""
    command = [program, model, "--port", "0", "--workers", "1", *options]
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"(\S+) on http://127\.0\.0\.1:(\d+), \d+ workers\n", line)
        assert found is not None, f"the server did not start: {line!r}"
        server = Running(process, found[1], int(found[2]))
        yield server
        if process.poll() is None:
            assert server.request("GET", "/v2/health/live")[0] == 200
            assert server.stop() == 0
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def run_to_end(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A server that should leave by itself, at once."""
    command = [program, *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=20)
