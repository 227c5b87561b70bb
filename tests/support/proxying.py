# SPDX-License-Identifier: GPL-2.0-or-later
"""Both ends of a proxy: a destination that keeps what it gets, and clients."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier, Event, Thread, current_thread
from unittest.mock import patch

from mfdtool.live.addresses import Address, TcpAddress, bound_address, connect, listen
from mfdtool.live.proxy import chunks, writer
from mfdtool.live.proxy.recording import Recording, RecordingOptions
from mfdtool.live.proxy.server import Proxy, ProxyOptions

LOCAL = TcpAddress("127.0.0.1", 0)
LONG = 60.0
"""Seconds that anything may take, on the busiest machine."""


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something is so; fail if it does not become so."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


class Destination:
    """A listening socket; what its connections bring is kept, in the order of their ends.

    Attributes:
        received: what each connection brought.
        arrived: bytes that all of them brought so far.
        failures: error numbers of connections that ended with one.
        stalls: a stream that begins so is not read on before ``stall`` is set.
    """

    def __init__(
        self,
        address: Address = LOCAL,
        *,
        answer: bytes = b"",
        limit: int = 0,
        stall: Event | None = None,
    ) -> None:
        """Listen; with ``limit`` a connection is given up after so many bytes."""
        self.socket = listen(address)
        self.address = bound_address(self.socket)
        self.received: list[bytes] = []
        self._arrived = Counter[Thread]()
        self.failures: list[int | None] = []
        self.stalls = b""
        self._stall = stall
        self._answer = answer
        self._limit = limit
        self._threads: list[Thread] = []
        self._acceptor = Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def arrived(self) -> int:
        return self._arrived.total()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                thread = Thread(target=self._serve, args=(connection,), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        data = bytearray()
        with connection:
            try:
                while part := connection.recv(self._limit or 1 << 16):
                    data += part
                    self._arrived[current_thread()] = len(data)
                    if self._limit:
                        break
                    if self._stall is not None and self.stalls and data.startswith(self.stalls):
                        self._stall.wait(LONG)
                # Half-closed: the answer comes after the question's end.
                connection.sendall(self._answer)
            except OSError as error:
                self.failures.append(error.errno)
        self.received.append(bytes(data))

    def close(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self._acceptor.join()
        for thread in self._threads:
            thread.join()


@dataclass(frozen=True)
class Setup:
    """A running proxy and what it forwards to."""

    proxy: Proxy
    recording: Recording
    destination: Destination
    path: Path

    def connect(self) -> socket.socket:
        """Connect to the proxy."""
        return connect(self.proxy.address)

    def finish(self) -> None:
        """Let the proxy end, and the recording."""
        self.proxy.close()
        self.recording.close()


@contextmanager
def patient() -> Iterator[None]:
    """Let recorders wait for a disk that hangs because others use it, instead of recording less."""
    with patch.object(chunks, "PATIENCE", LONG), patch.object(writer, "SLOW", 0):
        yield


@contextmanager
def running(
    path: Path,
    options: ProxyOptions | None = None,
    recording: RecordingOptions | None = None,
    *,
    destination: Destination | None = None,
    is_patient: bool = True,
) -> Iterator[Setup]:
    """Run a proxy and a destination; both are closed at the end.

    ``is_patient`` is for all that is not about losses: see `patient`.
    """
    destination = destination or Destination()
    options = options or ProxyOptions(listen=LOCAL, to=destination.address)
    with patient() if is_patient else nullcontext(), ExitStack() as stack:
        stack.callback(destination.close)
        kept = Recording(path, recording or RecordingOptions())
        stack.callback(kept.close)
        proxy = Proxy(replace(options, to=destination.address), kept)
        stack.callback(proxy.close)
        stack.callback(proxy.abort)
        setup = Setup(proxy, kept, destination, path)
        yield setup
        stack.pop_all()
        setup.finish()
        destination.close()


def send_all(setup: Setup, streams: Mapping[str, bytes], *, piece: int = 1 << 16) -> list[bytes]:
    """Send streams at the same time, one connection each; give what came back."""
    answers: dict[str, bytes] = {}
    target = setup.proxy.progress().moved + sum(map(len, streams.values()))

    def wait_until_forwarded() -> None:
        wait_for(lambda: setup.proxy.progress().moved >= target)

    # As with a source, the channels of a migration end together.
    sent = Barrier(len(streams), wait_until_forwarded, timeout=2 * LONG)

    def send(name: str, data: bytes) -> None:
        with setup.connect() as connection:
            for at in range(0, len(data), piece):
                connection.sendall(data[at : at + piece])
            sent.wait()
            connection.shutdown(socket.SHUT_WR)
            parts = []
            while part := connection.recv(1 << 16):
                parts.append(part)
            answers[name] = b"".join(parts)

    threads = [Thread(target=send, args=item) for item in streams.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
        assert not thread.is_alive()
    return [answers[name] for name in streams]
