"""The KServe v2 protocol, with Triton's client."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import tritonclient.http as triton
from programs import fully_convolutional, small_net

from pyquant.ir import serialize
from pyquant.targets import ProgramModule
from server import running
from server.running import Running

INFER = "/v2/models/test/infer"


def images(count: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(count).normal(size=(count, 3, 8, 9)).astype(np.float32)


def expected(x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """What Python computes."""
    (output,) = ProgramModule(small_net())(torch.from_numpy(x))
    result: npt.NDArray[np.float32] = output.numpy()
    return result


def triton_input(x: npt.NDArray[np.float32], binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput("image", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x, binary_data=binary)
    return tensor


@pytest.fixture
def client(server: Running) -> triton.InferenceServerClient:
    return triton.InferenceServerClient(server.url())


def test_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("test")
    assert client.is_model_ready("test", "1")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("test", "2")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data", "classification"]
    assert client.get_model_metadata("test", "1") == {
        "name": "test",
        "versions": ["1"],
        "platform": "pyquant",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 3, 8, 9]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 6]}],
    }


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
def test_infer_gives_what_python_does(
    client: triton.InferenceServerClient, binary_in: bool, binary_out: bool, batch: int
) -> None:
    x = images(batch)
    outputs = [triton.InferRequestedOutput("logits", binary_data=binary_out)]
    result = client.infer("test", [triton_input(x, binary_in)], outputs=outputs, request_id="a1")

    np.testing.assert_array_equal(result.as_numpy("logits"), expected(x))
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("a1", "test", "1")


def test_outputs_that_are_not_named_come_all(client: triton.InferenceServerClient) -> None:
    x = images(1)
    np.testing.assert_array_equal(
        client.infer("test", [triton_input(x)]).as_numpy("logits"), expected(x)
    )


@pytest.mark.parametrize("binary", [False, True])
def test_classification(client: triton.InferenceServerClient, binary: bool) -> None:
    x = images(2)
    output = triton.InferRequestedOutput("logits", binary_data=binary, class_count=3)
    found = client.infer("test", [triton_input(x)], outputs=[output]).as_numpy("logits")

    scores = expected(x)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :3]
    text = found.tolist()
    assert [[int(bytes_or(entry).split(":")[1]) for entry in row] for row in text] == order.tolist()
    best = [[float(bytes_or(entry).split(":")[0]) for entry in row] for row in text]
    np.testing.assert_allclose(best, np.take_along_axis(scores, order, 1), atol=1e-6)


def bytes_or(entry: bytes | str) -> str:
    return entry.decode() if isinstance(entry, bytes) else entry


def test_more_classes_than_there_are(client: triton.InferenceServerClient) -> None:
    output = triton.InferRequestedOutput("logits", class_count=100)
    found = client.infer("test", [triton_input(images(1))], outputs=[output]).as_numpy("logits")
    assert found.shape == (1, 6)


def test_data_nested_and_flat_are_the_same(server: Running) -> None:
    x = images(2)
    answers = []
    for data in (x.tolist(), x.ravel().tolist()):
        entry = {"name": "image", "datatype": "FP32", "shape": x.shape, "data": data}
        status, body = server.request("POST", INFER, json.dumps({"inputs": [entry]}).encode())
        assert status == 200
        answers.append(json.loads(body)["outputs"][0])
    assert answers[0] == answers[1]
    assert answers[0]["shape"] == [2, 6]
    np.testing.assert_array_equal(np.float32(answers[0]["data"]), expected(x).ravel())


def test_a_body_of_data_alone(server: Running) -> None:
    x = images(3)
    headers = {"Inference_Header_Content_Length": "0"}
    status, body = server.request("POST", INFER, x.tobytes(), **headers)
    assert status == 200
    assert body.endswith(expected(x).tobytes())
    status, _ = server.request("POST", INFER, x.tobytes()[:-1], **headers)
    assert status == 400


def test_several_outputs_in_any_order(server_program: Path, tmp_path: Path) -> None:
    program = fully_convolutional()
    (tmp_path / "model.pyq").write_bytes(serialize.to_bytes(program))
    x = images(2)
    modules = ProgramModule(program)(torch.from_numpy(x))
    names = [program.tensors[index].name for index in program.outputs]
    wanted = dict(zip(names, modules, strict=True))
    with running.start(server_program, tmp_path / "model.pyq", "--name", "two") as server:
        client = triton.InferenceServerClient(server.url())
        outputs = [triton.InferRequestedOutput(name) for name in reversed(names)]
        result = client.infer("two", [triton_input(x)], outputs=outputs)
        for name in names:
            np.testing.assert_array_equal(result.as_numpy(name), wanted[name].numpy())
        assert [entry["name"] for entry in result.get_response()["outputs"]] == names[::-1]
        # Height and width are the model's, so that nobody makes it plan for others.
        with pytest.raises(triton.InferenceServerException, match=r"takes \[1, 3, 8, 9\]"):
            client.infer("two", [triton_input(np.zeros((1, 3, 8, 10), np.float32))])


def test_metrics_are_prometheus_text(server: Running) -> None:
    before = server.metric("pyquant_images_total")
    server.request("POST", INFER, images(3).tobytes(), Inference_Header_Content_Length="0")
    server.request("GET", "/nothing")

    assert server.metric("pyquant_images_total") == before + 3
    assert server.metric('pyquant_http_responses_total{status="404"}') >= 1
    count = server.metric("pyquant_run_seconds_count")
    assert count >= 1
    assert server.metric('pyquant_run_seconds_bucket{le="+Inf"}') == count
    assert server.metric("pyquant_connections") >= 1  # that of this request
    _, text = server.request("GET", "/metrics")
    for line in text.decode().splitlines():
        assert line.startswith("# ") or len(line.split(" ")) == 2


def test_a_picture_needs_a_bundle(server: Running) -> None:
    picture = base64.b64decode("/9j/4AAQ")
    status, body = server.request("POST", INFER, picture, Content_Type="image/jpeg")
    assert status == 415
    assert "preprocessing" in json.loads(body)["error"]
