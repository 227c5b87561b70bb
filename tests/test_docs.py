# SPDX-License-Identifier: GPL-2.0-or-later
"""Documents say what is so: generated parts are fresh, and transcripts are what commands print.

A fenced block that begins with ``$ mfdtool`` runs in a directory with the shipped captures.
``pytest tests/test_docs.py --update-golden`` writes their output anew.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from mfdtool.cli import run
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


PACKET_LOST = ["mtty-4ch-clean.pcap.gz", "--fault", "drop:dev=00:05.0,idx=2", "--json"]


@pytest.mark.parametrize(
    "words",
    [
        ["info", "mtty-4ch-clean.pcap.gz", "--json"],
        ["stats", "mtty-4ch-clean.pcap.gz", "--json"],
        ["check", "mtty-4ch-clean.pcap.gz", "--json"],
        ["replay", *PACKET_LOST],
        ["explore", "mtty-4ch-clean.pcap.gz", "--json", "--jobs", "1"],
        ["bisect", *PACKET_LOST],
        ["make", "--json", "-o", "made.pcapng", "--defect", "duplicate-idx:0"],
        ["fields", "--json", "idx"],
        ["explain", "--json", "MFD211"],
        ["extract", "mtty-4ch-clean.pcap.gz", "--config", "00:05.0", "--decode", "--json"],
    ],
    ids=lambda words: words[0],
)
def test_all_members_of_json_are_described(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    link_captures(tmp_path)
    monkeypatch.chdir(tmp_path)
    run(words)
    members = json.loads(capsys.readouterr().out)
    described = set(re.findall(r"[a-z_0-9]+", (DOCS / "json.md").read_text()))
    assert members["format"] == 1
    assert set(members) <= described
    for name in ("devices", "findings", "outcomes", "packets"):
        for each in members.get(name, ()):
            assert set(each) <= described, name


@pytest.mark.parametrize("path", [ROOT / "README.md", *DOCS.rglob("*.md")], ids=str)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert "://" in target or (path.parent / target).exists(), target


def test_make_writes_all_golden_files_anew() -> None:
    recipes = (ROOT / "Makefile").read_text()
    for path in (ROOT / "tests").rglob("test_*.py"):
        if 'getoption("--update-golden")' in path.read_text():
            name = str(path.relative_to(ROOT))
            assert name in recipes or name.startswith("tests/golden/"), name
