# SPDX-License-Identifier: GPL-2.0-or-later
"""The source's end of a migration: its connections, and what comes back on the main one.

Every connection has a queue without an end. A thread of the destination that waits for another
channel does not read its own, and must not keep that other one from being sent.
"""

from __future__ import annotations

import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, Self

from mfdtool.errors import SinkError
from mfdtool.live.addresses import why

if TYPE_CHECKING:
    from types import TracebackType

Dial = Callable[[], socket.socket]
"""Makes one connection to the destination."""

CONNECT_SECONDS: Final = 10.0
_LINGER_NONE: Final = struct.pack("ii", 1, 0)
"""close() resets the connection."""
_BLOCK: Final = 1 << 20
_MOST_RETURNED: Final = 1 << 24
"""Bytes of the return path that are kept."""


class Connection:
    """One connection.

    Attributes:
        name: the channel's.
        queue: what is still to be sent.
        sent: bytes that the kernel took.
        returned: bytes that came back.
        closed: how it ended, in words; empty while it is open.
    """

    def __init__(self, name: str, link: socket.socket) -> None:
        """Take over a socket."""
        link.settimeout(0)
        self.name = name
        self.link = link
        self.queue: deque[memoryview] = deque()
        self.sent = 0
        self.returned = bytearray()
        self.closed = ""
        self._is_ending = False
        self._is_read = True

    @property
    def wants(self) -> int:
        """What to poll it for."""
        wants = select.POLLIN if self._is_read else 0
        return wants | (select.POLLOUT if self.queue else 0)

    def end(self, *, reset: bool) -> None:
        """End it behind what is in the queue; a reset does not wait for that."""
        if not reset:
            self._is_ending = True
            self.write()
            return
        self.link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
        self.link.close()
        self._fail("reset")

    def write(self) -> bool:
        """Send what the kernel takes; give whether that was anything."""
        before = self.sent
        try:
            while self.queue:
                count = self.link.send(self.queue[0][:_BLOCK])
                self.sent += count
                rest = self.queue.popleft()[count:]
                if rest:
                    self.queue.appendleft(rest)
            if self._is_ending:
                self._is_ending = False
                self.link.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError as error:
            self._fail(error.strerror or str(error))
        return self.sent > before

    def read(self) -> bool:
        """Take what came back; give whether that was anything."""
        try:
            data = self.link.recv(_BLOCK)
        except BlockingIOError:
            return False
        except OSError as error:
            self._fail(error.strerror or str(error))
            return False
        if not data:
            self._is_read = False
            self.closed = self.closed or "closed by the destination"
        self.returned += data[: _MOST_RETURNED - len(self.returned)]
        return bool(data)

    def _fail(self, reason: str) -> None:
        self.queue.clear()
        self._is_read = self._is_ending = False
        self.closed = reason


class Source:
    """All connections of a migration; a context manager that closes them."""

    def __init__(self, dial: Dial, where: str = "") -> None:
        """Set up; nothing is connected yet. ``where`` says to people what is dialled."""
        self.connections: dict[str, Connection] = {}
        self._dial = dial
        self._where = f" to {where}" if where else ""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def open(self, name: str) -> None:
        """Make a connection.

        Raises:
            SinkError: the destination does not accept it.
        """
        try:
            link = self._dial()
        except (OSError, UnicodeError) as error:
            raise SinkError(f"{name}: cannot connect{self._where}: {why(error)}") from error
        self._stack.callback(link.close)
        self.connections[name] = Connection(name, link)

    def send(self, name: str, parts: Iterable[memoryview]) -> None:
        """Queue bytes, and send what can be sent; those of a closed connection are dropped."""
        connection = self.connections[name]
        if not connection.closed:
            connection.queue.extend(part for part in parts if part)
        self.pump(0)

    def end(self, name: str, *, reset: bool) -> None:
        """End a connection from our side."""
        connection = self.connections[name]
        if not connection.closed:
            connection.end(reset=reset)

    def pump(self, seconds: float) -> bool:
        """Send and receive what can be, waiting at most so long; give whether anything moved."""
        poll = select.poll()
        by_fd = {}
        for each in self.connections.values():
            if wants := each.wants:
                by_fd[each.link.fileno()] = each
                poll.register(each.link, wants)
        moved = False
        for fd, event in poll.poll(seconds * 1000):
            connection = by_fd[fd]
            moved |= connection.read()
            if connection.queue and event & ~select.POLLIN:
                moved |= connection.write()
        return moved

    @property
    def queued(self) -> int:
        """Bytes that no kernel has taken yet."""
        return sum(len(part) for each in self.connections.values() for part in each.queue)

    @property
    def sent(self) -> int:
        """Bytes that were sent on all connections."""
        return sum(each.sent for each in self.connections.values())


def tcp(host: str, port: int) -> Dial:
    """Connect by TCP."""

    def dial() -> socket.socket:
        link = socket.create_connection((host, port), CONNECT_SECONDS)
        with suppress(OSError):
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link

    return dial


def unix(path: str) -> Dial:
    """Connect to a UNIX socket."""

    def dial() -> socket.socket:
        link = socket.socket(socket.AF_UNIX)
        try:
            link.settimeout(CONNECT_SECONDS)
            link.connect(path)
        except OSError:
            link.close()
            raise
        return link

    return dial
