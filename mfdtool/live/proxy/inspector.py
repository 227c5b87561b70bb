# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a main stream beside the proxy: how far the migration is, and what may be recorded of it.

No body on the main stream says how long it is, so it has to be read with some foresight. That is
done in a thread of its own, on copies. If it cannot keep up with the stream it gives up: then
nobody knows the phase, and a redacted recording has only the length of what follows.
"""

from __future__ import annotations

import time
from contextlib import suppress
from hashlib import sha256
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Final

from mfdtool.stream.frames import ChannelId, Frame, Frames
from mfdtool.stream.main import MainFramer
from mfdtool.stream.phases import Phase, PhaseTracker
from mfdtool.stream.reader import Reader
from mfdtool.stream.redaction import hidden_span
from mfdtool.stream.span import End, EndReason, Span, run_of
from mfdtool.wire.main_stream import Configuration

if TYPE_CHECKING:
    from mfdtool.live.proxy.recording import Lane

BACKLOG: Final = 32 << 20
"""Bytes that may wait to be read."""
_VISIBLE: Final = 32 << 10
_UNSEEN: Final = 1 << 30


def digest_comment(digest: bytes, length: int) -> str:
    """Word what a recording says of payload that it does not have."""
    return f"sha256 {digest.hex()} of {length} bytes"


class Inspector:
    """Reads one main stream.

    Attributes:
        phase: where the migration is; None if that is not known any more.
        machine: the machine type; empty as long as it was not seen.
    """

    def __init__(self, lane: Lane | None = None, *, digest: bool = False) -> None:
        """Start; with a ``lane``, what may be shown of the stream is recorded there."""
        self.machine = ""
        self._lane = lane
        self._digest = digest
        self._phases = PhaseTracker()
        self._queue: SimpleQueue[tuple[bytes, int] | None] = SimpleQueue()
        self._given = 0
        self._taken = 0
        self._gave_up = False
        self._thread = Thread(target=self._run, name="mfdtool-inspector", daemon=True)
        self._thread.start()

    @property
    def phase(self) -> Phase | None:
        """Where the migration is; None if that is not known any more."""
        return None if self._gave_up else self._phases.phase

    def feed(self, data: bytes | memoryview) -> None:
        """Take the next bytes."""
        self._given += len(data)
        self._gave_up |= self._given - self._taken > BACKLOG
        if not self._gave_up:
            self._queue.put((bytes(data), time.time_ns()))

    def close(self) -> None:
        """Read what was fed to its end, and account for everything."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        recorder = _Redactor(self._lane, digest=self._digest) if self._lane is not None else None
        # A mistake in here must not end the forwarding: what was not read stays unseen.
        with suppress(Exception):
            self._read(recorder)
        self._gave_up |= self._taken < self._given
        while self._queue.get() is not None:
            continue
        if recorder is not None:
            recorder.finish(self._given)

    def _read(self, recorder: _Redactor | None) -> None:
        reader = Reader(keeps=recorder is not None)
        framer = MainFramer(reader, ChannelId(0, "main"))
        # The vmdescription, which tells the lengths of bodies, comes when all is over.
        framer.hurry()
        frames = framer.frames()
        while (item := self._queue.get()) is not None:
            data, now = item
            reader.feed(run_of(data, start=reader.fed, time_ns=now))
            self._drain(frames, recorder)
            self._taken = reader.fed
        self._queue.put(None)
        reader.feed(End(reader.fed, EndReason.CAPTURE, 0, -1))
        self._drain(frames, recorder)

    def _drain(self, frames: Frames, recorder: _Redactor | None) -> None:
        while (frame := next(frames, None)) is not None:
            self._phases.add(frame)
            if isinstance(frame.value, Configuration):
                self.machine = frame.value.name
            if recorder is not None:
                recorder.add(frame)
        if recorder is not None:
            recorder.flush()


class _Redactor:
    """Records what may be shown of frames, which come in the order of the stream."""

    def __init__(self, lane: Lane, *, digest: bool) -> None:
        self._lane = lane
        self._digest = digest
        self._position = 0
        self._visible = bytearray()
        self._time_ns = -1

    def add(self, frame: Frame) -> None:
        """Record a frame, or keep it for a longer segment."""
        if frame.missing:
            # Cut by the end of the stream: what there is of it is hidden by `finish`.
            return
        hidden = hidden_span(frame) or Span(frame.end, frame.end)
        shown = frame.data(Span(frame.offset, hidden.start))
        if frame.offset != self._position + len(self._visible) or len(shown) < (
            hidden.start - frame.offset
        ):
            raise ValueError("frames do not follow each other")
        self._visible += shown
        self._time_ns = frame.time_last
        if len(self._visible) >= _VISIBLE:
            self.flush()
        if hidden.size:
            self.flush()
            comments: tuple[str, ...] = ()
            if self._digest:
                comments = (digest_comment(sha256(frame.data(hidden)).digest(), hidden.size),)
            self._hide(hidden.size, comments)

    def flush(self) -> None:
        """Record what was kept."""
        if self._visible:
            data = bytes(self._visible)
            self._visible.clear()
            self._position += len(data)
            self._lane.data(memoryview(data), time_ns=self._time_ns)

    def finish(self, length: int) -> None:
        """Hide the rest of a stream of ``length`` bytes."""
        self.flush()
        while self._position < length:
            self._hide(min(length - self._position, _UNSEEN), ())

    def _hide(self, count: int, comments: tuple[str, ...]) -> None:
        self._position += count
        self._lane.unseen(count, comments=comments, time_ns=self._time_ns)
