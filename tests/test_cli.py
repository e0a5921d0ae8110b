"""The ``pyquant`` command, run in this process on small models."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

import pyquant
from pyquant.analysis.measure import interleaved
from pyquant.analysis.sqnr import sqnr
from pyquant.cli import main

SHAPE = (1, 3, 16, 16)


def tiny() -> nn.Module:
    """What the tests quantize; the command finds it as ``test_cli:tiny``."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def with_float_operator() -> nn.Module:
    """A sorted output: nothing that int8 can do."""

    class Sorted(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sort(x).values

    return nn.Sequential(tiny(), Sorted())


def broken() -> nn.Module:
    raise RuntimeError("no weights today")


not_a_model = 3


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    # A SystemExit is the command's own end; anything else is a traceback in the user's face.
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def quantize(model: str, output: Path, *options: object, data: object = "random") -> Result:
    return run(
        *("quantize", model, "--calib", data, "--output", output, "--samples", 8),
        *(options or ("--targets", "pyq", "--input-shape", "1x3x16x16")),
    )


def row(result: Result, label: str) -> list[str]:
    """The cells of the one table row that has ``label`` in its first or second cell."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in result.output.splitlines()]
    found = [cells for cells in rows if len(cells) > 1 and label in " ".join(cells[:2])]
    assert len(found) == 1, f"{label!r} is in {len(found)} rows of\n{result.output}"
    return found[0]


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``model.pyq`` that the command made of ``tiny``."""
    folder = tmp_path_factory.mktemp("made") / "new" / "folder"
    result = quantize("test_cli:tiny", folder)
    assert result.exit_code == 0, result.output
    return folder / "model.pyq"


def test_quantize_writes_a_model_that_computes_what_the_float_model_does(model_file: Path) -> None:
    x = torch.randn(4, *SHAPE[1:])
    expected = tiny().eval()(x)

    error = (pyquant.load(model_file)(x) - expected).norm() / expected.norm()

    assert [path.name for path in model_file.parent.iterdir()] == ["model.pyq"]
    assert error < 0.05


def test_quantize_reports_size_error_and_latency(tmp_path: Path) -> None:
    result = quantize("test_cli:tiny", tmp_path)

    assert "random numbers: for speed tests only" in result.output
    assert float(row(result, "SQNR")[-1].removesuffix(" dB")) > 25
    assert row(result, "left in float")[-1] == "0"
    assert all(cell.endswith(" ms") for cell in row(result, "latency")[1:3])
    floats = sum(tensor.numel() * tensor.element_size() for tensor in tiny().state_dict().values())
    size = (tmp_path / "model.pyq").stat().st_size
    assert row(result, "size ")[1:3] == [f"{floats / 1e3:.1f} kB", f"{size / 1e3:.1f} kB"]


def test_quantize_takes_samples_from_numpy_and_torch_files(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(size=(8, *SHAPE[1:]))
    np.save(tmp_path / "samples.npy", samples)
    np.savez(tmp_path / "samples.npz", samples)
    torch.save(torch.from_numpy(samples).float(), tmp_path / "samples.pt")
    written = []
    for name in ("samples.npy", "samples.npz", "samples.pt"):
        output = tmp_path / name.replace(".", "-")
        result = quantize("test_cli:tiny", output, "--targets", "pyq", data=tmp_path / name)
        assert result.exit_code == 0, result.output
        assert "speed tests" not in result.output
        written.append((output / "model.pyq").read_bytes())

    assert written[0] == written[1] == written[2]


def test_quantize_preprocesses_a_folder_of_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    photos = tmp_path / "photos" / "class"
    photos.mkdir(parents=True)
    for index in range(4):
        pixels = np.full((40, 60 + index, 3), 50 * index, np.uint8)
        image.fromarray(pixels).save(photos / f"{index}.png")
    options = ("--targets", "pyq", "--resize", 20, "--crop", 16, "--mean", "0.5,0.5,0.5")

    result = quantize("test_cli:tiny", tmp_path / "out", *options, data=photos.parent)

    assert result.exit_code == 0, result.output
    program = pyquant.load(tmp_path / "out" / "model.pyq").program
    assert program is not None
    assert program.tensors[program.inputs[0]].shape == SHAPE
    quantized = program.tensors[program.nodes[0].output]
    low = -quantized.zero_point * float(quantized.scale[0])
    high = low + 255 * float(quantized.scale[0])
    assert low == pytest.approx(-0.5, abs=0.02)  # black and (150 / 255 - 0.5), as preprocessed
    assert high == pytest.approx(150 / 255 - 0.5, abs=0.02)


def test_quantize_takes_an_exported_program_and_its_shape(tmp_path: Path) -> None:
    exported = torch.export.export(tiny().eval(), (torch.randn(SHAPE),))
    torch.export.save(exported, tmp_path / "model.pt2")

    result = quantize(str(tmp_path / "model.pt2"), tmp_path / "out", "--targets", "pyq")

    assert result.exit_code == 0, result.output
    x = torch.randn(SHAPE)
    expected = tiny().eval()(x)
    error = (pyquant.load(tmp_path / "out" / "model.pyq")(x) - expected).norm() / expected.norm()
    assert error < 0.05


def test_quantize_names_what_stays_float_and_saves_it(tmp_path: Path) -> None:
    result = quantize("test_cli:with_float_operator", tmp_path)

    assert result.exit_code == 0, result.output
    assert row(result, "aten.sort")[2] == "there is no int8 operator for it"
    (file,) = tmp_path.iterdir()
    assert file.name == "model.pt2"
    assert "aten.sort" in str(pyquant.load(file).float_operators)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet18", "is not torchvision:NAME"),
        ("no_such_package.models:net", "cannot import no_such_package.models"),
        ("test_cli:absent", "test_cli has no 'absent'"),
        ("test_cli:not_a_model", "neither a model nor a function"),
        ("test_cli:broken", "RuntimeError: no weights today"),
        ("absent.pt2", "there is no file absent.pt2"),
    ],
)
def test_quantize_explains_a_bad_model(model: str, message: str, tmp_path: Path) -> None:
    result = quantize(model, tmp_path / "out")

    assert result.exit_code in (1, 2)
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_quantize_refuses_a_file_that_is_no_exported_program(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"hello")

    result = quantize(str(tmp_path / "model.pt2"), tmp_path / "out")

    assert result.exit_code == 1
    assert "is no exported program" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.npy", None, "there is no file or folder"),
        ("text.npy", b"hello", "holds no plain tensors"),
        ("list.txt", b"hello", "no .npy, .npz or .pt file"),
    ],
)
def test_quantize_explains_bad_data(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)

    result = quantize("test_cli:tiny", tmp_path / "out", data=tmp_path / name)

    assert result.exit_code == 1
    assert message in result.stderr


def test_quantize_does_not_unpickle_calibration_data(tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "touched"),))

    torch.save(Attack(), tmp_path / "samples.pt")
    result = quantize("test_cli:tiny", tmp_path / "out", data=tmp_path / "samples.pt")

    assert result.exit_code == 1
    assert not (tmp_path / "touched").exists()


def test_quantize_checks_the_output_before_it_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    # The model is wrong as well: the output is looked at first.
    result = quantize("test_cli:broken", tmp_path / "file" / "below")

    assert result.exit_code == 1
    assert "is not a folder" in result.stderr


def test_quantize_needs_a_shape_for_random_data(tmp_path: Path) -> None:
    result = quantize("test_cli:tiny", tmp_path / "out", "--targets", "pyq")

    assert result.exit_code == 1
    assert "needs --input-shape" in result.stderr


@pytest.mark.parametrize(
    "option",
    [("--targets", "onnx"), ("--input-shape", "1x3xwide"), ("--mean", "a,b,c"), ("--std", "0,1,1")],
)
def test_quantize_rejects_malformed_options(option: tuple[str, str], tmp_path: Path) -> None:
    result = quantize("test_cli:tiny", tmp_path / "out", *option)

    assert result.exit_code == 2
    assert option[0] in result.stderr


def test_inspect_lists_the_interface_and_the_operators(model_file: Path) -> None:
    result = run("inspect", model_file)

    assert result.exit_code == 0, result.output
    assert row(result, "input ")[2:4] == ["float32", "1x3x16x16"]
    assert row(result, "output ")[2:4] == ["float32", "1x5"]
    convolution = row(result, " Conv2d")
    assert "1x16x16x8" in convolution
    assert f"{16 * 16 * 8 * 27 / 1e6:.2f}" in convolution  # million multiply-adds
    assert f"{8 * 27 + 8 * 4} B" in convolution  # int8 weights, int32 biases
    assert row(result, " Linear")
    size = model_file.stat().st_size
    assert f"file {size / 1e3:.1f} kB" in result.output


@pytest.mark.parametrize("engine", ["auto", "native", "reference"])
def test_bench_measures_one_engine(engine: str, model_file: Path) -> None:
    result = run("bench", model_file, "--engine", engine, "--runs", 5, "--batch", 2)

    assert result.exit_code == 0, result.output
    assert "batch 2" in result.output
    cells = row(result, f"{engine} ")
    assert cells[0] == engine
    median, minimum, p90 = (float(cell.removesuffix(" ms")) for cell in cells[2:5])
    assert 0 < minimum <= median <= p90
    assert cells[6] == "5"


def test_bench_compares_all_engines(model_file: Path) -> None:
    result = run("bench", model_file, "--engine", "all", "--runs", 3)

    assert result.exit_code == 0, result.output
    for engine in ("auto", *pyquant.engines()):
        assert any(line.split()[:1] == [engine] for line in result.stdout.splitlines()), engine


def test_bench_sets_the_threads(model_file: Path) -> None:
    before = torch.get_num_threads()
    try:
        result = run("bench", model_file, "--threads", 2, "--runs", 3)
    finally:
        torch.set_num_threads(before)

    assert "2 thread(s)" in result.output


def test_bench_profiles_every_step(model_file: Path) -> None:
    result = run("bench", model_file, "--profile", "--runs", 3, "--batch", 2)

    assert result.exit_code == 0, result.output
    convolution = row(result, "Conv2d")
    assert convolution[2:4] == ["2x16x16x8", "native"]
    assert f"{2 * 16 * 16 * 8 * 27 / 1e6:.2f}" in convolution
    shares = [float(share) for share in re.findall(r"(\d+\.\d)%", result.output)]
    assert sum(shares) == pytest.approx(100, abs=0.1 * len(shares))


def test_bench_writes_a_trace(model_file: Path, tmp_path: Path) -> None:
    result = run("bench", model_file, "--trace", tmp_path / "trace.json", "--runs", 3)

    assert result.exit_code == 0, result.output
    assert "Steps" not in result.output
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert "Conv2d" in [event.get("cat") for event in events]


def test_bench_explains_a_trace_that_cannot_be_written(model_file: Path, tmp_path: Path) -> None:
    result = run("bench", model_file, "--trace", tmp_path / "no" / "trace.json", "--runs", 3)

    assert result.exit_code == 1
    assert "cannot write" in result.stderr


def test_bench_explains_an_unknown_engine(model_file: Path) -> None:
    result = run("bench", model_file, "--engine", "warp")

    assert result.exit_code == 1
    assert "warp" in result.stderr


@pytest.mark.parametrize("command", ["inspect", "bench"])
def test_reading_explains_a_missing_a_foreign_and_a_truncated_file(
    command: str, model_file: Path, tmp_path: Path
) -> None:
    foreign, truncated = tmp_path / "foreign.pyq", tmp_path / "truncated.pyq"
    foreign.write_bytes(b"PK\x03\x04" + bytes(1000))
    truncated.write_bytes(model_file.read_bytes()[:300])
    for path in (tmp_path / "absent.pyq", foreign, truncated, tmp_path):
        result = run(command, path)

        assert result.exit_code == 1, path
        assert result.stderr.startswith("Error: "), path
        assert not result.stdout, path


def test_verify_explains_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    result = run("verify", tmp_path)

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")


def test_demo_checks_the_output_before_it_works(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    result = run("demo", "--output", tmp_path / "file")

    assert result.exit_code == 1
    assert "is not a folder" in result.stderr
    assert not result.stdout


def test_sqnr_is_signal_over_noise_in_decibels() -> None:
    reference = [torch.tensor([3.0, 4.0]), (torch.zeros(2),)]
    noisy = [torch.tensor([3.0, 4.3]), (torch.tensor([0.0, 0.4]),)]

    assert sqnr(reference, noisy) == pytest.approx(20.0, abs=1e-4)  # 25 over 0.25
    assert sqnr(reference, reference) == float("inf")


def test_a_slow_call_drops_out_of_the_rounds() -> None:
    counts = {"slow": 0, "fast": 0}

    def call(name: str, seconds: float) -> None:
        counts[name] += 1
        time.sleep(seconds)

    timings = interleaved(
        {"slow": lambda: call("slow", 0.25), "fast": lambda: call("fast", 0.0)}, 10, budget=0.1
    )

    assert timings["slow"].runs == 3
    assert timings["fast"].runs == 10
    assert timings["slow"].minimum >= 0.25 > timings["fast"].median
    assert counts["slow"] == 4  # one more to warm up


def test_a_longer_turn_begins_with_an_untimed_call() -> None:
    counts = {"one": 0, "other": 0}
    order: list[str] = []

    def call(name: str) -> None:
        counts[name] += 1
        order.append(name)
        time.sleep(0.2 if len(order) <= 2 else 0.0)  # the warm-up ends after the first call

    timings = interleaved({name: lambda name=name: call(name) for name in counts}, 4, turn=2)

    assert [timing.runs for timing in timings.values()] == [8, 8]
    assert counts == {"one": 1 + 4 * 3, "other": 1 + 4 * 3}
    turns = [order[start : start + 3] for start in range(2, len(order), 3)]
    assert all(len(set(turn)) == 1 for turn in turns)
    assert max(timing.median for timing in timings.values()) < 0.1


def test_an_empty_command_line_lists_the_commands() -> None:
    result = run("--help")

    assert result.exit_code == 0
    for command in ("demo", "quantize", "inspect", "bench", "verify"):
        assert command in result.output
