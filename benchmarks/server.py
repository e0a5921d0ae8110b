"""The example server with pyquant, against the same server with ONNX Runtime.

    python -m benchmarks.server --server build/pyquant_server

The server must be built with ``-DSERVER_ONNXRUNTIME=...``: examples/server/README.md says how. Both
run an int8 network, get the same requests from ``wrk``, and take turns.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import torch

import pyquant
from benchmarks.networks import NETWORKS, build, samples
from benchmarks.options import some_of
from benchmarks.peers import onnxruntime
from benchmarks.peers.cache import Cache, default_folder
from benchmarks.peers.peer import Task
from benchmarks.silence import silence
from pyquant.cli.console import console, new_table, silence_libraries, stage

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "examples" / "server" / "infer.lua"
NAME = "model"
_CALIBRATION = 32
_PATH = f"/v2/models/{NAME}/infer"


@dataclass(frozen=True)
class Load:
    """What ``wrk`` reports of one run, or medians of several."""

    per_second: float
    p50: float
    p99: float
    requests: int
    errors: int


@dataclass(frozen=True)
class Server:
    """A server that listens, and a request for it: JSON of ``head`` bytes, then the input."""

    command: list[str]
    port: int
    body: Path
    head: int

    def drive(self, connections: int, seconds: int, cores: str) -> Load:
        """Keeps so many connections busy."""
        url = f"http://127.0.0.1:{self.port}{_PATH}"
        setting = ["-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT), url]
        command = [*_on(cores), "wrk", *setting, "--", str(self.body), str(self.head)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        # wrk leaves requests behind, which would go on while another server is measured.
        _ask(self.port, self.body.read_bytes(), self.head)
        found = json.loads(output.splitlines()[-1])
        requests, errors = found["requests"], found["errors"]
        per_second = (requests - errors) / found["seconds"]
        return Load(per_second, found["p50_ms"], found["p99_ms"], requests, errors)


@dataclass(frozen=True)
class Contender:
    """A way to serve a network: the file's kind, and options of the server."""

    kind: str
    options: tuple[str, ...] = ()


#: Ratios are to the last.
CONTENDERS = {
    "pyquant": Contender("pyq"),
    "pyquant-batches": Contender("pyq", ("--max-batch", "8")),
    "onnxruntime": Contender("onnx"),
}


@click.command()
@click.option("--server", required=True, type=click.Path(exists=True, path_type=Path))
@some_of("--contenders", CONTENDERS)
@click.option("--network", type=click.Choice(NETWORKS), default="mobilenet_v2", show_default=True)
@click.option("--connections", default="1,8,64", show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=3, show_default=True, help="Of a turn.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--total", default=0, help="Then ask the first server for so many answers in all.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True)
@click.option("--server-cores", default="0", show_default=True)
@click.option("--client-cores", default="1", show_default=True)
def main(
    server: Path,
    contenders: list[str],
    network: str,
    connections: str,
    seconds: int,
    rounds: int,
    total: int,
    workers: int,
    server_cores: str,
    client_cores: str,
) -> None:
    """Requests a second and their latency, at several numbers of connections."""
    silence_libraries()
    counts = [int(text) for text in connections.split(",")]
    common = ["--name", NAME, "--port", "0", "--workers", str(workers)]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        folder = Path(name)
        with stage(f"Quantizing {network}"):
            models = _models(network, folder)
        servers = {}
        for label in contenders:
            chosen = CONTENDERS[label]
            command = [str(server), str(models[chosen.kind]), *common, *chosen.options]
            servers[label] = running.enter_context(_start([*_on(server_cores), *command], folder))
        loads: dict[tuple[str, int], list[Load]] = {}
        with stage(f"{rounds} rounds"):
            for _ in range(rounds):
                for count in counts:
                    for label, target in servers.items():
                        load = target.drive(count, seconds, client_cores)
                        loads.setdefault((label, count), []).append(load)
        _print_loads(network, counts, contenders, loads)
        for label, target in servers.items():
            first = 1e3 * _first_answer(target)
            console().print(f"{label}: {first:.0f} ms from the start to the first answer")
        _print_sessions(models["pyq"])
        if total:
            _print_total(servers[contenders[0]], total, client_cores)


def _models(network: str, folder: Path) -> dict[str, Path]:
    """Files of the int8 network by their kind, from the same calibration data."""
    with silence():
        model, calibration = build(network), list(torch.split(samples(network, _CALIBRATION, 1), 1))
        x = samples(network, 1, 2)
        cache = Cache(default_folder(), network, 1, _CALIBRATION)  # as benchmarks.peers
        onnx = onnxruntime.int8_file(Task(network, model, x, calibration, 1, cache))
        pyquant.quantize(model, x, calibration, progress=False).save(folder / "model.pyq")
    np.save(folder / "x.npy", x.numpy())
    return {"pyq": folder / "model.pyq", "onnx": onnx}


@contextlib.contextmanager
def _start(command: list[str], folder: Path) -> Iterator[Server]:
    """A server, and a request for its model in a file."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = _port(process.stdout.readline())
        body, head = _request(port, np.load(folder / "x.npy"))
        file = folder / f"request{port}.bin"
        file.write_bytes(body)
        yield Server(command, port, file, head)
    finally:
        process.terminate()
        process.wait()


def _first_answer(server: Server, repeats: int = 9) -> float:
    """Seconds from the start of another such server to its first answer: the median."""
    body = server.body.read_bytes()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        process = subprocess.Popen(server.command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        port = _port(process.stdout.readline())
        _ask(port, body, server.head)
        seconds.append(time.perf_counter() - start)
        process.terminate()
        process.wait()
    return statistics.median(seconds)


def _port(line: str) -> int:
    """From what the server says when it listens."""
    return int(line.rsplit(":", 1)[1].split(",")[0])


def _request(port: int, x: npt.NDArray[np.float32]) -> tuple[bytes, int]:
    """A binary request for the model's only input, and the length of its JSON."""
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("GET", f"/v2/models/{NAME}")
    (tensor,) = json.loads(client.getresponse().read())["inputs"]
    entry = {"name": tensor["name"], "datatype": "FP32", "shape": list(x.shape)}
    entry["parameters"] = {"binary_data_size": x.nbytes}
    request = {"inputs": [entry], "parameters": {"binary_data_output": True}}
    head = json.dumps(request).encode()
    return head + x.tobytes(), len(head)


def _ask(port: int, body: bytes, head: int) -> None:
    client = http.client.HTTPConnection("127.0.0.1", port)
    client.request("POST", _PATH, body, {"Inference-Header-Content-Length": str(head)})
    response = client.getresponse()
    answer = response.read()
    if response.status != 200:
        raise click.ClickException(answer.decode(errors="replace"))


def _median(loads: list[Load]) -> Load:
    def middle(name: str) -> float:
        return float(statistics.median(getattr(load, name) for load in loads))

    return Load(
        middle("per_second"),
        middle("p50"),
        middle("p99"),
        sum(load.requests for load in loads),
        sum(load.errors for load in loads),
    )


def _print_loads(
    network: str,
    counts: list[int],
    contenders: list[str],
    loads: dict[tuple[str, int], list[Load]],
) -> None:
    columns = ("connections", "requests/s", "p50 ms", "p99 ms", "errors", "ratio")
    table = new_table(f"{network}, medians", "", *columns, right=columns)
    for count in counts:
        baseline = _median(loads[contenders[-1], count])
        for label in contenders:
            load = _median(loads[label, count])
            table.add_row(
                label,
                str(count),
                f"{load.per_second:.0f}",
                f"{load.p50:.2f}",
                f"{load.p99:.2f}",
                f"{load.errors} of {load.requests}",
                f"{load.per_second / baseline.per_second:.2f}",
            )
    console().print(table)


def _print_sessions(model: Path) -> None:
    one, two = _sessions_per_second(model)
    console().print(
        f"Sessions without HTTP: 1 thread {one:.0f} runs/s, 2 threads {two:.0f}: {two / one:.2f}x"
    )


def _print_total(target: Server, total: int, cores: str) -> None:
    requests = errors = 0
    with stage(f"{total} requests"):
        while requests < total:
            load = target.drive(8, 10, cores)
            requests, errors = requests + load.requests, errors + load.errors
    console().print(f"{requests} requests at 8 connections: {errors} errors")


def _sessions_per_second(model: Path, seconds: float = 0.5, rounds: int = 9) -> tuple[float, float]:
    """Runs a second of one thread with a Session, and of two with one each: medians, in turns."""
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    torch.set_num_threads(1)
    module, x = pyquant.load(model), torch.randn(1, 3, 224, 224)

    def rate(threads: int) -> float:
        counts = [0] * threads
        ready = threading.Barrier(threads)

        def work(index: int) -> None:
            module(x)
            ready.wait()
            end = time.perf_counter() + seconds
            while time.perf_counter() < end:
                module(x)
                counts[index] += 1

        workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return sum(counts) / seconds

    rates = [(rate(1), rate(2)) for _ in range(rounds)]
    return statistics.median(one for one, _ in rates), statistics.median(two for _, two in rates)


def _on(cores: str) -> list[str]:
    """Confines the command behind it to these cores."""
    return ["taskset", "-c", cores]


if __name__ == "__main__":
    main()
