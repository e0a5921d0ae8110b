"""Bundles: complete and checked, or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pyquant
from pyquant import mobile
from pyquant.errors import ExportError, IoError
from pyquant.mobile import compare, target_writer
from pyquant.mobile.manifest import Manifest

NAMES = {
    "manifest.json",
    "model.pyq",
    "model.pte",
    "model.ptl",
    "golden_input.bin",
    "golden_output.bin",
}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.residual = nn.Conv2d(8, 8, 1)
        self.classifier = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x = x + self.residual(x)
        return self.classifier(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@pytest.fixture(scope="module")
def sample() -> torch.Tensor:
    return torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model(sample: torch.Tensor) -> pyquant.QuantizedModule:
    torch.manual_seed(0)
    return pyquant.quantize(Net().eval(), sample, [sample], progress=False)


@pytest.fixture(scope="module")
def made(
    model: pyquant.QuantizedModule,
    sample: torch.Tensor,
    tmp_path_factory: pytest.TempPathFactory,
) -> mobile.Bundle:
    pytest.importorskip("executorch")
    return mobile.export(
        model,
        tmp_path_factory.mktemp("bundles") / "net",
        example_inputs=sample,
        preprocessing={"resize": (16, 16), "mean": (0.5, 0.5, 0.5), "color_order": "BGR"},
        class_names=[f"class {k}" for k in range(10)],
        progress=False,
    )


@pytest.fixture
def copy(made: mobile.Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.path, tmp_path / "copy"))


def export_ptl(model: Any, output: Path, **options: Any) -> mobile.Bundle:
    """The quick half of an export."""
    return mobile.export(model, output, targets=("torchscript",), progress=False, **options)


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_bundle_holds_all_files_and_nothing_else_is_left(made: mobile.Bundle) -> None:
    assert everything_below(made.path) == NAMES
    assert [path.name for path in made.path.parent.iterdir()] == ["net"]


def test_the_folder_has_ordinary_permissions(made: mobile.Bundle) -> None:
    umask = os.umask(0)
    os.umask(umask)
    assert made.path.stat().st_mode & 0o777 == 0o777 & ~umask


def test_the_manifest_tells_what_an_app_needs(made: mobile.Bundle) -> None:
    told = json.loads((made.path / "manifest.json").read_text())
    assert told["schema_version"] == 1
    assert told["created_by"].startswith("pyquant ")
    assert told["inputs"][0]["shape"] == [1, 3, 16, 16]
    assert told["inputs"][0]["layout"] == "NCHW"
    assert told["outputs"][0]["shape"] == [1, 10]
    assert told["outputs"][0]["step"] > 0
    assert told["preprocessing"]["resize"] == [16, 16]
    assert told["preprocessing"]["color_order"] == "BGR"
    assert told["class_names"][3] == "class 3"
    assert told["libraries"]["torch"] == torch.__version__
    files = {entry["name"]: entry for entry in told["files"]}
    assert set(files) == NAMES - {"manifest.json"}
    for name, entry in files.items():
        content = (made.path / name).read_bytes()
        assert entry["size"] == len(content)
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert files["model.pte"]["details"] == {"delegates": 1, "undelegated": {}}
    assert files["model.ptl"]["min_version"] == "1.13.1"
    assert files["model.ptl"]["difference"]["cosine"] > 0.999


def test_the_manifest_reads_back_as_it_was(made: mobile.Bundle) -> None:
    assert Manifest.from_json((made.path / "manifest.json").read_text()) == made.manifest


def test_the_golden_pair_is_the_example_and_the_models_answer(
    made: mobile.Bundle, model: pyquant.QuantizedModule, sample: torch.Tensor
) -> None:
    golden_input = np.fromfile(made.path / "golden_input.bin", "<f4")
    golden_output = np.fromfile(made.path / "golden_output.bin", "<f4")
    step = made.manifest.inputs[0].step
    assert np.abs(golden_input - sample.numpy().ravel()).max() <= step
    assert np.abs(golden_input / step - np.rint(golden_input / step)).max() < 1e-4
    assert np.array_equal(golden_output, model(sample).numpy().ravel())


def test_random_golden_inputs_are_the_same_every_time(
    model: pyquant.QuantizedModule, tmp_path: Path
) -> None:
    first, second = export_ptl(model, tmp_path / "a"), export_ptl(model, tmp_path / "b")
    content = (first.path / "golden_input.bin").read_bytes()
    assert content == (second.path / "golden_input.bin").read_bytes()
    assert len(np.unique(np.frombuffer(content, "<f4"))) > 100


def test_verify_passes_and_reports_every_target(made: mobile.Bundle) -> None:
    result = mobile.verify(str(made.path))
    assert set(result.differences) == {"program", "executorch", "torchscript"}
    assert result.differences["program"].max_steps == 0
    assert all(difference.max_steps <= 2 for difference in result.differences.values())


@pytest.mark.parametrize("name", sorted(NAMES - {"manifest.json"}))
def test_one_changed_byte_fails_verification(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ExportError, match=f"{name} is damaged"):
        mobile.verify(copy)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_missing_file_fails_verification(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(IoError, match=name):
        mobile.verify(copy)


def with_consistent_sums(folder: Path) -> None:
    """Rewrites the manifest's sums, as one who tampers on purpose would."""
    told = json.loads((folder / "manifest.json").read_text())
    for entry in told["files"]:
        content = (folder / entry["name"]).read_bytes()
        entry.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    (folder / "manifest.json").write_text(json.dumps(told))


@pytest.mark.parametrize(
    ("name", "target"),
    [("model.pte", "executorch"), ("model.ptl", "torchscript"), ("model.pyq", "program")],
)
def test_a_file_of_garbage_fails_by_its_target(copy: Path, name: str, target: str) -> None:
    (copy / name).write_bytes(b"garbage" * 100)
    with_consistent_sums(copy)
    with pytest.raises(ExportError, match=f"the {target} file"):
        mobile.verify(copy)


def test_another_models_file_fails_by_its_numbers(copy: Path, sample: torch.Tensor) -> None:
    torch.manual_seed(5)
    other = pyquant.quantize(Net().eval(), sample, [sample], progress=False)
    elsewhere = export_ptl(other, copy.parent / "other", example_inputs=sample)
    shutil.copy(elsewhere.path / "model.ptl", copy / "model.ptl")
    with_consistent_sums(copy)
    with pytest.raises(ExportError, match=r"torchscript file disagrees .* cosine"):
        mobile.verify(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "schema version 99"),
        ({"format": "other"}, "not a pyquant bundle"),
        ({"files": [{"name": "../x", "target": "program", "size": 1, "sha256": "0"}]}, "outside"),
        ({"files": [{"name": 3}]}, "damaged"),
        ({"inputs": "x"}, "damaged"),
        ({"surprise": 1}, "damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(copy: Path, change: dict[str, Any], message: str) -> None:
    told = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**told, **change}))
    with pytest.raises(ExportError, match=message):
        mobile.verify(copy)


def test_a_manifest_that_is_no_json_is_refused(copy: Path) -> None:
    (copy / "manifest.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ExportError, match="damaged"):
        mobile.verify(copy)


def test_a_wrong_result_stops_the_export_and_keeps_the_old_bundle(
    model: pyquant.QuantizedModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = export_ptl(model, tmp_path / "net")
    before = {path.name: path.read_bytes() for path in old.path.iterdir()}
    real = target_writer.torchscript.to_torchscript
    torch.manual_seed(9)
    x = torch.randn(1, 3, 16, 16)
    wrong = pyquant.quantize(Net().eval(), x, [x], progress=False).program
    monkeypatch.setattr(
        target_writer.torchscript, "to_torchscript", lambda _, inputs: real(wrong, inputs)
    )
    with pytest.raises(ExportError, match="torchscript file disagrees"):
        export_ptl(model, tmp_path / "net")
    assert {path.name: path.read_bytes() for path in old.path.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_an_older_bundle_and_an_empty_folder_are_replaced(
    model: pyquant.QuantizedModule, tmp_path: Path
) -> None:
    (tmp_path / "net").mkdir()
    export_ptl(model, tmp_path / "net")
    export_ptl(model, tmp_path / "net", class_names=["second"])
    manifest = mobile.verify(tmp_path / "net").manifest
    assert manifest.class_names == ("second",)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]


def test_a_folder_of_other_things_is_not_replaced(
    model: pyquant.QuantizedModule, tmp_path: Path
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "thesis.tex").write_text("five years")
    with pytest.raises(IoError, match=r"thesis\.tex"):
        export_ptl(model, tmp_path / "net")
    assert everything_below(tmp_path) == {"net", "net/thesis.tex"}


def test_a_users_file_inside_a_bundle_is_not_deleted(
    model: pyquant.QuantizedModule, tmp_path: Path
) -> None:
    export_ptl(model, tmp_path / "net")
    (tmp_path / "net" / "labels.txt").write_text("cat")
    with pytest.raises(IoError, match=r"labels\.txt"):
        export_ptl(model, tmp_path / "net")
    assert (tmp_path / "net" / "labels.txt").read_text() == "cat"


def test_an_output_that_cannot_be_written_is_an_io_error(
    model: pyquant.QuantizedModule, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    for output in (tmp_path / "file", tmp_path / "file" / "net"):
        with pytest.raises(IoError):
            export_ptl(model, output)
    assert everything_below(tmp_path) == {"file"}


def test_a_full_disk_leaves_nothing_behind(
    model: pyquant.QuantizedModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(IoError, match="No space left"):
        export_ptl(model, tmp_path / "net")
    assert everything_below(tmp_path) == set()


def test_missing_parents_are_made(model: pyquant.QuantizedModule, tmp_path: Path) -> None:
    export_ptl(model, tmp_path / "a" / "b" / "net")
    assert (tmp_path / "a" / "b" / "net" / "model.ptl").exists()


def test_a_loaded_model_exports_to_every_target(made: mobile.Bundle, tmp_path: Path) -> None:
    loaded = pyquant.load(made.path / "model.pyq")
    targets = ("executorch", "torchscript", "libtorch")
    bundle = mobile.export(loaded, tmp_path / "net", targets=targets, progress=False)
    differences = mobile.verify(bundle.path).differences
    assert set(differences) == {"program", *targets}
    assert all(difference.cosine > 0.999 for difference in differences.values())


def test_unknown_targets_and_preprocessing_are_refused(
    model: pyquant.QuantizedModule, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="unknown target 'vulkan'"):
        mobile.export(model, tmp_path / "net", targets=("vulkan",))
    with pytest.raises(ExportError, match="preprocessing has no field 'sharpen'"):
        export_ptl(model, tmp_path / "net", preprocessing={"sharpen": 1})


def test_progress_goes_to_stderr_or_nowhere(
    model: pyquant.QuantizedModule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_ptl(model, tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    mobile.export(model, tmp_path / "loud", targets=("torchscript",))
    output = capsys.readouterr()
    assert output.out == "" and "checking model.ptl" in output.err


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Any:
    """torchvision's models; its compiled operators need not fit this torch."""
    real = torch.library.register_fake

    def register_fake(name: Any, *args: Any, **options: Any) -> Any:
        if isinstance(name, str) and name.startswith("torchvision::"):
            return lambda function: function
        return real(name, *args, **options)

    monkeypatch.setattr(torch.library, "register_fake", register_fake)
    return pytest.importorskip("torchvision.models")


def test_mobilenet_v2_for_every_target(models: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = models.mobilenet_v2(weights=None)
    x = torch.randn(4, 3, 96, 96)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    model(x)  # gives BatchNorm statistics that keep the signal alive
    quantized = pyquant.quantize(model.eval(), x[:1], [x[:1]], progress=False)
    bundle = mobile.export(quantized, tmp_path / "net", example_inputs=x[:1], progress=False)
    files = {record.target: record for record in bundle.manifest.files}
    assert files["executorch"].details == {"delegates": 1, "undelegated": {}}
    assert files["torchscript"].notes == ()
    assert files["executorch"].size < 3.9e6 and files["torchscript"].size < 4.1e6


class TestCriterion:
    """Each of the three conditions can fail by itself."""

    golden = torch.tensor([[9.0, 8.0, 1.0, 0.0, 0.0, 2.0, 1.0, 3.0]])

    def check(self, actual: torch.Tensor, step: float = 1.0) -> mobile.Difference:
        allowed = compare.STRICT
        return compare.check_outputs("torchscript", [self.golden], [actual], [step], allowed)

    def test_equal_outputs(self) -> None:
        difference = self.check(self.golden.clone())
        assert (difference.max_steps, difference.mean_steps) == (0, 0)
        assert difference.cosine == pytest.approx(1)

    def test_a_low_cosine(self) -> None:
        with pytest.raises(ExportError, match=r"cosine 0\.9"):
            self.check(self.golden.flip(1) * 0.5 + self.golden, step=100.0)

    def test_a_large_mean_difference(self) -> None:
        with pytest.raises(ExportError, match="mean difference"):
            self.check(self.golden * 1.05, step=0.01)

    def test_another_best_class(self) -> None:
        swapped = self.golden.clone()
        swapped[0, 1] = 9.1
        with pytest.raises(ExportError, match="best class another"):
            self.check(swapped, step=0.1)

    def test_a_near_tie_may_go_either_way(self) -> None:
        swapped = self.golden.clone()
        swapped[0, 1] = 9.1
        self.check(swapped, step=0.6)

    def test_a_model_that_damps_is_held_to_the_strict_limits(self) -> None:
        allowed = compare.tolerance(
            lambda x: [x * 0.1], [torch.ones(2000)], [torch.ones(2000) * 0.1], [0.1], [0.1]
        )
        assert allowed == compare.STRICT

    def test_a_model_that_amplifies_is_allowed_what_it_does_itself(self) -> None:
        def model(x: torch.Tensor) -> list[torch.Tensor]:
            return [torch.arange(50.0) + 40 * (x - 1).sum().item()]

        allowed = compare.tolerance(model, [torch.ones(2000)], model(torch.ones(2000)), [0.1], [1])
        assert allowed.mean_steps == pytest.approx(8, rel=1e-3)  # two values were moved
        assert compare.LOOSE.cosine < allowed.cosine < compare.STRICT.cosine

    def test_no_model_is_allowed_everything(self) -> None:
        def model(x: torch.Tensor) -> list[torch.Tensor]:
            return [torch.arange(9.0) if x.sum() == 2000 else -torch.arange(9.0)]

        ones = torch.ones(2000)
        assert compare.tolerance(model, [ones], model(ones), [0.1], [1e-3]) == compare.LOOSE

    def test_another_shape(self) -> None:
        with pytest.raises(ExportError, match="shapes"):
            self.check(self.golden[:, :5])

    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_values_that_are_no_numbers(self, bad: float) -> None:
        good, broken = self.golden, torch.full_like(self.golden, bad)
        for actual in ([broken, good], [good, broken]):
            with pytest.raises(ExportError):
                compare.check_outputs("x", [good, good], actual, [1.0, 1.0], compare.STRICT)

    def test_zero_outputs(self) -> None:
        zero = torch.zeros(1, 8)
        assert compare.check_outputs("x", [zero], [zero], [1.0], compare.STRICT).cosine == 1
        with pytest.raises(ExportError):
            compare.check_outputs("x", [zero], [self.golden], [100.0], compare.STRICT)
