"""The Core ML variant: what can be checked of it where Core ML does not run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from phone_apps import PhoneApps

import pyquant
from pyquant import mobile
from pyquant.cli import main
from pyquant.errors import ExportError
from pyquant.ir import ops
from pyquant.mobile import bundle, platforms, runtimes
from pyquant.mobile.coreml import to_coreml
from pyquant.mobile.qdq_module import QdqModule

pytest.importorskip("executorch")
pytest.importorskip("coremltools")


@pytest.fixture
def model(phone_apps: PhoneApps) -> pyquant.QuantizedModule:
    return phone_apps.model


@pytest.fixture
def made(phone_apps: PhoneApps) -> Path:
    return phone_apps.made


def record_of(bundle: Path) -> mobile.FileRecord:
    record = mobile.verify(bundle).manifest.file("coreml")
    assert record is not None
    return record


def test_the_network_is_one_core_ml_package_with_int8_weights(
    made: Path, model: pyquant.QuantizedModule
) -> None:
    details = record_of(made / "ios").details
    assert (details["delegates"], details["undelegated"]) == (1, {})
    assert model.program is not None
    layers = [n for n in model.program.nodes if isinstance(n.op, ops.Conv2d | ops.Linear)]
    weights = [model.program.tensors[node.inputs[1]].data for node in layers]
    assert details["int8_weights"] == sum(weight.size for weight in weights if weight is not None)
    operators = details["operators"]
    assert operators["constexpr_affine_dequantize"] == len(layers)
    # Each layer reads int8 and gives int8.
    assert operators["quantize"] >= len(layers) and operators["dequantize"] >= len(layers)
    assert operators["conv"] + operators["linear"] == len(layers)


def test_ios_gets_it_and_android_does_not(made: Path) -> None:
    assert (made / "ios" / "model.coreml.pte").exists()
    assert not (made / "android" / "model.coreml.pte").exists()
    manifest = json.loads((made / "ios" / "manifest.json").read_text())
    assert "coremltools" in manifest["libraries"]


@pytest.mark.skipif(sys.platform == "darwin", reason="there it runs")
def test_all_say_that_it_was_not_run(made: Path) -> None:
    verification = mobile.verify(made / "ios")
    assert set(verification.differences) == {"executorch", "torchscript"}
    assert "Apple" in verification.not_run["coreml"]
    record = record_of(made / "ios")
    assert record.difference is None and "never run" in record.notes[0]
    assert "never run" in (made / "ios" / "README.md").read_text()
    output = CliRunner().invoke(main, ["verify", str(made / "ios")]).output
    assert "coreml file was not run" in output
    # The other runtimes still compare.
    assert {target.name for target in mobile.targets(made / "ios")} == {
        "ExecuTorch (.pte)",
        "PyTorch Mobile (.ptl)",
    }


def test_a_damaged_file_is_found_though_it_does_not_run(made: Path, tmp_path: Path) -> None:
    for path in (made / "ios").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((tmp_path / "model.coreml.pte").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "model.coreml.pte").write_bytes(content)
    with pytest.raises(ExportError, match=r"model\.coreml\.pte is damaged"):
        mobile.verify(tmp_path)


def test_where_core_ml_is_there_the_file_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from executorch import runtime

    registry = type(runtime.Runtime.get().backend_registry)
    monkeypatch.setattr(registry, "is_available", lambda _self, name: name == "CoreMLBackend")
    assert runtimes.why_not_run("coreml") is None


def test_without_coremltools_ios_has_the_rest(
    model: pyquant.QuantizedModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "coremltools"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "coremltools", None)
    monkeypatch.setattr(platforms, "DEFAULT_TARGETS", ("torchscript",))
    assert model.program is not None
    with pytest.raises(ExportError, match="coremltools: pip install coremltools"):
        to_coreml(QdqModule(model.program).eval(), (torch.randn(1, 3, 16, 16),))
    bundles = mobile.export_platforms(model, tmp_path, ("ios",), progress=False)
    assert bundles["ios"].manifest.file("coreml") is None


def test_it_can_be_left_out(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "DEFAULT_TARGETS", ("torchscript",))
    arguments = ["export", str(made.parent / "model.pyq"), "--ios", "--no-coreml"]
    result = CliRunner().invoke(main, [*arguments, "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "out" / "ios" / "model.coreml.pte").exists()


def test_export_is_silent(
    model: pyquant.QuantizedModule, capfd: pytest.CaptureFixture[str]
) -> None:
    assert model.program is not None
    capfd.readouterr()
    to_coreml(QdqModule(model.program).eval(), (torch.randn(1, 3, 16, 16),))
    assert capfd.readouterr() == ("", "")
