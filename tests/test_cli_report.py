"""``pyquant report``, on small models."""

from __future__ import annotations

import re
from pathlib import Path

import html5lib
import pytest
import torch
from test_cli import quantize, run
from torch import Tensor, fx, nn
from torch.nn import functional as F

from pyquant.analysis.edges import layer_inputs
from pyquant.capture import capture
from pyquant.quantization.named_layers import find_layers


class TwoPaths(nn.Module):
    """A residual block, and a view between its output and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.body(x))
        result: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return result


def two_paths() -> nn.Module:
    """The command finds it as ``test_cli_report:two_paths``."""
    return TwoPaths()


def test_the_inputs_of_layers_are_layers() -> None:
    graph = capture(TwoPaths().eval(), (torch.zeros(1, 3, 8, 8),))
    assert isinstance(graph, fx.GraphModule)

    found = layer_inputs(find_layers(graph.graph))

    short = {name: {source.split(".")[-1] for source in sources} for name, sources in found.items()}
    assert short["stem"] == set()
    assert short["body"] == {"stem"}
    assert short["add"] == {"stem", "body"}
    assert short["adaptive_avg_pool2d"] == {"add"}
    ((name, *others),) = [sources for layer, sources in found.items() if layer == "head"]
    # A flatten may be a layer of its own; what counts is that the way back is whole.
    assert not others and name in found and found[name]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What the command printed, and the page."""
    folder = tmp_path_factory.mktemp("report")
    made = quantize("test_cli_report:two_paths", folder / "made")
    assert made.exit_code == 0, made.output
    file = folder / "report.html"
    result = run(
        *("report", "test_cli_report:two_paths", folder / "made" / "model.pyq"),
        *("--calib", "random", "--input-shape", "1x3x16x16", "--samples", 8),
        *("--output", file, "--title", "Two paths & more"),
    )
    assert result.exit_code == 0, result.output
    return result.stdout, file


def test_the_page_has_every_section(written: tuple[str, Path]) -> None:
    output, file = written
    document = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(
        file.read_text("utf-8")
    )

    sections = [section.get("id") for section in document.findall(".//main/section")]
    assert sections == ["summary", "targets", "sqnr", "latency", "layers", "graph"]
    assert document.findtext(".//h1") == "Two paths & more"
    names = [button.get("aria-label") for button in document.findall(".//tbody//button")]
    assert {"stem", "body", "head"} <= set(names)
    targets = [row.text for row in document.findall(".//section[@id='targets']/div//tbody//th")]
    assert targets == ["float model", "q/dq graph", "Program", "pyquant (.pyq)"]
    assert re.search(rf"{len(names)} layers, \d\d\.\d dB on 8 samples", " ".join(output.split()))


def test_the_time_of_steps_is_given_to_layers(written: tuple[str, Path]) -> None:
    html = written[1].read_text("utf-8")

    steps = re.findall(r'<th scope="row"><a href="#layer-\d+">([^<]*)</a>', html)
    assert any(step.startswith("stem") for step in steps)
    assert any(step.startswith("head") for step in steps)


@pytest.mark.parametrize(
    ("output", "reason"), [(".", "it is a folder"), ("missing/report.html", "there is no folder")]
)
def test_a_page_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, output: str, reason: str
) -> None:
    result = run(
        *("report", "no.such:model", "--calib", "random", "--output", tmp_path / output),
    )

    assert result.exit_code == 1
    assert reason in result.stderr
