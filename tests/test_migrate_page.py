"""The snippets of docs/migrate.md run, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch_ao_nets as nets

PAGE = Path(__file__).resolve().parent.parent / "docs" / "migrate.md"


def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("executorch")
    snippets = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    with nets.engine("x86"), nets.silent():
        exec(compile("\n".join(snippets), str(PAGE), "exec"), {"__name__": "page"})

    assert len(snippets) == 7
    assert (tmp_path / "model.pyq").is_file()
    assert (tmp_path / "bundle" / "manifest.json").is_file()


def test_the_links_of_the_page_lead_somewhere() -> None:
    text = PAGE.read_text()
    headings = {
        line.lstrip("# ").lower().replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }

    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= headings
