# SPDX-License-Identifier: GPL-2.0-or-later
"""Transcripts: commands, and exactly what they print.

A transcript is a text file. Lines that begin with ``#`` before the first command are comments.
A line ``$ mfdtool ...`` is a command; what it prints on standard output and standard error
follows, then ``[exit N]`` unless N is 0. Carriage returns show as ``\\r``. Commands run in a
directory that has the files of captures/; ``$ head -c N FILE > NEW`` makes damaged ones there.

``pytest tests/golden --update-golden`` writes the transcripts anew: review the diff.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.transcripts import link_captures, play

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(
    path: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link_captures(tmp_path)
    monkeypatch.chdir(tmp_path)
    recorded = path.read_text(encoding="utf-8")
    played = play(recorded)
    if request.config.getoption("--update-golden"):
        path.write_text(played, encoding="utf-8")
    else:
        assert played == recorded


def test_there_are_transcripts() -> None:
    assert TRANSCRIPTS
