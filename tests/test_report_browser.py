"""The report in headless Chromium: what a reader does with it works."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import analyses
import pytest
import torch
from chromium import Browser, Page

from pyquant.analysis.report import write_report

_CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(
    _CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)"
)
NAMES = "[...document.querySelectorAll('tbody.layer:not([hidden]) .open')].map(e => e.textContent)"
HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(str(_CHROMIUM), tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("report") / "report.html"
    write_report(analyses.three_layers(), file, profile=analyses.profile())
    return file


@pytest.fixture
def page(browser: Browser, report: Path) -> Iterator[Page]:
    """The report, whose console must stay empty and which must load nothing but itself."""
    opened = Page(browser, report)
    yield opened
    assert complaints(opened) == []
    requests = opened.messages("Network.requestWillBeSent")
    assert [request["request"]["url"] for request in requests] == [report.as_uri()]


def complaints(page: Page) -> list[dict[str, object]]:
    return page.messages("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")


def header(table: str, label: str) -> str:
    """JavaScript for the button in a column's header."""
    return (
        f"[...document.querySelectorAll('{table} thead button')]"
        f".find(e => e.textContent.startsWith('{label}'))"
    )


@pytest.mark.parametrize(
    ("column", "ascending"),
    [
        ("#", ["stem", "body.2", "body.10"]),
        ("Layer", ["body.2", "body.10", "stem"]),
        ("Operator", ["body.10", "stem", "body.2"]),
        ("SQNR", ["body.10", "body.2", "stem"]),
        ("Alone", ["body.2", "stem", "body.10"]),
        ("Time", ["body.2", "stem", "body.10"]),
    ],
)
def test_layers_are_sorted_by_any_column(page: Page, column: str, ascending: list[str]) -> None:
    button = header("#layer-table", column)
    state = f"{button}.parentNode.ariaSort"

    page.run(f"{button}.click()")
    assert page.run(NAMES) == ascending
    assert page.run(state) == "ascending"

    page.run(f"{button}.click()")
    # What has no number stays last.
    missing = [name for name in ascending if name == "body.10" and column in ("Alone", "Time")]
    present = [name for name in ascending if name not in missing]
    if column != "Operator":  # in which two are equal
        assert page.run(NAMES) == present[::-1] + missing
    assert page.run(state) == "descending"
    assert page.run("document.querySelectorAll('#layer-table [aria-sort]').length") == 1


def test_sorting_keeps_the_details_with_their_layer(page: Page) -> None:
    page.run("document.querySelector('#layer-1 .open').click()")
    page.run(f"{header('#layer-table', 'SQNR')}.click()")

    shown = "document.querySelector('#layer-table tbody:last-child .details')"
    assert page.run(f"{shown}.id") == "details-1"
    assert page.run(f"{shown}.hidden") is False


def test_targets_are_sorted(page: Page) -> None:
    page.run(f"{header('#targets table', 'SQNR')}.click()")

    names = "[...document.querySelectorAll('#targets tbody th')].map(e => e.textContent)"
    assert page.run(names) == ["Program", "q/dq graph", "float model"]


def test_layers_are_searched_by_name_and_operator(page: Page) -> None:
    page.run("document.getElementById('search').focus()")
    page.type("CONV2D bod")
    assert page.run(NAMES) == ["body.2"]
    assert page.run("document.getElementById('shown').textContent") == "1 of 3"

    page.type("nothing")
    assert page.run(NAMES) == []


def test_layers_are_filtered(page: Page) -> None:
    choose = "e => { e.value = '%s'; e.dispatchEvent(new Event('change')) }"

    page.run(f"({choose % 'float32'})(document.getElementById('filter'))")
    assert page.run(NAMES) == ["body.10"]

    page.run(f"({choose % ''})(document.getElementById('filter'))")
    assert len(page.run(NAMES)) == 3


def test_details_open_by_keyboard(page: Page) -> None:
    page.run("document.querySelector('#layer-2 .open').focus()")
    visible = "document.querySelector('#layer-2 .histogram').getBoundingClientRect().height > 50"
    assert page.run(visible) is False

    page.press("Enter", "\r")
    assert page.run(visible) is True
    assert page.run("document.querySelector('#layer-2 .open').ariaExpanded") == "true"

    page.press("Enter", "\r")
    assert page.run(visible) is False


def test_a_chart_leads_to_the_layer_even_if_it_is_filtered_out(page: Page) -> None:
    page.run("document.getElementById('search').focus()")
    page.type("stem")

    page.move_to("#sqnr rect[data-layer='2']")
    assert page.run("document.getElementById('tip').textContent").split("\n") == [
        "2  body.2",
        "conv2d + relu",
        "accumulated  35.0 dB",
        "alone  31.5 dB",
    ]
    page.run(
        "document.querySelector(\"#sqnr rect[data-layer='2']\")"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    page.settle()

    assert page.run("document.getElementById('details-2').hidden") is False
    assert len(page.run(NAMES)) == 3


def test_the_theme_follows_the_system_until_it_is_chosen(browser: Browser, report: Path) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = (Page(browser, report, dark=dark) for dark in (False, True))
    before = [page.run(colour) for page in (light, dark)]
    assert before[0] == "rgb(255, 255, 255)" and before[0] != before[1]

    dark.run("document.getElementById('theme').click()")
    assert dark.run(colour) == before[0]
    assert dark.run("document.getElementById('theme').textContent") == "Theme: light"

    dark.run("document.getElementById('theme').click()")
    assert dark.run(colour) == before[1]
    remembered = Page(browser, report)
    assert remembered.run(colour) == before[1]
    remembered.run("localStorage.clear()")


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, tmp_path: Path, width: int) -> None:
    long = "features." * 20 + "averyveryverylongname" * 5
    analysis = analyses.three_layers(long)
    layers = tuple(
        dataclasses.replace(
            layer,
            operator="conv_transpose2d + batch_norm + hardswish",
            output_shape=(64, 1280, 1024, 1024),
            multiply_adds=123_456_789_012,
            parameter_bytes=123_456_789,
        )
        for layer in analysis.layers
    )
    analysis = dataclasses.replace(analysis, layers=layers, model=long)
    write_report(analysis, tmp_path / "report.html", profile=analyses.profile())
    page = Page(browser, tmp_path / "report.html", width=width)
    page.run("document.querySelectorAll('.open').forEach(e => e.click())")

    assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
    right = "document.querySelector('.panel .tensor').getBoundingClientRect().right"
    assert page.run(f"{right} <= document.documentElement.clientWidth")


def test_everything_is_readable_without_scripts(browser: Browser, report: Path) -> None:
    page = Page(browser, report, scripts=False)

    assert page.run("document.querySelector('.histogram').getBoundingClientRect().height") > 50
    assert page.run("getComputedStyle(document.querySelector('.toolbar')).display") == "none"


def test_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(analyses.three_layers(HOSTILE), file, title=HOSTILE, profile=analyses.profile())
    page = Page(browser, file)
    page.move_to("#sqnr rect[data-layer='1']")

    assert page.run("typeof window.hacked") == "undefined"
    assert HOSTILE in page.run("document.getElementById('tip').textContent")
    assert page.run(NAMES)[0] == HOSTILE
    assert page.run("document.scripts.length") == 1
    assert complaints(page) == []


def test_screen_readers_find_names_and_roles(page: Page) -> None:
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]

    found = {
        (node.get("role", {}).get("value"), node.get("name", {}).get("value")) for node in nodes
    }
    assert ("searchbox", "Search") in found
    assert ("combobox", "Show") in found
    assert ("rowheader", "body.2") in found
    assert ("region", "Layers") in found
    unnamed = {role for role, name in found if not name}
    assert not unnamed & {"button", "link", "searchbox", "combobox", "image", "region"}
