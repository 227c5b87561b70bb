# SPDX-License-Identifier: GPL-2.0-or-later
"""Transcripts: commands, and exactly what they print.

A transcript is a text file. Lines that begin with ``#`` before the first command are comments.
A line ``$ mfdtool ...`` is a command; what it prints on standard output and standard error
follows, then ``[exit N]`` unless N is 0. Carriage returns show as ``\\r``. Commands run in a
directory that has the files of captures/; ``$ head -c N FILE > NEW`` makes damaged ones there.

``pytest tests/golden --update-golden`` writes the transcripts anew: review the diff.
"""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path

import pytest

from mfdtool.cli import run

ROOT = Path(__file__).parents[2]
TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


def play(transcript: str) -> str:
    """Run a transcript's commands in the current directory; give it with what they print."""
    comments, _, _ = transcript.partition("$ ")
    commands = [line[2:] for line in transcript.splitlines() if line.startswith("$ ")]
    return comments + "\n".join(f"$ {command}\n{execute(command)}" for command in commands)


def execute(command: str) -> str:
    """Run one command; give what it prints and its exit status."""
    name, *arguments = shlex.split(command)
    if name == "head":
        option, size, source, redirection, target = arguments
        assert (option, redirection) == ("-c", ">")
        Path(target).write_bytes(Path(source).read_bytes()[: int(size)])
        return ""
    assert name == "mfdtool"
    output = io.BytesIO()
    stream = io.TextIOWrapper(output, encoding="utf-8", newline="", write_through=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        patch.setenv("COLUMNS", "100")
        status = run(arguments)
        stream.flush()
    text = output.getvalue().decode().replace("\r", "\\r")
    if text and not text.endswith("\n"):
        text += "\n"
    return text + (f"[exit {status}]\n" if status else "")


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(
    path: Path,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for capture in (ROOT / "captures").iterdir():
        (tmp_path / capture.name).symlink_to(capture)
    monkeypatch.chdir(tmp_path)
    recorded = path.read_text(encoding="utf-8")
    played = play(recorded)
    if request.config.getoption("--update-golden"):
        path.write_text(played, encoding="utf-8")
    else:
        assert played == recorded


def test_there_are_transcripts() -> None:
    assert TRANSCRIPTS
