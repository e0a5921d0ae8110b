"""The loader apps: what can be checked without an Android SDK or Xcode.

Their sources parse, they read the manifest that is written, and the versions of the runtimes are
the same in the build files, the READMEs and a bundle's README. The apps' own tests check the logic.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyquant.mobile import manifest
from pyquant.mobile.manifest import (
    FileRecord,
    Manifest,
    Preprocessing,
    TensorRecord,
    Tolerance,
)

jinja2 = pytest.importorskip("jinja2")
tree_sitter = pytest.importorskip("tree_sitter")
yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).resolve().parent.parent
ANDROID, IOS = ROOT / "mobile" / "android", ROOT / "mobile" / "ios"
TEMPLATES = ROOT / "mobile" / "templates"
GRAMMARS = {
    ".kt": "tree_sitter_kotlin",
    ".kts": "tree_sitter_kotlin",
    ".swift": "tree_sitter_swift",
}
KOTLIN_MANIFEST = ANDROID / "core/src/main/kotlin/org/pyquant/bundle/Manifest.kt"
SWIFT_MANIFEST = IOS / "PyquantBundle/Sources/PyquantBundle/Manifest.swift"

#: The classes of the manifest that an app has, by name.
RECORDS: dict[str, Any] = {
    record.__name__: record
    for record in (Manifest, TensorRecord, FileRecord, Tolerance, Preprocessing)
}


def sources(*suffixes: str) -> list[Path]:
    return [
        path
        for app in (ANDROID, IOS)
        for path in sorted(app.rglob("*"))
        if path.suffix in suffixes and not {"build", ".build", ".gradle"} & set(path.parts)
    ]


def parse(suffix: str, code: bytes) -> Any:
    grammar = pytest.importorskip(GRAMMARS[suffix])
    return tree_sitter.Parser(tree_sitter.Language(grammar.language())).parse(code).root_node


def nodes(root: Any, kind: str | None = None) -> Iterator[Any]:
    if kind in (None, root.type):
        yield root
    for child in root.children:
        yield from nodes(child, kind)


def errors(root: Any) -> list[str]:
    """What the grammar could not read; a semicolon that only it misses is no error."""
    return [
        f"line {node.start_point[0] + 1}: {node.text.decode()[:60]!r}"
        for node in nodes(root)
        if node.type == "ERROR" or (node.is_missing and not node.type.endswith("_semi"))
    ]


def text(node: Any) -> str:
    return str(node.text.decode())


def kotlin_fields(code: bytes) -> dict[str, dict[str, str]]:
    """Name and type of each field in the constructors of a file's classes."""
    found = {}
    for kind in nodes(parse(".kt", code), "class_declaration"):
        pairs = re.findall(
            r"val (\w+): ([\w<>?]+)",
            "".join(text(node) for node in nodes(kind, "class_parameters")),
        )
        found[text(kind.child_by_field_name("name"))] = dict(pairs)
    return found


def swift_fields(code: bytes) -> dict[str, dict[str, str]]:
    """Name and type of each stored property in a file's structs."""
    return {
        text(kind.child_by_field_name("name")): dict(
            re.findall(r"public let (\w+): ([\w\[\]?]+)", text(kind))
        )
        for kind in nodes(parse(".swift", code), "class_declaration")
    }


def snake_case(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: "_" + letter[0].lower(), name)


def example_manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "model_name": "tiny",
        "created_by": "pyquant 0",
        "inputs": (TensorRecord("input_0", (1, 3, 8, 6)),),
        "outputs": (TensorRecord("output_0", (1, 4), layout="row-major", step=0.25),),
        "files": (
            FileRecord("model.pte", "executorch", 1234567, "00", "ExecuTorch", "1.1.0"),
            FileRecord("model.ptl", "torchscript", 10, "00", "PyTorch Mobile"),
        ),
        "tolerance": Tolerance(3.0, 0.99),
        "preprocessing": Preprocessing((9, 9), (8, 6), (0.4, 0.5, 0.6), None, 0.01, "BGR"),
    }
    return Manifest(**{**values, **changes})


def render(name: str, described: Manifest) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return str(environment.get_template(name).render(manifest=described, files=described.files))


@pytest.mark.parametrize(
    "path", sources(*GRAMMARS), ids=lambda path: str(path.relative_to(ROOT / "mobile"))
)
def test_sources_parse(path: Path) -> None:
    assert errors(parse(path.suffix, path.read_bytes())) == []


def test_a_broken_source_is_found() -> None:
    assert errors(parse(".kt", b"fun f( = 1\n"))
    assert errors(parse(".swift", b"struct A { let = }\n"))


def test_configuration_parses() -> None:
    for path in sources(".xml"):
        ElementTree.fromstring(path.read_text())
    project = yaml.safe_load((IOS / "project.yml").read_text())
    assert [*project["targets"]] == ["PyquantClassifier"]
    for target in project["targets"].values():
        packages = {dependency["package"] for dependency in target["dependencies"]}
        assert packages == set(project["packages"])


def test_every_string_and_library_that_is_used_exists() -> None:
    strings = ElementTree.parse(ANDROID / "app/src/main/res/values/strings.xml").getroot()
    code = "".join(path.read_text() for path in sources(".kt", ".xml"))
    used = set(re.findall(r"(?:R\.string\.|@string/)(\w+)", code))
    assert used == {entry.attrib["name"] for entry in strings}

    catalog = pytest.importorskip("tomllib").loads(
        (ANDROID / "gradle/libs.versions.toml").read_text()
    )
    accessors = {name.replace("-", ".") for name in catalog["libraries"]}
    accessors |= {f"plugins.{name.replace('-', '.')}" for name in catalog["plugins"]}
    build_files = "".join(path.read_text() for path in ANDROID.rglob("*.gradle.kts"))
    assert set(re.findall(r"\blibs\.([\w.]+)\b", build_files)) == accessors
    entries = [*catalog["libraries"].values(), *catalog["plugins"].values()]
    referred = {entry["version"]["ref"] for entry in entries if "version" in entry}
    assert referred == set(catalog["versions"])


@pytest.mark.parametrize(
    "fields",
    [kotlin_fields(KOTLIN_MANIFEST.read_bytes()), swift_fields(SWIFT_MANIFEST.read_bytes())],
    ids=["kotlin", "swift"],
)
def test_the_apps_read_the_manifest_that_is_written(fields: dict[str, dict[str, str]]) -> None:
    for name, record in RECORDS.items():
        written = {field.name: str(field.type) for field in dataclasses.fields(record)}
        assert fields[name], name
        for field, kind in fields[name].items():
            assert snake_case(field) in written, f"{name}.{field}"
            may_be_absent = "None" in written[snake_case(field)]
            assert kind.endswith("?") == may_be_absent, f"{name}.{field}"


@pytest.mark.parametrize("path", [KOTLIN_MANIFEST, SWIFT_MANIFEST], ids=["kotlin", "swift"])
def test_the_apps_know_the_format_and_its_version(path: Path) -> None:
    code = path.read_text()
    assert f'"{manifest.FORMAT}"' in code
    assert f'"{manifest.FILE_NAME}"' in code
    numbers = re.findall(r"(?:SCHEMA_VERSION|knownSchemaVersion) = (\d+)", code)
    assert numbers == [str(manifest.SCHEMA_VERSION)]


def test_versions_agree() -> None:
    tomllib = pytest.importorskip("tomllib")
    specifiers = pytest.importorskip("packaging.requirements")
    versions = tomllib.loads((ANDROID / "gradle/libs.versions.toml").read_text())["versions"]
    executorch, lite = versions["executorch"], versions["pytorch-lite"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    assert executorch in specifiers.Requirement(extras["mobile"][0]).specifier

    project = yaml.safe_load((IOS / "project.yml").read_text())
    assert project["packages"]["executorch"]["branch"] == f"swiftpm-{executorch}"
    texts = [(ANDROID / "README.md").read_text(), render("android.md", example_manifest())]
    for written in texts:
        assert set(re.findall(r"executorch-android:([\d.]+)", written)) == {executorch}
        assert set(re.findall(r"pytorch_android_lite:([\d.]+)", written)) == {lite}
    for written in [(IOS / "README.md").read_text(), render("ios.md", example_manifest())]:
        assert set(re.findall(r"swiftpm-([\d.]+\d)", written)) == {executorch}


@pytest.mark.parametrize(("template", "language"), [("android.md", "kotlin"), ("ios.md", "swift")])
@pytest.mark.parametrize("inputs", [1, 2])
def test_the_code_in_a_bundles_readme_parses(template: str, language: str, inputs: int) -> None:
    described = example_manifest(
        inputs=tuple(TensorRecord(f"input_{index}", (1, 3, 8, 6)) for index in range(inputs)),
        outputs=tuple(TensorRecord(f"output_{index}", (1, 4)) for index in range(inputs)),
    )
    rendered = render(template, described)
    blocks = re.findall(rf"```{language}\n(.*?)```", rendered, re.DOTALL)
    assert len(blocks) == (4 if language == "kotlin" else 2)
    suffix = ".kt" if language == "kotlin" else ".swift"
    # A list of dependencies is a part of a package's description.
    whole = [
        f"f({block.strip().rstrip(',')})" if "package(" in block else block for block in blocks
    ]
    assert [errors(parse(suffix, block.encode())) for block in whole] == [[]] * len(blocks)
    assert f"input_{inputs - 1}" in blocks[-1] and f"output_{inputs - 1}" in blocks[-1]


@pytest.mark.parametrize("template", ["android.md", "ios.md"])
def test_a_bundles_readme_says_what_the_manifest_says(template: str) -> None:
    rendered = render(template, example_manifest())
    for part in (
        "| `model.pte` | executorch | 1,234,567 bytes | ExecuTorch, from 1.1.0 on |",
        "`input_0`: float32, shape [1, 3, 8, 6], NCHW",
        "as BGR",
        "covers 9 x 9 (height x width), and cut out the centre of 8 x 6",
        "Multiply each value by 0.01",
        "mean: 0.4, 0.5, 0.6",
        "at most 3.0",
        "at least 0.99",
        "no more than 6.0 steps",
    ):
        assert part in rendered
    assert "standard deviation" not in rendered
    without = render(template, example_manifest(preprocessing=None, files=()))
    assert "does not say how to make the input" in without
    assert "model.pte" not in without


def test_the_wheel_has_the_templates_but_not_the_apps() -> None:
    try:
        installed = [str(path) for path in importlib.metadata.files("pyquant") or ()]
    except importlib.metadata.PackageNotFoundError:
        installed = []
    if "pyquant/mobile/manifest.py" not in installed:
        pytest.skip("pyquant is not installed from a wheel")
    shipped = {path for path in installed if path.startswith("pyquant/mobile/templates/")}
    assert shipped == {f"pyquant/mobile/templates/{path.name}" for path in TEMPLATES.glob("*.md")}
    assert not [path for path in installed if re.match(r"pyquant/mobile/(android|ios)/", path)]
