"""The example: a small Demucs in int8."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from pyquant.analysis.sqnr import sqnr

EXAMPLE = Path(__file__).parent.parent / "examples" / "demucs_int8.py"
spec = importlib.util.spec_from_file_location("demucs_int8", EXAMPLE)
assert spec is not None and spec.loader is not None
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)


pytestmark = pytest.mark.usefixtures("fresh_dynamo")


@pytest.mark.skipif(not example.is_available(), reason="demucs, julius or einops is missing")
@pytest.mark.parametrize("float_lstm", [False, True])
def test_a_small_demucs_runs_in_int8(float_lstm: bool) -> None:
    model = example.build_model(channels=8, depth=3, resample=False)
    q = example.quantize(model, (example.chords(0.1, seed) for seed in range(4)), float_lstm)

    music = example.chords(0.1, seed=9)
    with torch.no_grad():
        assert sqnr(model(music), q(music)) > 30
    (subgraph,) = q.report().subgraphs
    assert subgraph.state == "int8"
    stayed = {operator.target for operator in subgraph.float_operators}
    dynamic = {operator.target for operator in subgraph.dynamic_operators}
    assert ("aten.lstm.input" in stayed) == float_lstm
    assert ("pyquant.dynamic_recurrent.default" in dynamic) != float_lstm
    assert not [name for name in stayed if any(kind in name for kind in ("conv", "linear", "glu"))]
    share = q.report().int8_share
    assert 0.4 < share < 0.9 if float_lstm else share == 1.0


def test_the_example_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(example, "PACKAGES", ("no_such_package",))
    monkeypatch.setattr("sys.argv", ["demucs_int8.py"])

    with pytest.raises(SystemExit, match="skipped: this needs pip install"):
        example.main()


def test_the_music_is_music() -> None:
    music = example.chords(0.7, seed=1)

    assert music.shape == (1, 2, int(0.7 * example.RATE))
    assert float(music.abs().max()) == pytest.approx(1.0)
    assert not torch.equal(music, example.chords(0.7, seed=2))
