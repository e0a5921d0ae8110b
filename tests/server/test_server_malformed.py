"""Requests that no client should send: a 4xx or a closed connection, and the server lives.

Every test runs on a server that ``running.start`` asks for its health at the end.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.running import Running

INFER = "/v2/models/test/infer"
VALUES = 3 * 8 * 9
IMAGE = np.zeros((1, 3, 8, 9), np.float32).tobytes()


def entry(**changes: Any) -> dict[str, Any]:
    """A good input, but for the changes."""
    good = {"name": "image", "datatype": "FP32", "shape": [1, 3, 8, 9], "data": [0.0] * VALUES}
    return {**good, **changes}


def request(*inputs: Any, **fields: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **fields}).encode()


def binary(size: int, **changes: Any) -> dict[str, Any]:
    """An input whose data are behind the JSON."""
    found = entry(parameters={"binary_data_size": size}, **changes)
    del found["data"]
    return found


def test_the_good_ones_are_good(server: Running) -> None:
    assert server.request("POST", INFER, request(entry()))[0] == 200
    head = request(binary(len(IMAGE)))
    headers = {"Inference_Header_Content_Length": str(len(head))}
    assert server.request("POST", INFER, head + IMAGE, **headers)[0] == 200


BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "JSON"),
    "no JSON": (b"{", "JSON"),
    "no UTF-8": (b'{"id": "\xff\xfe"}', "JSON"),
    "no object": (b"[]", "object"),
    "a number too large": (request(entry()).replace(b"0.0", b"1e999", 1), "JSON"),
    "a number too large for float32": (request(entry()).replace(b"0.0", b"1e39", 1), "value"),
    "NaN": (request(entry()).replace(b"0.0", b"NaN", 1), "JSON"),
    "deeply nested": (b'{"inputs": ' + b"[" * 100_000, "deep"),
    "data nested deeper than the shape": (request(entry(data=[[[[[0.0]]]]] * VALUES)), "deeper"),
    "no inputs": (request(), "missing"),
    "inputs of a wrong type": (json.dumps({"inputs": "image"}).encode(), "inputs"),
    "an input of a wrong type": (request(5), "object"),
    "an input twice": (request(entry(), entry()), "twice"),
    "an unknown input": (request(entry(name="picture")), "picture"),
    "a name of a wrong type": (request(entry(name=5)), "name"),
    "another datatype": (request(entry(datatype="INT8")), "INT8"),
    "no such datatype": (request(entry(datatype="FP23")), "FP23"),
    "another shape": (request(entry(shape=[1, 3, 9, 8])), "shape"),
    "an empty shape": (request(entry(shape=[])), "shape"),
    "a batch of none": (request(entry(shape=[0, 3, 8, 9], data=[])), "shape"),
    "a batch too large": (request(entry(shape=[5, 3, 8, 9])), "1 to 4"),
    "a shape that overflows": (request(entry(shape=[2**62, 3, 8, 9])), "shape"),
    "a negative shape": (request(entry(shape=[-1, 3, 8, 9])), "shape"),
    "a shape of 1000 dimensions": (request(entry(shape=[1] * 1000)), "dimensions"),
    "no data": (request({k: v for k, v in entry().items() if k != "data"}), "less"),
    "too little data": (request(entry(data=[0.0])), "less"),
    "too many data": (request(entry(data=[0.0] * (VALUES + 1))), "more"),
    "data of a wrong type": (request(entry(data=["0"] * VALUES)), "value"),
    "data that are no list": (request(entry(data=0.0)), "data"),
    "pictures in the JSON": (request(entry(datatype="BYTES", shape=[1])), "binary"),
    "an unknown output": (request(entry(), outputs=[{"name": "z"}]), '"z"'),
    "an output of a wrong type": (request(entry(), outputs=[7]), "object"),
    "an output twice": (request(entry(), outputs=[{"name": "logits"}] * 2), "twice"),
    "a negative number of classes": (
        request(entry(), outputs=[{"name": "logits", "parameters": {"classification": -1}}]),
        "classification",
    ),
    "binary data that are not there": (request(binary(len(IMAGE))), "ends"),
    "a negative binary size": (request(binary(-1)), "binary_data_size"),
    "parameters of a wrong type": (request(entry(parameters=[])), "parameters"),
    "an id of a wrong type": (request(entry(), id=[]), "id"),
}


@pytest.mark.parametrize(("body", "reason"), BODIES.values(), ids=BODIES.keys())
def test_bad_json(server: Running, body: bytes, reason: str) -> None:
    status, answer = server.request("POST", INFER, body)
    assert status == 400
    assert reason in json.loads(answer)["error"]


ONE = request(binary(len(IMAGE)))
BINARY: dict[str, tuple[bytes, bytes, str | None]] = {
    "too little": (ONE, IMAGE[:-1], None),
    "too much": (ONE, IMAGE + b"x", None),
    "a size that is not the shape's": (request(binary(len(IMAGE) - 1)), IMAGE[:-1], None),
    "a JSON length beyond the body": (ONE, IMAGE, "100000"),
    "a JSON length that overflows": (ONE, IMAGE, "1" * 30),
    "a JSON length that is none": (ONE, IMAGE, "-5"),
    "a JSON length within the JSON": (ONE, IMAGE, str(len(ONE) - 1)),
    "pictures cut within": (
        request(binary(9, datatype="BYTES", shape=[1])),
        b"\6\0\0\0 JPEG",
        None,
    ),
    "pictures of 4 GB": (request(binary(4, datatype="BYTES", shape=[1])), b"\xff" * 4, None),
}


@pytest.mark.parametrize(("head", "data", "length"), BINARY.values(), ids=BINARY.keys())
def test_bad_binary_data(server: Running, head: bytes, data: bytes, length: str | None) -> None:
    headers = {"Inference_Header_Content_Length": length or str(len(head))}
    status, answer = server.request("POST", INFER, head + data, **headers)
    assert status == 400
    assert json.loads(answer)["error"]


PATHS = {
    ("GET", "/"): 404,
    ("GET", "/v2/"): 200,
    ("GET", "/v2/models"): 404,
    ("GET", "/v2/models/other"): 404,
    ("POST", "/v2/models/other/infer"): 404,
    ("GET", "/v2/models/test/versions/2"): 404,
    ("GET", "/v2/models/test/../../etc/passwd"): 404,
    ("GET", "/%00%ff"): 404,
    ("GET", INFER): 405,
    ("PUT", INFER): 405,
    ("DELETE", "/v2"): 405,
    ("BREW", "/v2"): 405,
}


@pytest.mark.parametrize(("target", "status"), PATHS.items(), ids=map(" ".join, PATHS))
def test_paths_and_methods(server: Running, target: tuple[str, str], status: int) -> None:
    assert server.request(*target)[0] == status


def test_compressed_bodies_are_refused(server: Running) -> None:
    assert server.request("POST", INFER, b"\x1f\x8b", Content_Encoding="gzip")[0] == 415


def send(server: Running, *parts: bytes, pause: float = 0) -> bytes:
    """All that comes back until the server closes, which it must do in 20 seconds."""
    answer = b""
    with server.connect() as socket:
        try:
            for part in parts:
                socket.sendall(part)
                time.sleep(pause)
        except OSError:
            pass  # the server does not want any more
        try:
            while received := socket.recv(65536):
                answer += received
        except ConnectionError:
            pass
    return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


HEAD = f"POST {INFER} HTTP/1.1\r\nHost: x\r\n".encode()

REFUSED: dict[str, tuple[bytes, int]] = {
    "no HTTP": (b"\x16\x03\x01\x02\0\x01\0\r\n\r\n", 400),
    "no version": (b"GET /v2\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "a body of 1 GB": (HEAD + b"Content-Length: 1073741824\r\n\r\n", 413),
    "a body of 1 GB that comes": (HEAD + b"Content-Length: 1073741824\r\n\r\n" + b"x" * 10**7, 413),
    "a length that overflows": (HEAD + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n", 400),
    "two lengths": (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    "a length and chunks": (
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "chunks too large": (
        HEAD
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + (b"80000\r\n" + b"x" * 0x80000 + b"\r\n") * 3,
        413,
    ),
    "a chunk of no size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "a header of 1 MB": (HEAD + b"X-Large: " + b"x" * 10**6 + b"\r\n\r\n", 431),
    "10,000 headers": (HEAD + b"X: y\r\n" * 10_000 + b"\r\n", 431),
    "a target of 1 MB": (b"GET /" + b"x" * 10**6 + b" HTTP/1.1\r\n\r\n", 431),
    "a header without a colon": (HEAD + b"nothing\r\n\r\n", 400),
}


@pytest.mark.parametrize(("raw", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_http(server: Running, raw: bytes, status: int) -> None:
    answer = send(server, raw)
    assert status_of(answer) == status
    assert b"connection: close" in answer.lower()


def length(body: bytes) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % len(body)


def test_a_slow_header_is_cut(server: Running) -> None:
    start = time.monotonic()
    assert send(server, *(bytes([byte]) for byte in HEAD * 100), pause=0.1) == b""
    assert time.monotonic() - start < 10


def test_a_slow_body_is_cut(server: Running) -> None:
    start = time.monotonic()
    assert send(server, HEAD + length(b"x" * 100), b"{", pause=0.1) == b""
    assert time.monotonic() - start < 10


def test_an_idle_connection_is_closed(server: Running) -> None:
    assert send(server) == b""


@pytest.mark.parametrize("part", [b"POS", HEAD, HEAD + length(b"x" * 100) + b"{"])
def test_a_cut_connection(server: Running, part: bytes) -> None:
    for abrupt in (False, True):
        socket = server.connect()
        socket.sendall(part)
        if abrupt:  # a reset instead of an end
            socket.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
        socket.close()
    assert server.request("GET", "/v2/health/live")[0] == 200


def test_a_client_that_does_not_wait_for_its_answer(server: Running) -> None:
    body = request(entry())
    for _ in range(20):
        with server.connect() as socket:
            socket.sendall(HEAD + length(body) + body)
    assert server.request("POST", INFER, body)[0] == 200


def test_pipelined_requests_are_answered_in_their_order(server: Running) -> None:
    bodies = [request(entry(), id=str(index)) for index in range(20)]
    last = b"GET /v2/health/live HTTP/1.1\r\nConnection: close\r\n\r\n"
    answer = send(server, b"".join(HEAD + length(body) + body for body in bodies) + last)

    order = [answer.index(b'"id":"%d"' % index) for index in range(20)]
    assert order == sorted(order)
    assert answer.count(b"HTTP/1.1 200") == 21


def test_chunked_bodies(server: Running) -> None:
    body = request(entry())
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(body[at : at + 7]), body[at : at + 7])
        for at in range(0, len(body), 7)
    )
    answer = send(
        server,
        HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n",
    )
    assert status_of(answer) == 200


def test_expect_continue(server: Running) -> None:
    body = request(entry())
    with server.connect() as socket:
        socket.sendall(HEAD + b"Expect: 100-continue\r\nConnection: close\r\n" + length(body))
        assert status_of(socket.recv(1000)) == 100
        socket.sendall(body)
        assert status_of(socket.recv(1000)) == 200


def test_http_1_0_closes(server: Running) -> None:
    assert status_of(send(server, b"GET /v2 HTTP/1.0\r\n\r\n")) == 200


FIELDS = st.sampled_from(["inputs", "name", "shape", "datatype", "data", "parameters", "outputs",
                          "binary_data_size", "classification", "id", "image", "FP32"])  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | FIELDS | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(FIELDS, children),
    max_leaves=20,
)


@pytest.mark.parametrize("place", [lambda x: x, lambda x: {"inputs": x}, lambda x: {"inputs": [x]}])
@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_json_of_any_kind(
    server: Running, place: Callable[[Any], Any], data: st.DataObject
) -> None:
    body = json.dumps(place(data.draw(JSON))).encode()
    assert server.request("POST", INFER, body)[0] == 400


@given(raw=st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_bytes_of_any_kind(server: Running, raw: bytes) -> None:
    with server.connect() as socket:
        socket.sendall(raw)
        socket.shutdown(1)
        answer = socket.recv(65536)
    assert answer == b"" or status_of(answer) in (400, 431, 505)
