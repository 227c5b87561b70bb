# SPDX-License-Identifier: GPL-2.0-or-later
"""Documents say what is so: generated parts are fresh, and transcripts are what commands print.

A fenced block that begins with ``$ mfdtool`` runs in a directory with the shipped captures.
``pytest tests/test_docs.py --update-golden`` writes their output anew.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.transcripts import link_captures, play
from tools.docs import DOCS, GENERATED

ROOT = DOCS.parent
BLOCK = re.compile(r"^```\n(\$ mfdtool .*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTS = [
    path
    for path in [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
    if BLOCK.search(path.read_text())
]


@pytest.mark.parametrize("name", GENERATED)
def test_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text() == GENERATED[name]()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_transcripts(
    path: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link_captures(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = path.read_text()
    played = BLOCK.sub(lambda block: f"```\n{play(block[1])}```", text)
    if request.config.getoption("--update-golden"):
        path.write_text(played)
    else:
        assert played == text


def test_readme_has_transcripts() -> None:
    assert ROOT / "README.md" in DOCUMENTS
