# SPDX-License-Identifier: GPL-2.0-or-later
"""What pumps give to be recorded, and how it gets to the file.

The migration comes first. A file may make its writer wait for a disk, so a thread of its own
writes it, and pumps wait for a free chunk only: a little, or as long as it takes (`OnFull`). What
is not recorded is said in the file: by frames that are cut, by drop counts, and by a comment at
the end.

Whatever goes wrong in here ends the recording, never the forwarding.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Final

from mfdtool.live.proxy.chunks import Chunk, Store
from mfdtool.live.proxy.file import STEP, CaptureFile
from mfdtool.live.proxy.priority import WRITER, favour
from mfdtool.live.proxy.segments import Builder, Payload, Segment
from mfdtool.live.proxy.tap import Pipe, Tap, Tapped
from mfdtool.live.proxy.writer import Entry, Losses, Writer
from mfdtool.packets.values import TCP_FIN, TCP_RST, TCP_SYN
from mfdtool.wire.quick import quick_constructor

if TYPE_CHECKING:
    from mfdtool.packets.values import FlowKey

DEFAULT_BUFFER: Final = 32 << 20

_TOO_SLOW: Final = "the file is slower than the migration"

_ENTRIES: Final = 1 << 16
"""Segments that may wait to be written."""
_BATCH: Final = 128
_BATCH_SIZE: Final = 4 << 20
"""Entries, or bytes of payload, after which a batch is written: short, so that pumps that wait see
that the writer gets on."""
_PAUSE: Final = 0.002

_new_segment: Final = quick_constructor(Segment)
_new_entry: Final = quick_constructor(Entry)


class OnFull(StrEnum):
    """What happens when the file takes no more."""

    DROP = "drop"
    """The migration goes on; what could not be recorded is counted."""
    BLOCK = "block"
    """The migration waits until the file can be written again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingOptions:
    """How to record.

    Attributes:
        on_full: what happens when the file is full or too slow.
        max_size: bytes after which another file is begun; 0 for never.
        max_files: how many files are kept; 0 for all.
        preallocate: bytes of disk space to reserve before the migration begins.
        buffer: bytes that may wait to be written.
        comments: about the whole recording.
    """

    on_full: OnFull = OnFull.DROP
    max_size: int = 0
    max_files: int = 0
    preallocate: int = STEP
    buffer: int = DEFAULT_BUFFER
    comments: tuple[str, ...] = ()


class Lane:
    """One direction of a connection, as the file has it; one thread gives what it carries.

    Attributes:
        position: how many bytes were given so far.
        builder: builds its segments.
        peer: the other direction.
    """

    def __init__(self, recording: Recording, flow: FlowKey) -> None:
        self.position = 0
        self.builder = Builder(flow)
        self.peer = self
        self._ended = 0
        self._recording = recording

    def data(
        self, data: memoryview, *, chunk: Chunk | None = None, time_ns: int | None = None
    ) -> None:
        """Record bytes; those of a chunk stay there until they are written."""
        self._recording.put(self, data=data, length=len(data), chunk=chunk, time_ns=time_ns)

    def tapped(self, data: Tapped) -> None:
        """Record bytes that are in a pipe."""
        self._recording.put(self, data=data, length=len(data))

    def unseen(
        self, length: int, *, comments: tuple[str, ...] = (), time_ns: int | None = None
    ) -> None:
        """Record that so many bytes passed."""
        self._recording.put(self, length=length, comments=comments, time_ns=time_ns)

    def behind(self, length: int) -> None:
        """Record that so many bytes passed, which should have been recorded."""
        self._recording.count_cut(length)
        self.unseen(length)

    def finish(self, *, reset: bool = False) -> None:
        """Record the end of the direction: once, but a reset also behind an orderly end."""
        flag = TCP_RST if reset else TCP_FIN
        if flag > self._ended:
            self._ended = flag
            self._recording.put(self, flags=flag)


class Recording:
    """A recording in progress."""

    def __init__(self, path: Path, options: RecordingOptions) -> None:
        """Create the file, and start its writer.

        Raises:
            OSError: the file cannot be created.
        """
        blocks = options.on_full is OnFull.BLOCK
        self._file = CaptureFile(
            path,
            comments=options.comments,
            max_size=options.max_size,
            max_files=options.max_files,
            preallocate=options.preallocate,
        )
        self._unreserved = self._file.unreserved
        self._store = Store(options.buffer, blocks=blocks)
        self._writer = Writer(self._file, self._store.release, blocks=blocks)
        self._lock = Lock()
        self._failed = False
        self._ended = False
        self._closed = False
        self._notes: list[str] = []
        self._queue: SimpleQueue[Entry | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="mfdtool-writer", daemon=True)
        self._thread.start()

    @property
    def paths(self) -> list[Path]:
        """The files written so far."""
        return list(self._file.paths)

    @property
    def unreserved(self) -> str:
        """Why no space could be reserved before anything had to be fast; empty if it was."""
        return self._unreserved

    @property
    def losses(self) -> Losses:
        """What the recording lacks."""
        return self._writer.losses

    @property
    def waits_for(self) -> str:
        """Why what is to be recorded waits for a file that takes nothing; empty if it does not."""
        return self._writer.waits_for

    def lanes(self, flow: FlowKey, *, comments: Sequence[str] = ()) -> tuple[Lane, Lane]:
        """Begin a connection: give the lanes of the client and of the server."""
        client, server = Lane(self, flow), Lane(self, flow.reversed())
        client.peer, server.peer = server, client
        self.put(client, flags=TCP_SYN, comments=tuple(comments), has_ack=False)
        self.put(server, flags=TCP_SYN)
        self.put(client)
        return client, server

    def take_chunk(self) -> Chunk | None:
        """Give a chunk to read into; None if the bytes are not to be recorded."""
        if self._failed:
            return None
        return self._store.take()

    @property
    def can_tap(self) -> bool:
        """Whether payload may go to the file by a tap.

        What a tap has given out cannot be written once more, when there is room in the file again.
        """
        return not self._failed and not self._store.blocks

    def tap(self, tap: Tap, pipe: Pipe, count: int) -> Tapped | None:
        """Take up to ``count`` bytes that pass a pipe; None if they are not to be recorded.

        Raises:
            OSError: the system cannot do it.
        """
        tapped = tap.take(pipe, count)
        if tapped is None and self._store.wait_until(tap.has_room):
            tapped = tap.take(pipe, count)
        return tapped

    def release(self, chunk: Chunk) -> None:
        """Say that one user of a chunk is done with it."""
        self._store.release(chunk)

    def count_cut(self, length: int) -> None:
        """Count payload that is not recorded because the file is too slow."""
        if not self._failed:
            self._writer.count(cut=1, length=length, reason=_TOO_SLOW)

    def put(
        self,
        lane: Lane,
        *,
        data: Payload | None = None,
        length: int = 0,
        flags: int = 0,
        comments: tuple[str, ...] = (),
        chunk: Chunk | None = None,
        time_ns: int | None = None,
        has_ack: bool = True,
    ) -> None:
        """Record a segment; its time and sequence numbers are those of this moment."""
        # A tap is bounded by itself, and what it holds has to be written in its turn.
        has_room = not self._failed and (isinstance(data, Tapped) or self._wait_for_queue())
        if chunk is not None and has_room:
            self._store.share(chunk)
        # One at a time, so that stamps never go back and no ACK precedes what it acknowledges.
        with self._lock:
            segment = _new_segment(
                time.time_ns() if time_ns is None else time_ns,
                -1 if flags & TCP_SYN else lane.position,
                lane.peer.position if has_ack else None,
                flags,
                comments,
            )
            lane.position += length + bool(flags & TCP_FIN)
            if not has_room:
                self._writer.count(frames=1, length=length, reason=_TOO_SLOW)
                return
            self._queue.put(_new_entry(lane.builder, segment, data, length, chunk))

    def note(self, text: str) -> None:
        """Have something said at the end of the file."""
        self._notes.append(text)

    def break_off(self, error: Exception) -> None:
        """Record nothing any more, because of a mistake in the recorder."""
        self._failed = True
        self._store.blocks = False
        self._writer.count(reason=f"the recorder failed: {error!r}")

    def give_up(self) -> None:
        """Wait for the file no longer, whatever was asked for."""
        self._writer.give_up()
        self._store.blocks = False

    def end(self) -> None:
        """Say that nothing more will be given."""
        if not self._ended:
            self._ended = True
            self._queue.put(None)

    def wait(self, timeout: float) -> bool:
        """Wait until all that was given is written, or so many seconds; tell whether it is."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self) -> None:
        """Write everything that was given, and the last words."""
        if self._closed:
            return
        self.end()
        self._thread.join()
        self._closed = True
        with suppress(OSError):
            self._writer.close(self._notes)

    def _wait_for_queue(self) -> bool:
        """Wait until there is room for an entry, if that is wanted; tell whether there is."""
        while self._queue.qsize() >= _ENTRIES:
            if not self._store.blocks:
                return False
            time.sleep(_PAUSE)
        return True

    # The writer's thread

    def _run(self) -> None:
        favour(WRITER)
        while (batch := self._next_batch()) is not None:
            self._write(batch)
            self._store.waits = not self._writer.is_slow
            self._store.turns += 1
            if not any(entry.makes_room for entry in batch):
                # Nobody waits for these; to wake up for each of them would slow the pumps.
                time.sleep(_PAUSE)

    def _write(self, entries: list[Entry]) -> None:
        try:
            self._writer.write(entries)
        except Exception as error:
            # Whatever it is: it must not reach a pump, nor end the thread that frees chunks.
            self.break_off(error)
            length = sum(entry.length for entry in entries)
            self._writer.count(frames=len(entries), length=length, reason="")

    def _next_batch(self) -> list[Entry] | None:
        """Wait for entries; None after the last one."""
        entry = self._queue.get()
        if entry is None:
            return None
        batch = [entry]
        size = entry.captured
        with suppress(Empty):
            while len(batch) < _BATCH and size < _BATCH_SIZE:
                entry = self._queue.get_nowait()
                if entry is None:
                    # So that the end is met again.
                    self._queue.put(None)
                    break
                batch.append(entry)
                size += entry.captured
        return batch
