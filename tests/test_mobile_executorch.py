"""The ExecuTorch target: any PT2E graph becomes one XNNPACK delegate with the Program's numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import pyquant
from pyquant.errors import ExportError
from pyquant.mobile.executorch import to_executorch
from pyquant.mobile.runtimes import load_executorch

pytest.importorskip("executorch")


class Net(nn.Module):
    """Strided, depthwise, residual, pooled: what a mobile network is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16))
        self.expand = nn.Sequential(nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32))
        self.depthwise = nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.project = nn.Conv2d(32, 16, 1)
        self.strided = nn.Conv2d(16, 24, 3, 2)
        self.classifier = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu6(self.stem(x))
        y = functional.relu6(self.depthwise(functional.relu6(self.expand(x))))
        x = x + self.project(y)
        x = functional.relu(self.strided(functional.pad(x, (0, 1, 0, 1))))
        x = functional.max_pool2d(x, 3, 2, 1)
        return self.classifier(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def converted(model: nn.Module, x: torch.Tensor) -> torch.fx.GraphModule:
    prepared = pyquant.prepare(model, x)
    pyquant.calibrate(prepared, [x], progress=False)
    return pyquant.convert(prepared)


@pytest.fixture(scope="module")
def sample() -> torch.Tensor:
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def graph(sample: torch.Tensor) -> torch.fx.GraphModule:
    torch.manual_seed(0)
    return converted(Net().eval(), sample)


@pytest.fixture(scope="module")
def exported(graph: torch.fx.GraphModule, sample: torch.Tensor) -> tuple[bytes, dict[str, object]]:
    return to_executorch(graph, (sample,))


def steps_apart(
    graph: torch.fx.GraphModule, content: bytes, x: torch.Tensor, folder: Path
) -> float:
    path = folder / "model.pte"
    path.write_bytes(content)
    model = pyquant.lower(graph)
    program = model.program
    assert program is not None
    source = program.producer(program.outputs[0])
    assert source is not None
    scale = float(program.tensors[source.inputs[0]].scale[0])
    (actual,) = load_executorch(path).run([x])
    expected = model(x)
    assert actual.shape == expected.shape and len(expected.unique()) > 5
    return float((actual - expected).abs().max() / scale)


def test_the_numbers_are_the_programs(
    graph: torch.fx.GraphModule,
    exported: tuple[bytes, dict[str, object]],
    sample: torch.Tensor,
    tmp_path: Path,
) -> None:
    assert steps_apart(graph, exported[0], sample, tmp_path) <= 1.01
    assert steps_apart(graph, exported[0], -0.5 * sample, tmp_path) <= 1.01


def test_everything_is_delegated_to_xnnpack(exported: tuple[bytes, dict[str, object]]) -> None:
    assert exported[1] == {"delegates": 1, "undelegated": {}}
    assert b"XnnpackBackend" in exported[0]


def test_weights_are_int8(exported: tuple[bytes, dict[str, object]]) -> None:
    values = sum(parameter.numel() for parameter in Net().parameters())
    assert len(exported[0]) < values + 35_000 < 2 * values + 35_000


def test_the_graph_is_not_changed(
    graph: torch.fx.GraphModule, exported: tuple[bytes, dict[str, object]]
) -> None:
    names = {str(node.target) for node in graph.graph.nodes}
    assert any("quantize_per_tensor" in name for name in names)
    assert all("executorch" not in name for name in names)


def test_operators_that_xnnpack_lacks_are_reported(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cumsum(self.conv(x), dim=1)

    x = torch.randn(1, 3, 8, 8)
    _, details = to_executorch(converted(Odd().eval(), x), (x,))
    assert details["delegates"] >= 1
    assert any("cumsum" in name for name in details["undelegated"])


def test_graphs_of_executorchs_own_quantizer(sample: torch.Tensor, tmp_path: Path) -> None:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    torch.manual_seed(0)
    model = torch.export.export(Net().eval(), (sample,)).module()
    config = get_symmetric_quantization_config(is_per_channel=True)
    prepared = prepare_pt2e(model, XNNPACKQuantizer().set_global(config))
    prepared(sample)
    graph = convert_pt2e(prepared)
    content, details = to_executorch(graph, (sample,))
    assert details["delegates"] >= 1
    path = tmp_path / "model.pte"
    path.write_bytes(content)
    (actual,) = load_executorch(path).run([sample])
    cosine = functional.cosine_similarity(actual, graph(sample)).item()
    assert cosine > 0.99


def test_export_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    x = torch.randn(1, 3, 8, 8)
    graph = converted(nn.Conv2d(3, 4, 3).eval(), x)
    capfd.readouterr()
    to_executorch(graph, (x,))
    assert capfd.readouterr() == ("", "")


def test_a_failed_export_says_so_and_keeps_what_was_hidden() -> None:
    x = torch.randn(1, 3, 8, 8)
    with pytest.raises(ExportError, match="the executorch export failed"):
        to_executorch(converted(nn.Conv2d(3, 4, 3).eval(), x), (torch.randn(1, 5, 8, 8),))


def test_without_executorch_the_message_says_what_to_install(
    graph: torch.fx.GraphModule, sample: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "executorch"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "executorch", None)
    with pytest.raises(ExportError, match=r"pip install pyquant\[mobile\]"):
        to_executorch(graph, (sample,))


def test_importing_pyquant_mobile_does_not_import_executorch() -> None:
    code = "import sys, pyquant.mobile; sys.exit('executorch' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], check=False, cwd=Path(__file__).parent
        ).returncode
        == 0
    )
