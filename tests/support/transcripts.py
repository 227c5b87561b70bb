# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the commands of transcripts in this process and gives what they print."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path

import pytest

from mfdtool.cli import run

CAPTURES = Path(__file__).parents[2] / "captures"


def link_captures(directory: Path) -> None:
    """Put the shipped captures into a directory where commands may also write."""
    for capture in CAPTURES.iterdir():
        (directory / capture.name).symlink_to(capture)


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
