# SPDX-License-Identifier: GPL-2.0-or-later
"""Sends a made migration over real sockets, as its source would.

Items are written one after the other in the migration's order, each to its channel's socket. What
the other end reads first is up to the operating system: writing to one socket before another
does not make anybody *process* them in that order.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from threading import Thread
from typing import TYPE_CHECKING, Self

from mfdtool.errors import SinkError
from mfdtool.fixtures.items import RETURN_PATH

if TYPE_CHECKING:
    from types import TracebackType

    from mfdtool.fixtures.migration import Migration


def send_migration(migration: Migration, sockets: Mapping[str, socket.socket]) -> None:
    """Write every item of the source's to its channel's socket, and end each channel.

    What the return path carries is the destination's to say, so it is not sent.

    Raises:
        SinkError: the other end of a socket was closed.
        KeyError: a channel has no socket.
    """
    channel = ""
    try:
        for item in migration.items:
            if item.channel != RETURN_PATH:
                channel = item.channel
                sockets[channel].sendall(item.build())
        for channel in migration.connections:
            sockets[channel].shutdown(socket.SHUT_WR)
    except OSError as error:
        raise SinkError(f"{channel}: {error.strerror}") from error


class SocketPairs:
    """A migration that arrives on connected sockets; a context manager.

    ::

        with SocketPairs(migration) as pairs:
            start = pairs["main"].recv(8)

    A thread does the sending, as fast as it is read. Leaving the block closes all sockets and
    ends the thread, also if not everything was read.
    """

    def __init__(self, migration: Migration) -> None:
        """Set up; nothing is opened yet."""
        self._migration = migration
        self._ours: dict[str, socket.socket] = {}
        self._theirs: dict[str, socket.socket] = {}
        self._stack = ExitStack()
        self._thread = Thread(target=self._send, name="mfdtool-feed", daemon=True)

    def __enter__(self) -> Self:
        for channel in self._migration.connections:
            ours, theirs = socket.socketpair()
            self._ours[channel] = self._stack.enter_context(ours)
            self._theirs[channel] = self._stack.enter_context(theirs)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A sender that waits for its reader is woken by the end of the connection.
        _shut(self._theirs.values())
        self._thread.join()
        self._stack.close()

    def __getitem__(self, channel: str) -> socket.socket:
        """Give the destination's end of a channel."""
        return self._theirs[channel]

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels that are connected."""
        return tuple(self._theirs)

    def _send(self) -> None:
        try:
            send_migration(self._migration, self._ours)
        except SinkError:
            # The reader has seen enough. What was not sent must not look like an orderly end.
            _shut(self._ours.values())


def _shut(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        try:
            each.shutdown(socket.SHUT_RDWR)
        except OSError:
            # It is not connected any more, which is what was wanted.
            continue
