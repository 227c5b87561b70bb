# SPDX-License-Identifier: GPL-2.0-or-later
"""Accepts a migration's connections and forwards each to the destination.

A connection on which nothing has come is not forwarded at once: a port scan or a health check that
connects and leaves must not reach a destination, which would take it for a channel and give up
(channel.c:migration_channel_read_peek).
"""

from __future__ import annotations

import resource
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import TYPE_CHECKING, Final

from mfdtool.errors import SinkError
from mfdtool.live.addresses import Address, bound_address, connect, listen, remove_socket
from mfdtool.live.proxy.priority import PUMPS, favour
from mfdtool.live.proxy.pump import (
    CopyingPump,
    HeaderPump,
    HiddenPump,
    Pump,
    ResetError,
    Side,
    Throttle,
    Wiring,
)
from mfdtool.live.proxy.segments import (
    SocketName,
    client_endpoint,
    flow_between,
    server_endpoint,
)
from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.phases import Phase
from mfdtool.stream.ram import is_plausible_word
from mfdtool.wire.constants import MULTIFD_MAGIC, QEMU_VM_FILE_MAGIC

if TYPE_CHECKING:
    from mfdtool.live.proxy.recording import Lane, Recording

FIRST_BYTES: Final = 1.0
"""Seconds that a silent connection waits before it is forwarded all the same."""
CONNECT_TIMEOUT: Final = 30.0
QUIET: Final = 0.5
"""Seconds without a connection after which a migration is over."""

_TICK: Final = 0.1
_WORD: Final = 8
_LINGER_NOT: Final = struct.pack("ii", 1, 0)
_MIGRATION_KINDS: Final = frozenset({ChannelKind.MAIN, ChannelKind.TLS})


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyOptions:
    """What a proxy does.

    Attributes:
        listen: where the source connects to.
        to: where the destination listens.
        stays: whether it goes on after the first migration.
        redact: whether payload is left out of the recording.
        digest: whether the recording has digests of that payload.
        limit_rate: most bytes per second; 0 for no limit.
        only_qemu: whether connections that no QEMU would make are refused.
    """

    listen: Address
    to: Address
    stays: bool = False
    redact: bool = False
    digest: bool = False
    limit_rate: float = 0
    only_qemu: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a proxy is.

    Attributes:
        open: connections that are forwarded now.
        connections: those that ever were.
        channels: kinds of the open ones, and how many there are of each.
        moved: bytes forwarded, both directions.
        device_packets: device state packets that passed.
        phase: that of the latest migration; None if it is not known.
    """

    open: int
    connections: int
    channels: dict[ChannelKind, int]
    moved: int
    device_packets: int
    phase: Phase | None


@dataclass(slots=True)
class _Totals:
    """What connections that are over have moved."""

    moved: int = 0
    device_packets: int = 0
    connections: int = 0
    strays: int = 0
    refused: int = 0
    unreachable: int = 0
    migrations: int = 0
    phase: Phase | None = None
    said: set[str] = field(default_factory=set)


class Proxy:
    """A proxy; a context manager that listens while it is entered.

    Attributes:
        address: where it listens, with the port that the system chose.
        totals: what happened so far.
    """

    def __init__(
        self,
        options: ProxyOptions,
        recording: Recording,
        report: Callable[[str], None] = lambda text: None,
        *,
        listener: socket.socket | None = None,
    ) -> None:
        """Begin to accept; ``report`` is told what a user should know, from any thread.

        ``listener`` listens already, where the options say; without one it is opened.

        Raises:
            SinkError: the address cannot be listened on.
        """
        self.options = options
        self.recording = recording
        self.throttle = Throttle(options.limit_rate)
        self.report = report
        self.totals = _Totals()
        self._listener = listener or listen(options.listen)
        self.address = bound_address(self._listener)
        self._changed = Condition()
        self._open: dict[int, _Connection] = {}
        self._number = 0
        self._quiet_since = time.monotonic()
        self._stopping = False
        self._aborted = False
        _allow_many_files()
        self._acceptor = Thread(target=self._accept, name="mfdtool-accept", daemon=True)
        self._acceptor.start()

    def wait(self, timeout: float) -> bool:
        """Wait until there is nothing left to do, or so many seconds; tell whether it is done."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while not self._is_done():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, _TICK))
        return True

    def stop(self) -> None:
        """Accept no more connections; those that there are go on."""
        self._stopping = True

    def abort(self) -> None:
        """End all connections."""
        self._stopping = self._aborted = True
        self.throttle.release()
        self.recording.give_up()
        for connection in self._connections():
            connection.shut()

    def close(self) -> None:
        """Stop listening; wait for the connections to end."""
        self.stop()
        self._acceptor.join()
        while not self.wait(_TICK):
            continue

    def progress(self) -> Progress:
        """Tell how far everything is."""
        totals = self.totals
        channels: dict[ChannelKind, int] = {}
        with self._changed:
            # At one moment: a connection that ends is counted in one of them.
            moved, packets, phase = totals.moved, totals.device_packets, totals.phase
            connections = self._connections()
        for connection in connections:
            moved += connection.moved
            packets += connection.device_packets
            phase = connection.phase or phase
            if (kind := connection.kind) is not None:
                channels[kind] = channels.get(kind, 0) + 1
        return Progress(len(connections), totals.connections, channels, moved, packets, phase)

    def _is_done(self) -> bool:
        if self._open:
            return False
        if self._stopping:
            return True
        quiet = time.monotonic() - self._quiet_since
        return not self.options.stays and bool(self.totals.migrations) and quiet >= QUIET

    def _connections(self) -> list[_Connection]:
        with self._changed:
            return list(self._open.values())

    def _accept(self) -> None:
        """Accept connections as long as any are wanted; whoever comes then is refused."""
        try:
            self._accept_all()
        finally:
            self._listener.close()
            remove_socket(self.options.listen)

    def _accept_all(self) -> None:
        favour(PUMPS)
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        while not self._stopping:
            if not poller.poll(_TICK * 1000):
                continue
            try:
                client, name = self._listener.accept()
            except OSError as error:
                self._say_once(f"cannot accept a connection: {error.strerror}")
                time.sleep(_TICK)
                continue
            connection = _Connection(self, client, name, self._number)
            with self._changed:
                self._open[self._number] = connection
            if self._aborted:
                connection.shut()
            self._number += 1
            thread = Thread(target=self._serve, args=(connection,), daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self._say_once(f"cannot serve a connection: {error}")
                connection.refuse()
                self._forget(connection)

    def _serve(self, connection: _Connection) -> None:
        try:
            connection.run()
        except SinkError as error:
            self.totals.unreachable += 1
            self._say_once(str(error))
        finally:
            self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        with self._changed:
            del self._open[connection.number]
            self.totals.moved += connection.moved
            self.totals.device_packets += connection.device_packets
            self.totals.migrations += connection.kind in _MIGRATION_KINDS
            self.totals.phase = connection.phase or self.totals.phase
            self._quiet_since = time.monotonic()
            self._changed.notify_all()

    def _say_once(self, text: str) -> None:
        if text not in self.totals.said:
            self.totals.said.add(text)
            self.report(text)


class _Connection:
    """One connection of a client, and the one to the destination that belongs to it."""

    def __init__(self, proxy: Proxy, client: socket.socket, name: SocketName, number: int) -> None:
        self.number = number
        self._proxy = proxy
        self._client = client
        # Asked for later, names may be gone with a connection that was reset.
        self._name = name
        self._server: socket.socket | None = None
        self._server_name: SocketName = ""
        self._forth: Pump | None = None
        self._back: Pump | None = None
        self._is_broken = False

    @property
    def moved(self) -> int:
        """Bytes forwarded in both directions."""
        return sum(pump.moved for pump in (self._forth, self._back) if pump is not None)

    @property
    def kind(self) -> ChannelKind | None:
        """What the connection carries; None if that is not known."""
        return self._forth.kind if self._forth is not None else None

    @property
    def device_packets(self) -> int:
        """Device state packets that passed."""
        follower = self._forth.follower if self._forth is not None else None
        return follower.device_packets if follower is not None else 0

    @property
    def phase(self) -> Phase | None:
        """Phase of the migration, if this is its main channel."""
        inspector = self._forth.inspector if self._forth is not None else None
        return inspector.phase if inspector is not None else None

    def run(self) -> None:
        """Forward until both directions have ended.

        Raises:
            SinkError: the destination cannot be reached; the client was turned away.
        """
        try:
            if self._is_welcome():
                self._connect()
            if self._server is not None and not self._is_broken:
                self._forward()
        except SinkError:
            self._is_broken = True
            raise
        finally:
            for end in (self._client, self._server):
                if end is not None:
                    _close(end, reset=self._is_broken)

    def refuse(self) -> None:
        """Reset it; nobody serves it."""
        _close(self._client, reset=True)

    def shut(self) -> None:
        """End both connections, whoever uses them."""
        self._is_broken = True
        for end in (self._client, self._server):
            if end is not None:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _is_welcome(self) -> bool:
        """Wait for the first bytes; tell whether to forward the connection."""
        totals = self._proxy.totals
        wanted = _WORD if self._proxy.options.only_qemu else 1
        start = _peek(self._client, wanted)
        if start is None:
            totals.strays += 1
            return False
        if self._proxy.options.only_qemu and not _is_qemu(start):
            totals.refused += 1
            self._is_broken = True
            return False
        return True

    def _connect(self) -> None:
        to = self._proxy.options.to
        server = connect(to, timeout=CONNECT_TIMEOUT)
        self._server = server
        try:
            self._server_name = server.getpeername()
        except OSError as error:
            raise SinkError(f"{to}: the destination hung up at once: {error.strerror}") from error
        for end in (self._client, server):
            if end.family != socket.AF_UNIX:
                # One that was reset meanwhile cannot be set up any more, and tells that itself.
                with suppress(OSError):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _forward(self) -> None:
        assert self._server is not None
        proxy = self._proxy
        recording, options = proxy.recording, proxy.options
        forth_lane, back_lane = recording.lanes(
            flow_between(
                client_endpoint(self._name, self.number), server_endpoint(self._server_name)
            ),
            comments=(self._description(),),
        )
        forth = Wiring(
            source=self._client,
            sink=self._server,
            lane=forth_lane,
            recording=recording,
            throttle=proxy.throttle,
        )
        back = Wiring(
            source=self._server,
            sink=self._client,
            lane=back_lane,
            recording=recording,
            throttle=proxy.throttle,
        )
        if options.redact:
            headers = HeaderPump(forth, digest=options.digest)
            self._forth, self._back = headers, HiddenPump(back, client=headers)
        else:
            self._forth = CopyingPump(forth, follows=True)
            self._back = CopyingPump(back, follows=False)
        proxy.totals.connections += 1
        other = Thread(target=self._pump, args=(self._back, back), daemon=True)
        try:
            other.start()
        except RuntimeError as error:
            raise SinkError(f"cannot serve a connection: {error}") from error
        self._pump(self._forth, forth)
        other.join()
        if (inspector := self._forth.inspector) is not None and inspector.machine:
            recording.note(f"connection {self.number}: machine type {inspector.machine}")

    def _pump(self, pump: Pump, wiring: Wiring) -> None:
        """Run one direction, and record and pass on how it ended."""
        try:
            pump.run()
        except ResetError as error:
            self._break(wiring.lane if error.side is Side.SOURCE else wiring.lane.peer)
        else:
            wiring.lane.finish(reset=self._is_broken)
            if not self._is_broken:
                with suppress(OSError):
                    wiring.sink.shutdown(socket.SHUT_WR)

    def _break(self, lane: Lane) -> None:
        """Record a reset, and have the other direction end with one, too."""
        if not self._is_broken:
            lane.finish(reset=True)
        self._is_broken = True
        for end in (self._client, self._server):
            if end is not None:
                # Wakes who reads it, and says nothing to the other end yet: the reset will.
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RD)

    def _description(self) -> str:
        options = self._proxy.options
        return (
            f"connection {self.number}: {_words(self._name)} to {self._proxy.address},"
            f" forwarded to {options.to} ({_words(self._server_name)})"
        )


def _peek(connection: socket.socket, wanted: int) -> bytes | None:
    """Wait for a connection's first bytes, not for ever; None if it ends without any."""
    deadline = time.monotonic() + FIRST_BYTES
    poller = select.poll()
    poller.register(connection, select.POLLIN)
    start = b""
    while (left := deadline - time.monotonic()) > 0:
        if not poller.poll(left * 1000):
            break
        try:
            start = connection.recv(wanted, socket.MSG_PEEK)
        except OSError:
            return None
        if not start:
            return None
        if len(start) >= wanted:
            break
        # Something is there already, so polling does not wait for more.
        time.sleep(_TICK / 10)
    return start


def _is_qemu(start: bytes) -> bool:
    """Tell whether a connection begins as one of a QEMU source's does."""
    if int.from_bytes(start[:4]) in (QEMU_VM_FILE_MAGIC, MULTIFD_MAGIC):
        return True
    if start[:2] == b"\x16\x03":
        return True
    return len(start) == _WORD and is_plausible_word(int.from_bytes(start))


def _close(connection: socket.socket, *, reset: bool) -> None:
    with suppress(OSError):
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
    connection.close()


def _words(name: SocketName) -> str:
    if not isinstance(name, tuple):
        return "a unix socket"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def _allow_many_files() -> None:
    """Have as many open files as the system lets this process have: four for a connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
