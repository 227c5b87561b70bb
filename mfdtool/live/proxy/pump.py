# SPDX-License-Identifier: GPL-2.0-or-later
"""Moves bytes from one socket to another, and gives them to a recording.

A pump blocks in the socket that it reads, or in the one that it writes: so the reader's pace is
the writer's pace, as without a proxy. What is read is recorded first and forwarded then, so that
a question precedes its answer in the recording.

`CopyingPump` records everything; `HeaderPump` reads and records headers only. Long payload goes
from socket to socket through a pipe (splice(2)), and from there to the file, if it is to be
recorded (tee(2)): it never comes into the process.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from threading import Event, Lock
from typing import TYPE_CHECKING, Final, TypeVar

from mfdtool.live.proxy.chunks import CHUNK
from mfdtool.live.proxy.inspector import Inspector, digest_comment
from mfdtool.live.proxy.tap import PIPE_SIZE, Pipe, Tap
from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.follow import REST, Follower, Part
from mfdtool.wire.constants import QEMU_VM_FILE_MAGIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mfdtool.live.proxy.chunks import Chunk
    from mfdtool.live.proxy.recording import Lane, Recording

WORTH_SPLICING: Final = 1 << 16
"""Bytes of payload from which on it is cheaper not to read them."""
_SCRATCH: Final = 1 << 16
_MAIN_MAGIC: Final = QEMU_VM_FILE_MAGIC.to_bytes(4)

T = TypeVar("T")


class Side(Enum):
    """Which end of a pump went away without saying goodbye."""

    SOURCE = "source"
    SINK = "sink"


class ResetError(Exception):
    """A connection was reset, or broke; ``side`` is where."""

    def __init__(self, side: Side, error: OSError) -> None:
        super().__init__(str(error))
        self.side = side
        self.error = error


class Throttle:
    """Keeps all pumps together at or below a rate."""

    def __init__(self, rate: float) -> None:
        """Set up for ``rate`` bytes per second; 0 for no limit."""
        self._rate = rate
        self._lock = Lock()
        self._free_at = 0.0
        self._released = Event()

    @property
    def chunk(self) -> int:
        """How much to move at once, so that the flow is smooth."""
        return min(CHUNK, max(int(self._rate / 50), 1 << 12)) if self._rate else CHUNK

    def take(self, count: int) -> None:
        """Wait until so many bytes may pass."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / self._rate
            wait = self._free_at - now - count / self._rate
        if wait > 0:
            self._released.wait(wait)

    def release(self) -> None:
        """Have nobody wait any more."""
        self._released.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """What a pump connects.

    Attributes:
        source: where bytes come from.
        sink: where they go.
        lane: where they are recorded.
        recording: whose lane it is.
        throttle: how fast they may go.
    """

    source: socket.socket
    sink: socket.socket
    lane: Lane
    recording: Recording
    throttle: Throttle


class Pump(ABC):
    """One direction of a connection, until its end.

    Attributes:
        moved: bytes forwarded so far.
        follower: what is known of a client's direction; None for a server's.
        inspector: reads the main stream; None on other channels.
    """

    def __init__(self, wiring: Wiring, *, follows: bool) -> None:
        self.moved = 0
        self.follower = Follower() if follows else None
        self.inspector: Inspector | None = None
        self._source = wiring.source
        self._sink = wiring.sink
        self._lane = wiring.lane
        self._recording = wiring.recording
        self._throttle = wiring.throttle
        self._chunk_size = wiring.throttle.chunk
        self._scratch: memoryview | None = None
        self._pipe: Pipe | None = None
        self._splices = follows
        self._expects_payload = False
        self._told = 0
        self._poller = select.poll()
        self._poller.register(self._source, select.POLLIN)

    @property
    def kind(self) -> ChannelKind | None:
        """What the channel carries; None if that is not known."""
        return self.follower.kind if self.follower is not None else None

    def run(self) -> None:
        """Forward until the source says that it is done.

        Raises:
            ResetError: one of the two sockets broke.
        """
        try:
            self._forward()
        finally:
            if self.inspector is not None:
                self.inspector.close()
            if self._pipe is not None:
                self._pipe.close()

    @abstractmethod
    def _forward(self) -> None:
        """Forward until the source says that it is done."""

    # The two ends

    def _read(self, view: memoryview) -> int:
        try:
            return self._source.recv_into(view)
        except OSError as error:
            raise ResetError(Side.SOURCE, error) from error

    def _peek(self, view: memoryview) -> int:
        try:
            return self._source.recv_into(view, len(view), socket.MSG_PEEK)
        except OSError as error:
            raise ResetError(Side.SOURCE, error) from error

    def _send(self, data: memoryview, *, more: bool = False) -> None:
        """Forward bytes; if ``more`` is about to follow, they may share a packet with it."""
        self._throttle.take(len(data))
        try:
            self._sink.sendall(data, socket.MSG_MORE if more else 0)
        except OSError as error:
            raise ResetError(Side.SINK, error) from error
        self.moved += len(data)

    def _fill(self, payload: int) -> int:
        """Move bytes of a payload from the source to the pipe; give how many, 0 at the end.

        Raises:
            _CannotSpliceError: nothing was moved, nor can be.
        """
        count = min(payload, self._chunk_size if self._chunk_size < CHUNK else PIPE_SIZE)
        if self._pipe is None:
            self._pipe = _opened(Pipe)
        try:
            moved = os.splice(self._source.fileno(), self._pipe.begin, count)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS):
                raise _CannotSpliceError from error
            raise ResetError(Side.SOURCE, error) from error
        self._throttle.take(moved)
        return moved

    def _empty(self, count: int, *, more: bool) -> None:
        """Move bytes from the pipe to the sink; ``more`` as for `_send`."""
        assert self._pipe is not None
        flags = os.SPLICE_F_MORE if more else 0
        self.moved += count
        while count:
            try:
                count -= os.splice(self._pipe.end, self._sink.fileno(), count, flags=flags)
            except OSError as error:
                raise ResetError(Side.SINK, error) from error

    def _spare(self) -> memoryview:
        if self._scratch is None:
            self._scratch = memoryview(bytearray(_SCRATCH))
        return self._scratch[: min(_SCRATCH, self._chunk_size)]

    def _guarded(self, work: Callable[..., T], *arguments: object) -> T | None:
        """Do the recorder's work; its mistakes end the recording, not the migration."""
        try:
            return work(*arguments)
        except Exception as error:
            # Whatever went wrong in there, the bytes have to flow.
            self._recording.break_off(error)
            self.follower = None
            return None


class CopyingPump(Pump):
    """Records every byte."""

    def __init__(self, wiring: Wiring, *, follows: bool) -> None:
        super().__init__(wiring, follows=follows)
        self._tap: Tap | None = None

    def _forward(self) -> None:
        try:
            while self._step():
                continue
        finally:
            if self._tap is not None:
                self._tap.close()

    def _step(self) -> bool:
        """Forward the next bytes; False when there are no more."""
        follower = self.follower
        if follower is None or not self._splices or follower.kind is ChannelKind.MAIN:
            return self._copy()
        if not self._looks_ahead(follower):
            return self._copy()
        try:
            return self._splice(self._told + follower.payload)
        except _CannotSpliceError:
            self._splices = False
            return self._copy()

    def _looks_ahead(self, follower: Follower) -> bool:
        """Tell whether long payload comes next, perhaps behind a header that is there already."""
        if not follower.payload and self._expects_payload:
            view = self._spare()[: follower.wanted]
            if self._peek(view) == len(view):
                self._guarded(follower.feed, view)
                self._told = len(view)
        if follower.payload:
            self._expects_payload = follower.payload >= WORTH_SPLICING
        return bool(follower.payload) and self._expects_payload

    def _copy(self) -> bool:
        # No chunk is taken before there is something to read: most channels are silent.
        self._poller.poll()
        chunk = self._guarded(self._recording.take_chunk)
        try:
            view = self._spare() if chunk is None else chunk.view[: self._chunk_size]
            count = self._read(view)
            if count:
                self._guarded(self._record, view[:count], chunk)
                self._send(view[:count])
            return bool(count)
        finally:
            if chunk is not None:
                self._recording.release(chunk)

    def _splice(self, wanted: int) -> bool:
        """Forward bytes and let the file have them, too, without reading them."""
        if not self._recording.can_tap:
            raise _CannotSpliceError
        if self._tap is None:
            self._tap = _opened(Tap)
        moved = self._fill(wanted)
        left = moved
        while left:
            count = self._guarded(self._record_piped, left) or left
            left -= count
            self._empty(count, more=bool(left) or moved < wanted < REST)
        return bool(moved)

    # Recording

    def _record_piped(self, count: int) -> int:
        """Record what is in the pipe; give how much of it is accounted for."""
        assert self._tap is not None
        assert self._pipe is not None
        tapped = self._recording.tap(self._tap, self._pipe, count)
        if tapped is None:
            self._lane.behind(count)
        else:
            count = len(tapped)
            self._lane.tapped(tapped)
        told = min(self._told, count)
        self._told -= told
        if self.follower is not None:
            self.follower.skip(count - told)
        return count

    def _record(self, data: memoryview, chunk: Chunk | None) -> None:
        if chunk is None:
            self._lane.behind(len(data))
        else:
            self._lane.data(data, chunk=chunk)
        if self.follower is None:
            return
        if self.follower.payload < REST:
            told = min(self._told, len(data))
            self._told -= told
            self.follower.follow(data[told:])
        if self.follower.kind is ChannelKind.MAIN:
            if self.inspector is None:
                self.inspector = Inspector()
                data = memoryview(_MAIN_MAGIC + bytes(data)[self._magic_left(data) :])
            self.inspector.feed(data)

    def _magic_left(self, data: memoryview) -> int:
        """Give how many bytes of the magic the first piece of a main stream still has."""
        assert self.follower is not None
        return len(_MAIN_MAGIC) - (self._lane.position - len(data))


class HeaderPump(Pump):
    """Records what a client sends without payload."""

    def __init__(self, wiring: Wiring, *, digest: bool) -> None:
        super().__init__(wiring, follows=True)
        self._digest = digest
        self._splices = not digest
        self._hash = sha256()
        self._hashed = 0

    def _forward(self) -> None:
        while self._step():
            continue
        self._guarded(self._record_rest)

    def _step(self) -> bool:
        """Forward the next bytes; False when there are no more."""
        follower = self.follower
        if self.inspector is not None:
            return self._inspected()
        if follower is None:
            count = self._move(REST)
            if count:
                self._guarded(self._lane.unseen, count)
            return bool(count)
        if follower.payload or self._told:
            count = self._move(self._told + follower.payload)
            self._guarded(self._passed, follower, count)
            return bool(count)
        view = self._spare()[: follower.wanted]
        if self._expects_payload and self._splices and self._peek(view) == len(view):
            # It goes on together with its payload.
            self._told = len(view)
            self._guarded(self._seen, follower, view)
            return True
        count = self._read(view)
        if count:
            self._guarded(self._seen, follower, view[:count])
            self._send(view[:count], more=0 < follower.payload < REST)
        return bool(count)

    def _inspected(self) -> bool:
        assert self.inspector is not None
        view = self._spare()
        count = self._read(view)
        if count:
            self._guarded(self.inspector.feed, view[:count])
            self._send(view[:count])
        return bool(count)

    # Recording

    def _seen(self, follower: Follower, data: memoryview) -> None:
        follower.feed(data)
        if follower.payload:
            self._expects_payload = WORTH_SPLICING <= follower.payload < REST
        self._record_parts()
        if follower.kind is ChannelKind.MAIN:
            self.inspector = Inspector(self._lane, digest=self._digest)
            self.inspector.feed(_MAIN_MAGIC)

    def _passed(self, follower: Follower, count: int) -> None:
        told = min(self._told, count)
        self._told -= told
        if count == told:
            return
        follower.skip(count - told)
        if follower.payload >= REST:
            self._record_rest()
        else:
            self._record_parts()

    def _record_parts(self) -> None:
        if self.follower is not None:
            self._record_each(self.follower.take_parts())

    def _record_rest(self) -> None:
        """Record also what no complete packet has told."""
        if self.follower is not None:
            self._record_each(self.follower.take_parts(all_of_it=True))

    def _record_each(self, parts: Iterable[Part]) -> None:
        for part in parts:
            if part.unseen:
                self._lane.unseen(part.unseen, comments=self._take_digest(part.unseen))
            elif self.kind is not ChannelKind.MAIN:
                # A main stream's first bytes are the inspector's to record.
                self._lane.data(memoryview(part.data))

    def _take_digest(self, length: int) -> tuple[str, ...]:
        """Word the digest of the payload that went by; nothing if that was not all of it."""
        if not self._digest:
            return ()
        digest, hashed = self._hash, self._hashed
        self._hash, self._hashed = sha256(), 0
        return (digest_comment(digest.digest(), length),) if hashed == length else ()

    # Payload

    def _move(self, wanted: int) -> int:
        """Move bytes from socket to socket; give how many, 0 at the end."""
        if self._splices:
            try:
                moved = self._fill(wanted)
            except _CannotSpliceError:
                self._splices = False
            else:
                # The rest of a payload is sure to follow, and can share a packet with this.
                self._empty(moved, more=moved < wanted < REST)
                return moved
        view = self._spare()[:wanted]
        moved = self._read(view)
        if self._digest:
            self._hash.update(view[:moved])
            self._hashed += moved
        if moved:
            self._send(view[:moved])
        return moved


class HiddenPump(Pump):
    """Records what a server sends: on the main channel all, elsewhere only how much it was."""

    def __init__(self, wiring: Wiring, *, client: HeaderPump) -> None:
        super().__init__(wiring, follows=False)
        self._client = client

    def _forward(self) -> None:
        view = self._spare()
        while count := self._read(view):
            self._guarded(self._record, view[:count])
            self._send(view[:count])

    def _record(self, data: memoryview) -> None:
        if self._client.inspector is not None:
            self._lane.data(memoryview(bytes(data)))
        else:
            self._lane.unseen(len(data))


class _CannotSpliceError(Exception):
    """These sockets cannot be spliced, on this kernel, or by a process with so many files."""


def _opened(kind: Callable[[], T]) -> T:
    try:
        return kind()
    except OSError as error:
        raise _CannotSpliceError from error
