"""Many clients at once: batching, a full queue, stopping."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import ProgramBuilder, small_net

from pyquant.ir import ops, serialize
from pyquant.targets import ProgramModule
from server import running
from server.running import Running

INFER = "/v2/models/test/infer"
RAW = {"Inference-Header-Content-Length": "0"}


def infer(client: http.client.HTTPConnection, body: bytes) -> http.client.HTTPResponse:
    client.request("POST", INFER, body, RAW)
    response = client.getresponse()
    response.body = response.read()  # type: ignore[attr-defined]
    return response


def at_once(count: int, call: Callable[[int], object]) -> list[object]:
    """Results of ``call(0)`` … ``call(count - 1)``, started together in threads."""
    barrier = threading.Barrier(count)

    def one(index: int) -> object:
        barrier.wait()
        return call(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_batched_results_are_those_of_single_runs(server_program: Path, model: Path) -> None:
    x = np.random.default_rng(0).normal(size=(16, 3, 8, 9)).astype(np.float32)
    (expected,) = ProgramModule(small_net())(torch.from_numpy(x))
    options = ("--max-batch", "8", "--max-delay-us", "200000")
    with running.start(server_program, model, *options) as server:

        def ask(index: int) -> bytes:  # each its own image; some send two
            images = x[index : index + 1 + index % 2]
            _, body = server.request(
                "POST", INFER, images.tobytes(), Inference_Header_Content_Length="0"
            )
            return body

        for index, body in enumerate(at_once(15, ask)):
            assert isinstance(body, bytes)
            rows = expected[index : index + 1 + index % 2]
            assert body.endswith(rows.numpy().tobytes())
        runs = server.metric("pyquant_run_images_count")
        assert server.metric("pyquant_run_images_sum") == 22
        assert runs < 10
        assert server.metric('pyquant_run_images_bucket{le="8"}') == runs


@pytest.fixture(scope="module")
def slow_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """[1, 3, 256, 256] to [1, 5]; a few milliseconds a run."""
    size = (256, 256)
    build = ProgramBuilder()
    x = build.input(build.floats((1, 3, *size), "image"))
    x = build.node(ops.Quantize(), [x], build.uint8((1, *size, 3)))
    for channels in (64, 64):
        x = build.conv(x, ops.Window(3, 3, 1, 1, 1, 1, 1, 1), channels, (1, *size, channels))
    x = build.node(ops.AdaptiveAvgPool2d(1, 1), [x], build.uint8((1, 1, 1, 64)))
    x = build.node(ops.Flatten(), [x], build.uint8((1, 64)))
    path = tmp_path_factory.mktemp("slow") / "model.pyq"
    path.write_bytes(serialize.to_bytes(build.finish(build.linear(x, 5))))
    return path


SLOW = np.zeros((1, 3, 256, 256), np.float32).tobytes()


def test_a_full_queue_is_a_503(server_program: Path, slow_model: Path) -> None:
    with running.start(server_program, slow_model, "--max-queue", "1") as server:

        def ask(_: int) -> int:
            client = http.client.HTTPConnection(server.url(), timeout=20)
            found = {infer(client, SLOW).status for _ in range(5)}
            client.close()
            assert found <= {200, 503}
            return 503 in found

        assert any(at_once(12, ask))
        assert server.request("GET", "/v2/health/live")[0] == 200


def test_more_clients_than_connections_wait(server_program: Path, model: Path) -> None:
    with running.start(server_program, model, "--max-connections", "2") as server:
        found = at_once(20, lambda _: server.request("GET", "/v2")[0])
        assert found == [200] * 20


def test_stopping_answers_every_request_under_way(server_program: Path, slow_model: Path) -> None:
    with running.start(server_program, slow_model) as server:
        answered = [0] * 8

        def ask(index: int) -> bool:
            client = http.client.HTTPConnection(server.url(), timeout=20)
            while True:
                response = infer(client, SLOW)
                assert response.status == 200
                answered[index] += 1
                if response.getheader("Connection") == "close":
                    return True

        def stop_soon(index: int) -> object:
            if index < len(answered):
                return ask(index)
            while min(answered) < 2:
                time.sleep(0.01)
            return server.stop()

        assert at_once(9, stop_soon) == [True] * 8 + [0]
        with pytest.raises(ConnectionRefusedError):
            server.connect()


def test_stopping_closes_idle_connections(server_program: Path, model: Path) -> None:
    with running.start(server_program, model, "--idle-timeout-s", "60") as server:
        silent = server.connect()
        used = http.client.HTTPConnection(server.url(), timeout=20)
        used.request("GET", "/v2")
        used.getresponse().read()
        start = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - start < 5
        assert silent.recv(1) == b""
        silent.close()
        used.close()


def test_stopping_does_not_wait_for_ever(server_program: Path, model: Path) -> None:
    with running.start(server_program, model, "--drain-timeout-s", "1") as server:
        with server.connect() as half:
            half.sendall(b"POST /v2/models/test/infer HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(0.2)
            start = time.monotonic()
            assert server.stop() == 0
            assert 0.5 < time.monotonic() - start < 10
        assert isinstance(half, socket.socket)


def test_a_port_in_use(server_program: Path, model: Path, server: Running) -> None:
    result = running.run_to_end(server_program, model, "--port", str(server.port))
    assert result.returncode == 1
    assert "in use" in result.stderr


@pytest.mark.skipif(running.PREBUILT is not None, reason="sanitizers need address space")
@pytest.mark.parametrize("option", ["--workers", "--io-threads"])
def test_more_threads_than_the_system_gives(server_program: Path, model: Path, option: str) -> None:
    limited = (Path("prlimit"), f"--as={400 << 20}", server_program)
    result = running.run_to_end(*limited, model, "--port", "0", option, "1000")
    assert result.returncode == 1
    assert "Resource temporarily unavailable" in result.stderr
