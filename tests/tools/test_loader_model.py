# SPDX-License-Identifier: GPL-2.0-or-later
"""The diagrams of docs/loader-model.md are those of the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfdtool.loader.moves import RECEIVE_MOVES
from tools import loader_model


def test_document_is_fresh() -> None:
    assert loader_model.loader_model() == loader_model.DOCUMENT.read_text()
    assert loader_model.main(["--check"]) == 0


def test_diagram_has_every_move() -> None:
    lines = list(loader_model.diagram(RECEIVE_MOVES))
    assert lines[:2] == ["```mermaid", "stateDiagram-v2"]
    assert "    reading --> ended: bad packet, end of channel, terminated" in lines
    assert "    locked --> reading: config loaded" in lines


def test_stale_document_is_told_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "loader-model.md"
    copy.write_text("# Before\n<!-- diagram load -->\nold\n<!-- end -->\nafter\n")
    monkeypatch.setattr(loader_model, "DOCUMENT", copy)
    assert loader_model.main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().out
    assert loader_model.main([]) == 0
    assert "starved --> looking: buffer" in copy.read_text()
    assert copy.read_text().startswith("# Before\n<!-- diagram load -->\n```mermaid")
    assert loader_model.main(["--check"]) == 0
