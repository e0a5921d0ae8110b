"""The report's HTML: whole, self-contained, and safe whatever the layers are called."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element

import analyses
import html5lib
import pytest
import torch
from digits_nets import Digits
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyquant.analysis.analysis import Analysis, Histogram, LayerAnalysis
from pyquant.analysis.report import render_report, write_report
from pyquant.analysis.report.charts import histogram_chart, nice_ticks
from pyquant.analysis.report.findings import findings, headlines
from pyquant.analysis.report.lanes import LANE, ROW, draw_graph
from pyquant.errors import IoError


def parsed(html: str) -> Element:
    """The document; raises on any error of HTML syntax."""
    found: Element = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(html)
    return found


def one(document: Element, path: str) -> Element:
    """The first element at ``path``."""
    found = document.find(path)
    assert found is not None, path
    return found


def text(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def rows(document: Element, section: str) -> list[list[str]]:
    """The cells of a section's table."""
    found = document.findall(f".//section[@id='{section}']//tr")
    kept = [row for row in found if row.get("class") != "details"]
    return [[text(cell) for cell in row] for row in kept]


def changed(analysis: Analysis, **values: object) -> Analysis:
    """``analysis`` with other values in its first layer."""
    first = dataclasses.replace(analysis.layers[0], **values)  # type: ignore[arg-type]
    return dataclasses.replace(analysis, layers=(first, *analysis.layers[1:]))


def test_the_page_shows_what_the_analysis_says() -> None:
    analysis = analyses.three_layers()

    document = parsed(render_report(analysis, profile=analyses.profile()))

    assert text(one(document, ".//h1")) == "net: quantization report"
    header, *layers = rows(document, "layers")
    shown = [dict(zip(header, layer, strict=True)) for layer in layers]
    assert [layer["Layer"] for layer in shown] == ["stem", "body.2", "body.10"]
    assert [layer["SQNR dB"] for layer in shown] == ["40.0", "35.0", "33.0"]
    assert [layer["Alone dB"] for layer in shown] == ["44.0", "31.5", MISSING]
    assert [layer["Type"] for layer in shown] == ["int8", "int8", "float32"]
    assert [layer["Time µs"] for layer in shown] == ["50.0", "20.0", MISSING]
    targets = rows(document, "targets")[1:]
    assert [target[0] for target in targets] == ["float model", "q/dq graph", "Program"]
    assert targets[2][5:] == ["1.00 MB", "4.00", "1.00", "4.00"]
    assert [step[1] for step in rows(document, "latency")[1:]] == ["input_1", "stem", "body.2"]


def test_the_summary_names_the_worst_layer_first() -> None:
    analysis = analyses.three_layers()

    found = list(findings(analysis))

    assert [finding.layer and finding.layer.name for finding in found[:2]] == ["body.2", "stem"]
    assert "31.5 dB" in found[0].text
    assert any("stays in float32: body.10" in finding.text for finding in found)
    values = {headline.label: headline.value for headline in headlines(analysis)}
    assert values["Size"] == "4.00x smaller"
    assert values["Latency"] == "4.00x faster"
    assert values["Layers in int8"] == "2 of 3"


def test_without_own_contributions_the_largest_drop_is_named() -> None:
    layers = tuple(
        dataclasses.replace(analyses.layer(name, sqnr), own_sqnr=None, inputs=inputs)
        for name, sqnr, inputs in [
            ("a", 50.0, ()),
            ("b", 30.0, ("a",)),
            ("c", 48.0, ("a",)),
            ("d", 29.0, ("b", "c")),
        ]
    )

    found = list(findings(Analysis("net", 1, layers, ())))

    assert [finding.layer and finding.layer.name for finding in found[:3]] == ["b", "c", "d"]
    assert "falls by 20.0 dB to 30.0 dB" in found[0].text
    assert "falls by 1.0 dB" in found[2].text


def test_nothing_is_loaded_from_anywhere() -> None:
    html = render_report(analyses.three_layers(), profile=analyses.profile())

    document = parsed(html)

    for element in document.iter():
        tag = element.tag.rpartition("}")[2]  # of SVG's namespace
        assert tag not in {"link", "img", "iframe", "object", "embed", "base", "image", "use"}
        for name, value in element.attrib.items():
            if name in {"src", "srcset", "action", "data"} or name.endswith("href"):
                assert value.startswith("#"), f"{element.tag} {name}={value}"
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest", html)


def test_every_link_leads_somewhere() -> None:
    document = parsed(render_report(analyses.three_layers(), profile=analyses.profile()))

    names = [element.get("id") for element in document.iter() if element.get("id")]
    assert len(names) == len(set(names))
    for element in document.iter():
        for attribute in ("aria-controls", "aria-labelledby", "for"):
            assert set((element.get(attribute) or "").split()) <= set(names)
        if element.tag == "a":
            assert (element.get("href") or "")[1:] in names


MISSING = "\N{EN DASH}"
HOSTILE = "</script><script>window.hacked=1</script>\"'><img src=x onerror=alert(1)>{{7*7}}&amp;"


def test_names_are_text_wherever_they_appear() -> None:
    analysis = dataclasses.replace(analyses.three_layers(HOSTILE), model=HOSTILE)
    targets = (dataclasses.replace(analysis.targets[0], name=HOSTILE), *analysis.targets[1:])
    analysis = dataclasses.replace(analysis, targets=targets)
    analysis = changed(analysis, operator=HOSTILE, inputs=(HOSTILE,))

    document = parsed(render_report(analysis, profile=analyses.profile(), title=HOSTILE))

    assert len(document.findall(".//script")) == 1
    assert not document.findall(".//img")
    assert text(one(document, ".//title")) == HOSTILE
    assert rows(document, "layers")[1][1:3] == [HOSTILE, HOSTILE]
    assert HOSTILE in one(document, ".//{*}rect[@data-tip]").get("data-tip", "")


def test_a_real_model(digits: Digits, digits_net: Callable[[str], nn.Module]) -> None:
    analysis = analyses.of_model(digits_net("mobilenet_v3"), digits.test_images[:8])

    html = render_report(analysis)

    shown = rows(parsed(html), "layers")[1:]
    assert [row[1] for row in shown] == [layer.name for layer in analysis.layers]
    # As large as a MobileNet with twice as many layers: 2 MB are far away.
    assert len(html) < 10_000 * len(analysis.layers)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_unusual_decibels_are_shown(value: float) -> None:
    analysis = changed(analyses.three_layers(), sqnr=value, own_sqnr=value)

    document = parsed(render_report(analysis))

    assert len(rows(document, "layers")) == 4


@pytest.mark.parametrize(
    "analysis",
    [
        Analysis("empty", 0, (), ()),
        Analysis("one", 1, (analyses.layer("only", math.inf, None),), ()),
        Analysis("float", 1, (analyses.layer("only", math.inf, int8=False),), ()),
        Analysis("no targets", 1, (analyses.layer("only"),), analyses.targets()[:1]),
    ],
    ids=lambda analysis: analysis.model,
)
def test_little_to_show(analysis: Analysis) -> None:
    assert len(rows(parsed(render_report(analysis)), "layers")) == 1 + len(analysis.layers)


def test_a_constant_tensor_has_a_histogram() -> None:
    zero = analyses.statistics(torch.zeros(2, 8), (1.0,), (0.0, 255.0))
    flat = dataclasses.replace(zero, histogram=Histogram(0.0, 0.0, (16,)), representable=(0.0, 0.0))

    for statistics in (zero, flat):
        chart = histogram_chart(statistics)
        assert chart.inside and not chart.outside
        assert chart.low < chart.high
        assert "nan" not in chart.inside


def test_the_histogram_marks_what_the_grid_does_not_reach() -> None:
    statistics = dataclasses.replace(
        analyses.statistics(torch.zeros(1, 1), (0.1,), (-1.0, 1.0)),
        minimum=-2.0,
        maximum=2.0,
        histogram=Histogram(-2.0, 2.0, (1, 5, 5, 1)),
    )

    chart = histogram_chart(statistics)

    assert chart.band == (chart.width / 4, chart.width * 3 / 4)
    assert chart.outside.count("M") == 2 and chart.inside.count("M") == 1
    assert chart.outside.startswith("M0.0") and f"H{chart.width / 4:.1f}" in chart.outside


def test_a_range_that_ends_at_the_largest_value_clips_nothing() -> None:
    # 130 bins do not divide into equal groups, and the values end in the middle of one.
    statistics = dataclasses.replace(
        analyses.statistics(torch.zeros(1, 1), (0.1,), (0.0, 6.0)),
        maximum=6.0,
        histogram=Histogram(0.0, 6.02, (1,) * 130),
    )

    chart = histogram_chart(statistics)

    assert (chart.low, chart.high) == (0.0, 6.0)
    assert chart.inside and not chart.outside


@given(st.floats(-1e9, 1e9), st.floats(0, 1e9))
@settings(max_examples=200, deadline=None)
def test_ticks_are_few_round_and_around_the_values(low: float, extent: float) -> None:
    high = low + extent
    ticks = nice_ticks(low, high)

    assert ticks == sorted(set(ticks))
    assert 2 <= len(ticks) <= 8
    slack = (ticks[1] - ticks[0]) * 1e-6
    assert ticks[0] <= low + slack and high - slack <= ticks[-1]


def chain(edges: list[tuple[int, int]], count: int) -> list[LayerAnalysis]:
    return [
        analyses.layer(str(index), inputs=tuple(str(a) for a, b in edges if b == index))
        for index in range(count)
    ]


def test_edges_that_overlap_have_lanes_of_their_own() -> None:
    edges = [(0, 1), (0, 4), (1, 3), (4, 6), (1, 2)]

    drawing = draw_graph(chain(edges, 7))

    assert drawing.height == 7 * ROW
    assert len(drawing.straight) == 2 and len(drawing.around) == 3
    lanes = {path.split("C")[1].split()[0] for path in drawing.around}
    assert lanes == {f"{drawing.x - LANE:g}", f"{drawing.x - 2 * LANE:g}"}


def test_edges_from_nowhere_are_left_out() -> None:
    drawing = draw_graph([analyses.layer("a", inputs=("gone", "a")), analyses.layer("b")])

    assert drawing.straight == drawing.around == ()


def test_the_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(analyses.three_layers(), file, title="first")
    write_report(analyses.three_layers(), file, title="sécond")

    assert text(one(parsed(file.read_text("utf-8")), ".//h1")) == "sécond"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize("name", ["missing/report.html", ".", "a_file/report.html"])
def test_a_path_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "a_file").touch()

    with pytest.raises(IoError, match=re.escape(str(tmp_path / name))):
        write_report(analyses.three_layers(), tmp_path / name)

    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]
