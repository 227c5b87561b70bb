# SPDX-License-Identifier: GPL-2.0-or-later
"""The source's connections, on socket pairs: queues, ends, and what comes back."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mfdtool.errors import SinkError
from mfdtool.live.qemu.source import Source, tcp, unix

LARGE = bytes(range(256)) * 8192


class Wire:
    """Gives connections, and keeps their other ends."""

    def __init__(self) -> None:
        self.ends: list[socket.socket] = []

    def dial(self) -> socket.socket:
        """Connect."""
        near, far = socket.socketpair()
        far.settimeout(60)
        self.ends.append(far)
        return near


@pytest.fixture
def wire() -> Iterator[Wire]:
    """Give a wire of which all ends are closed."""
    made = Wire()
    yield made
    for end in made.ends:
        end.close()


def view(*parts: bytes) -> list[memoryview]:
    """Give parts as a schedule does."""
    return [memoryview(part) for part in parts]


def received(end: socket.socket, count: int) -> bytes:
    """Read so many bytes."""
    found = b""
    while len(found) < count:
        found += end.recv(count - len(found))
    return found


def test_bytes_go_out_and_come_back(wire: Wire) -> None:
    with Source(wire.dial) as source:
        source.open("main")
        source.send("main", view(b"QEVM", b"", b"\0\0\0\3"))
        assert received(wire.ends[0], 8) == b"QEVM\0\0\0\3"
        wire.ends[0].sendall(b"back")
        assert source.pump(5)
        assert bytes(source.connections["main"].returned) == b"back"
        assert (source.sent, source.queued) == (8, 0)
        source.end("main", reset=False)
        assert wire.ends[0].recv(1) == b""


def test_full_connection_does_not_keep_others(wire: Wire) -> None:
    with Source(wire.dial) as source:
        source.open("multifd-0")
        source.open("main")
        source.send("multifd-0", view(LARGE))
        waiting = source.queued
        assert 0 < waiting < len(LARGE)
        source.end("multifd-0", reset=False)
        source.send("main", view(b"on"))
        assert received(wire.ends[1], 2) == b"on"
        found = b""
        while part := wire.ends[0].recv(1 << 20):
            found += part
            source.pump(0)
        assert found == LARGE
        assert source.queued == 0


def test_destination_closes(wire: Wire) -> None:
    with Source(wire.dial) as source:
        source.open("multifd-0")
        wire.ends[0].close()
        source.pump(1)
        connection = source.connections["multifd-0"]
        assert connection.closed == "closed by the destination"
        source.send("multifd-0", view(b"lost"))
        source.end("multifd-0", reset=False)
        assert (connection.queue, connection.sent) == (connection.queue.__class__(), 0)
        assert not source.pump(0)


def test_destination_closes_with_bytes_in_the_queue(wire: Wire) -> None:
    with Source(wire.dial) as source:
        source.open("multifd-0")
        source.send("multifd-0", view(LARGE))
        wire.ends[0].close()
        while source.queued:
            source.pump(1)
        assert source.connections["multifd-0"].closed in {"Broken pipe", "Connection reset by peer"}


def test_reset() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        Source(tcp("127.0.0.1", server.getsockname()[1])) as source,
    ):
        source.open("multifd-0")
        far, _ = server.accept()
        with far:
            far.settimeout(60)
            source.end("multifd-0", reset=True)
            with pytest.raises(ConnectionResetError):
                far.recv(1)
            assert not source.pump(0)
        assert source.connections["multifd-0"].closed == "reset"


def test_nobody_listens(tmp_path: Path) -> None:
    with Source(unix(str(tmp_path / "none"))) as source:
        with pytest.raises(SinkError, match="main: cannot connect: No such file") as raised:
            source.open("main")
        assert isinstance(raised.value.__cause__, OSError)
        assert raised.value.__cause__.errno == errno.ENOENT


def test_what_is_no_name_of_a_host() -> None:
    with Source(tcp("a..b", 4444)) as source, pytest.raises(SinkError) as raised:
        source.open("main")
    assert str(raised.value) == "main: cannot connect: no host can have this name"


def test_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "qemu")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        with Source(unix(path)) as source:
            source.open("main")
            far, _ = server.accept()
            with far:
                source.send("main", view(b"hello"))
                assert received(far, 5) == b"hello"
