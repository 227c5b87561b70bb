# SPDX-License-Identifier: GPL-2.0-or-later
"""A QEMU's monitor that answers, and one that does not any more."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from mfdtool.errors import SinkError
from mfdtool.live.qemu.monitor import Monitor

LONG = 60.0
GREETING = {"QMP": {"version": {"qemu": {"major": 10, "minor": 0, "micro": 2}}, "capabilities": []}}


@contextmanager
def pretended(folder: Path, *, leaves: Event) -> Iterator[Path]:
    """Pretend a monitor that answers its first two commands, and goes when it is told to."""
    path = folder / "monitor"

    def serve(server: socket.socket) -> None:
        link, _ = server.accept()
        with link:
            link.sendall(json.dumps(GREETING).encode() + b"\n")
            for _ in range(2):
                # The client ends no line, and waits for an answer. Connecting has no id.
                asked = json.loads(link.recv(1 << 16))
                answer: dict[str, object] = {"return": {"status": "none"}}
                if "id" in asked:
                    answer["id"] = asked["id"]
                link.sendall(json.dumps(answer).encode() + b"\n")
            leaves.wait(LONG)

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        thread = Thread(target=serve, args=(server,))
        thread.start()
        yield path
        leaves.set()
        thread.join(LONG)


@pytest.mark.parametrize(
    ("goes_first", "is_asked_again"), [(False, False), (True, False), (True, True)]
)
def test_question_without_an_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, goes_first: bool, is_asked_again: bool
) -> None:
    """Nobody hears of it but by the time-out: what asyncio logs goes to standard error."""
    leaves = Event()
    with pretended(tmp_path, leaves=leaves) as path:
        monitor = Monitor(str(path), seconds=LONG)
        assert monitor.do("query-migrate", seconds=LONG) == {"status": "none"}
        with pytest.raises(TimeoutError):
            monitor.do("query-migrate", seconds=0.01)
        if goes_first:
            leaves.set()
        if is_asked_again:
            with pytest.raises(SinkError, match="query-migrate"):
                monitor.do("query-migrate", seconds=LONG)
        monitor.close()
        del monitor
        gc.collect()
    assert not caplog.records


def test_interrupt_while_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half an event loop could not be closed, which asyncio tells as a traceback."""

    class Interrupted(asyncio.SelectorEventLoop):
        def __init__(self) -> None:
            signal.raise_signal(signal.SIGINT)
            super().__init__()

    monkeypatch.setattr(asyncio, "new_event_loop", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        Monitor(str(tmp_path / "none"), seconds=LONG)
    gc.collect()


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(SinkError, match=r"QEMU's monitor: .+"):
        Monitor(str(tmp_path / "none"), seconds=LONG)


def test_somebody_who_says_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "monitor")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)
        with pytest.raises(SinkError, match=r"^QEMU's monitor: no answer$"):
            Monitor(path, seconds=0.05)
