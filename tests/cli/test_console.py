# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress, colour, and writing in blocks."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from mfdtool.cli import console, run
from mfdtool.cli.console import Progress, reading_of, uses_colour, write_all
from mfdtool.workflows.reading import Input, Reading
from tests.support.captures import CAPTURES

CLEAN = str(CAPTURES / "mtty-4ch-clean.pcap.gz")


class Terminal(io.StringIO):
    """Text output that says it is a terminal, and keeps how it was written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes.append(text)
        return super().write(text)


class Clock:
    """A clock that tells what it is set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


def test_progress_is_patient(clock: Clock) -> None:
    terminal = Terminal()
    with Reading(Input(capture=CLEAN)) as reading:
        list(reading.frames())
        progress = Progress(terminal, enabled=True)
        progress.tick(reading)
        clock.now += 0.9
        progress.tick(reading)
        progress.clear()
        assert terminal.writes == []
        clock.now += 0.2
        progress.tick(reading)
        clock.now += 0.1
        progress.tick(reading)
        assert terminal.writes == ["\rmfdtool: 231 records, 1 s\x1b[K"]
        progress.clear()
        progress.clear()
    assert terminal.writes[1:] == ["\r\x1b[K"]


def test_progress_of_raw_streams(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "main"
    path.write_bytes(b"QEVM\0\0\0\3")
    terminal = Terminal()
    progress = Progress(terminal, enabled=True)
    clock.now += 5
    with Reading(Input(main=path)) as reading:
        progress.tick(reading)
    assert terminal.writes == ["\rmfdtool: 0 records, 5 s\x1b[K"]


@pytest.mark.parametrize(("to_terminal", "shown"), [(False, True), (True, False)])
def test_progress_stays_out_of_data(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, *, to_terminal: bool, shown: bool
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(sys, "stdout", Terminal() if to_terminal else io.StringIO())
    with reading_of(Input(capture=CLEAN)) as reading:
        clock.now += 2
        assert len(list(reading.frames())) == 238
    assert bool(terminal.writes) is shown


@pytest.mark.parametrize(
    ("terminal", "environment", "expected"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {}, False),
        (False, {"TERM": "xterm"}, False),
    ],
)
def test_colour(
    monkeypatch: pytest.MonkeyPatch,
    *,
    terminal: bool,
    environment: dict[str, str],
    expected: bool,
) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal() if terminal else io.StringIO())
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert uses_colour() is expected


def test_colour_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["decode", CLEAN, "-Y", "idx == 2"]
    assert run(arguments) == 0
    plain = capsys.readouterr().out
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "")
    assert run(arguments) == 0
    assert terminal.getvalue() == f"\x1b[36m{plain[:-1]}\x1b[0m\n"
    monkeypatch.setenv("NO_COLOR", "1")
    assert run(arguments) == 0
    assert terminal.getvalue().endswith(plain)


def test_a_terminal_gets_each_piece_at_once() -> None:
    terminal = Terminal()
    write_all(["a\n", "b\n"], terminal)
    assert [text for text in terminal.writes if text] == ["a\n", "b\n"]


def test_errors_name_standard_output() -> None:
    class Full(Terminal):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as caught:
        write_all(["a\n"], Full())
    assert caught.value.filename == "standard output"


def test_a_file_gets_large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    class File(Terminal):
        def isatty(self) -> bool:
            return False

    monkeypatch.setattr(console, "_BLOCK", 10)
    out = File()
    write_all(["123456\n"] * 4, out)
    assert out.writes == ["123456\n123456\n", "123456\n123456\n", ""]
