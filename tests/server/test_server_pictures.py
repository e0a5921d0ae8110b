"""Bundles: pictures become the model's input as the manifest says, and classes have names."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tritonclient.http as triton
from PIL import Image
from programs import ProgramBuilder

import pyquant
import pyquant.mobile
from pyquant.ir import ops, serialize
from pyquant.mobile.manifest import Preprocessing
from server import running
from server.running import Running

Pixels = npt.NDArray[np.uint8]
SIZE = (24, 32)
STEP = 1 / 64
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def echo(channels: int) -> bytes:
    """A model whose output is its input, rounded to steps."""
    build = ProgramBuilder()
    x = build.input(build.floats((1, channels, *SIZE), "image"))
    x = build.node(ops.Quantize(), [x], build.uint8((1, *SIZE, channels), STEP, 128))
    return serialize.to_bytes(
        build.finish(
            build.node(ops.Dequantize(), [x], build.floats((1, channels, *SIZE), "pixels"))
        )
    )


def bundle(folder: Path, model: bytes, preprocessing: Preprocessing, **fields: Any) -> Path:
    """As ``pyquant export`` writes it."""
    source = folder / "source.pyq"
    source.write_bytes(model)
    pyquant.mobile.export(
        pyquant.load(source), folder / "bundle", (), preprocessing=preprocessing, progress=False,
        **fields,
    )  # fmt: skip
    return folder / "bundle"


def photo(height: int, width: int, channels: int = 3) -> Pixels:
    """Smooth, with some noise."""
    random = np.random.default_rng(height)
    small = Image.fromarray(random.integers(0, 256, (5, 7, channels), np.uint8).squeeze())
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC), np.int64)
    noisy = smooth + random.integers(-20, 21, smooth.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def encode(pixels: Pixels, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def prepared(file: bytes, resize: tuple[int, int], mode: str = "RGB") -> npt.NDArray[np.float32]:
    """Pillow's pixels after resizing to cover ``resize`` and cutting out the centre of SIZE."""
    image = Image.open(io.BytesIO(file)).convert(mode)
    width, height = image.size
    if resize[0] * width >= resize[1] * height:
        size = (width * resize[0] // height, resize[0])
    else:
        size = (resize[1], height * resize[1] // width)
    image = image.resize(size, Image.Resampling.BILINEAR)
    top, left = (round((size[1 - axis] - SIZE[axis]) / 2) for axis in (0, 1))
    pixels = np.asarray(image, np.float32)[top : top + SIZE[0], left : left + SIZE[1]]
    return pixels.reshape(*SIZE, -1).transpose(2, 0, 1)


@pytest.fixture(scope="module")
def rgb_server(server_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    preprocessing = Preprocessing(resize=(30, 36), crop=SIZE, mean=MEAN, std=STD)
    folder = bundle(tmp_path_factory.mktemp("rgb"), echo(3), preprocessing)
    with running.start(server_program, folder, "--name", "echo", "--max-pixels", "500000") as found:
        yield found


def pixels_from(server: Running, *files: bytes) -> npt.NDArray[np.float32]:
    """What the server makes of pictures."""
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(np.array(files, np.object_))
    client = triton.InferenceServerClient(server.url())
    found: npt.NDArray[np.float32] = client.infer("echo", [tensor]).as_numpy("pixels")
    return found


FILES: dict[str, bytes] = {
    "JPEG": encode(photo(61, 83), "JPEG", quality=90),
    "JPEG, progressive, wide": encode(photo(40, 200), "JPEG", progressive=True, subsampling=0),
    "JPEG, grey": encode(photo(90, 70, 1), "JPEG"),
    "PNG, tall": encode(photo(200, 40), "PNG"),
    "PNG, grey": encode(photo(64, 64, 1), "PNG"),
    "PNG, smaller than the input": encode(photo(9, 11), "PNG"),
    "PNG, one pixel": encode(photo(1, 1), "PNG"),
    "PNG, one line": encode(photo(1, 300), "PNG"),
}


@pytest.mark.parametrize("file", FILES.values(), ids=FILES.keys())
def test_pictures_are_prepared_as_pillow_does(rgb_server: Running, file: bytes) -> None:
    (found,) = pixels_from(rgb_server, file)
    mean, std = (np.float32(values)[:, None, None] for values in (MEAN, STD))
    expected = (prepared(file, (30, 36)) / 255 - mean) / std
    # Pillow rounds twice, to pixels of 0..255; the model to its steps; JPEG decoders differ by one.
    tolerance = 2.5 / 255 / min(STD) + STEP
    np.testing.assert_allclose(found, expected.clip(-128 * STEP, 127 * STEP), atol=tolerance)


def test_several_pictures_in_one_request(rgb_server: Running) -> None:
    files = list(FILES.values())[:4]
    together = pixels_from(rgb_server, *files)
    np.testing.assert_array_equal(
        together, np.concatenate([pixels_from(rgb_server, file) for file in files])
    )


def test_what_is_transparent_is_white(rgb_server: Running) -> None:
    (found,) = pixels_from(rgb_server, encode(np.zeros((30, 36, 4), np.uint8), "PNG"))
    assert found.min() > 1


@pytest.mark.parametrize("order", ["BGR", "GRAY"])
def test_color_orders(server_program: Path, tmp_path: Path, order: str) -> None:
    preprocessing = Preprocessing(scale=1 / 128, color_order=order)
    folder = bundle(tmp_path, echo(1 if order == "GRAY" else 3), preprocessing)
    file = encode(photo(48, 64), "PNG")
    with running.start(server_program, folder / "manifest.json", "--name", "echo") as server:
        (found,) = pixels_from(server, file)
    expected = prepared(file, SIZE, "L" if order == "GRAY" else "RGB")[::-1] / 128
    np.testing.assert_allclose(found, expected.clip(max=127 * STEP), atol=2 / 128 + STEP)


BAD: dict[str, tuple[bytes, int]] = {
    "nothing": (b"", 415),
    "text": (b"hello", 415),
    "a GIF": (encode(photo(8, 8), "GIF"), 415),
    "the start of a JPEG": (FILES["JPEG"][:3], 400),
    "half a JPEG": (FILES["JPEG"][:600], 400),
    "a damaged JPEG": (FILES["JPEG"][:300] + b"\0" * 300 + FILES["JPEG"][600:], 400),
    "half a PNG": (FILES["PNG, tall"][:600], 400),
    "a damaged PNG": (FILES["PNG, tall"][:300] + b"\0" * 9 + FILES["PNG, tall"][309:], 400),
    "too many pixels": (encode(np.zeros((1000, 1000), np.uint8), "PNG"), 413),
}


@pytest.mark.parametrize(("file", "status"), BAD.values(), ids=BAD.keys())
def test_what_is_no_picture(rgb_server: Running, file: bytes, status: int) -> None:
    path = "/v2/models/echo/infer"
    answer = rgb_server.request("POST", path, file, Content_Type="image/jpeg")
    assert answer[0] == status
    assert json.loads(answer[1])["error"]


def test_a_picture_alone_is_answered_with_the_five_best_classes(
    server_program: Path, tmp_path: Path
) -> None:
    build = ProgramBuilder()
    x = build.input(build.floats((1, 3, *SIZE), "image"))
    x = build.node(ops.Quantize(), [x], build.uint8((1, *SIZE, 3), STEP, 128))
    x = build.node(ops.AdaptiveAvgPool2d(1, 1), [x], build.uint8((1, 1, 1, 3), STEP, 128))
    x = build.node(ops.Flatten(), [x], build.uint8((1, 3), STEP, 128))
    model = serialize.to_bytes(build.finish(build.linear(x, 7)))
    names = [f"kind {index}: ä" for index in range(7)]
    folder = bundle(tmp_path, model, Preprocessing(mean=MEAN, std=STD), class_names=names)
    with running.start(server_program, folder, "--name", "seven") as server:
        path = "/v2/models/seven/infer"
        status, body = server.request("POST", path, FILES["JPEG"], Content_Type="image/jpeg")
        assert status == 200
        (output,) = json.loads(body)["outputs"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 5])
    scores, indices, labels = zip(*(text.split(":", 2) for text in output["data"]), strict=True)
    assert list(labels) == [names[int(index)] for index in indices]
    assert sorted(map(float, scores), reverse=True) == list(map(float, scores))


MANIFESTS: dict[str, tuple[dict[str, Any], str]] = {
    "another format": ({"format": "zip"}, "not the manifest"),
    "a later version": ({"schema_version": 2}, "not the manifest"),
    "no program": ({"files": []}, "no model.pyq"),
    "a file elsewhere": (
        {"files": [{"target": "program", "name": "../source.pyq"}]},
        "outside",
    ),
    "files that are none": ({"files": 7}, "damaged"),
    "a name that is no part of a URL": ({"model_name": "a/b"}, "--name"),
    "three means for one channel": ({"preprocessing": {"color_order": "GRAY"}}, "channels"),
    "a color order that is none": ({"preprocessing": {"color_order": "CMYK"}}, "CMYK"),
    "too few means": ({"preprocessing": {"mean": [0.5]}}, "mean"),
    "a crop that is not the input": ({"preprocessing": {"crop": [5, 5]}}, "crop"),
    "a crop larger than the image": (
        {"preprocessing": {"resize": [5, 5], "crop": list(SIZE)}},
        "crop",
    ),
}


@pytest.mark.parametrize(("changes", "reason"), MANIFESTS.values(), ids=MANIFESTS.keys())
def test_damaged_manifests(
    server_program: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    folder = bundle(tmp_path, echo(3), Preprocessing())
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))
    result = running.run_to_end(server_program, folder)
    assert result.returncode == 1
    assert reason in result.stderr


@pytest.mark.parametrize("content", [b"", b"no Program", base64.b64decode("AAAA")])
def test_files_that_are_no_models(server_program: Path, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.pyq"
    file.write_bytes(content)
    result = running.run_to_end(server_program, file)
    assert result.returncode == 1
    assert "Program" in result.stderr


def test_arguments_that_make_no_sense(server_program: Path, model: Path) -> None:
    for option in (["--workers", "-1"], ["--port", "70000"], ["--max-queue", "-1"], ["--nothing"]):
        result = running.run_to_end(server_program, model, *option)
        assert result.returncode not in (0, 1)
        assert option[0] in result.stderr
