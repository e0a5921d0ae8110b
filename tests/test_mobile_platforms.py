"""What an app's developer gets: a folder and a zip for each platform, with all that is needed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from phone_apps import PhoneApps

import pyquant
from pyquant import mobile
from pyquant.cli import main
from pyquant.errors import ExportError
from pyquant.mobile.manifest import Manifest

pytest.importorskip("executorch")
jsonschema = pytest.importorskip("jsonschema")


@pytest.fixture
def model(phone_apps: PhoneApps) -> pyquant.QuantizedModule:
    return phone_apps.model


@pytest.fixture
def made(phone_apps: PhoneApps) -> Path:
    return phone_apps.made


@pytest.mark.parametrize("platform", mobile.PLATFORMS)
def test_a_platform_gets_a_bundle_that_verifies(made: Path, platform: str) -> None:
    verification = mobile.verify(made / platform)
    assert verification.manifest.platform == platform
    assert set(verification.differences) == {"executorch", "torchscript"}
    assert verification.manifest.class_names == ("ant", "bee", "cat", "dog")


@pytest.mark.parametrize("platform", mobile.PLATFORMS)
def test_the_zip_holds_the_folder(made: Path, platform: str) -> None:
    with zipfile.ZipFile(made / f"{platform}.zip") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    assert content == {
        f"{platform}/{path.name}": path.read_bytes() for path in (made / platform).iterdir()
    }


@pytest.mark.parametrize("platform", mobile.PLATFORMS)
def test_the_manifest_fits_its_schema(made: Path, platform: str) -> None:
    schema = json.loads((made / platform / "manifest.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((made / platform / "manifest.json").read_text()), schema)


def test_the_schema_knows_every_field_and_no_other(made: Path) -> None:
    schema = json.loads((made / "ios" / "manifest.schema.json").read_text())
    manifest = json.loads((made / "ios" / "manifest.json").read_text())
    assert set(schema["properties"]) - {"$schema"} == set(manifest)
    manifest["schema_version"] = "one"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, schema)


def test_the_readme_says_how_to_load_the_files(made: Path) -> None:
    android, ios = ((made / name / "README.md").read_text() for name in ("android", "ios"))
    assert "org.pytorch:executorch-android" in android and "model.pte" in android
    assert "github.com/pytorch/executorch" in ios and "model.pte" in ios
    assert "{{" not in android + ios


def test_the_pte_file_takes_any_batch_and_tells_its_name(made: Path) -> None:
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(made / "android" / "model.pte")
    forward = program.load_method("forward")
    model = pyquant.load(made.parent / "model.pyq")
    for batch in (1, 3):
        x = torch.randn(batch, 3, 16, 16)
        assert torch.allclose(forward.execute([x])[0], model(x), atol=0.05)
    mean = program.load_method("get_mean").execute([])
    assert mean == pytest.approx([0.485, 0.456, 0.406])
    assert program.load_method("get_created_by").execute([])[0].startswith("pyquant ")


def test_a_platform_is_replaced_as_a_whole_and_strangers_are_kept(
    made: Path, model: pyquant.QuantizedModule, tmp_path: Path
) -> None:
    options = {"targets": ("torchscript",), "progress": False}
    mobile.export_platforms(model, tmp_path, ("android",), **options)
    mobile.export_platforms(model, tmp_path, ("android",), **options)
    assert {path.name for path in tmp_path.iterdir()} == {"android", "android.zip"}
    (tmp_path / "android" / "notes.txt").write_text("mine")
    with pytest.raises(pyquant.errors.IoError, match=r"notes\.txt"):
        mobile.export_platforms(model, tmp_path, ("android",), **options)


def test_a_graph_in_a_file_exports_too(model: pyquant.QuantizedModule, tmp_path: Path) -> None:
    assert model.graph is not None
    graph = torch.export.export(model.graph, (torch.randn(1, 3, 16, 16),))
    torch.export.save(graph, tmp_path / "net.pt2")
    arguments = ["export", str(tmp_path / "net.pt2"), "--ios", "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert mobile.verify(tmp_path / "out" / "ios").manifest.model_name == "net"


def test_unknown_platforms_are_refused(model: pyquant.QuantizedModule, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="unknown platform 'palm'"):
        mobile.export_platforms(model, tmp_path, ("palm",))


def test_a_manifest_may_name_no_document_outside(made: Path) -> None:
    manifest = json.loads((made / "ios" / "manifest.json").read_text())
    manifest["documents"] = ["../README.md"]
    with pytest.raises(ExportError, match="outside the bundle"):
        Manifest.from_json(json.dumps(manifest))
