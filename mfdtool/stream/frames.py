# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames: what a channel's bytes are cut into.

A frame is one packet, section header, marker, record or message, decoded, and a reference to the
payload behind it. What could not be decoded, or is not in the capture, is a frame too, so that a
channel's frames account for every byte of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from enum import StrEnum

from mfdtool.stream.reader import Extent, Reader, Stamp, State
from mfdtool.stream.span import Span
from mfdtool.stream.values import Value


class Kind(StrEnum):
    """Kinds of frame, by the names that ``decode`` shows."""

    MULTIFD_INIT = "multifd.init"
    MULTIFD_RAM = "multifd.ram"
    MULTIFD_SYNC = "multifd.sync"
    MULTIFD_DEVICE_STATE = "multifd.device_state"
    MAIN_HEADER = "main.header"
    MAIN_CONFIGURATION = "main.configuration"
    MAIN_SECTION_START = "main.section_start"
    MAIN_SECTION_PART = "main.section_part"
    MAIN_SECTION_END = "main.section_end"
    MAIN_SECTION_FULL = "main.section_full"
    MAIN_SECTION_FOOTER = "main.section_footer"
    MAIN_COMMAND = "main.command"
    MAIN_EOF = "main.eof"
    MAIN_VMDESCRIPTION = "main.vmdescription"
    MAIN_OPAQUE = "main.opaque"
    RAM_RECORD = "ram.record"
    VFIO_MARKER = "vfio.marker"
    RETURN_PATH_MESSAGE = "return_path.message"
    GAP = "gap"
    UNDECODED = "undecoded"


@dataclass(frozen=True, slots=True)
class ChannelId:
    """A channel of a migration: ``main``, ``return-path``, ``multifd-2``, ``multifd-?0``, ..."""

    migration: int
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Section:
    """A section's identity, which only START and FULL spell out (savevm.c:SaveStateEntry)."""

    section_id: int
    idstr: str
    instance_id: int
    version_id: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a channel.

    Attributes:
        kind: what it is.
        channel: where it was seen.
        number: index among the channel's frames, from 0; None for a gap, which is no frame
            that anybody sent.
        offset: where it begins in the channel's stream.
        length: how many bytes it has, header and payload; a truncated frame's claimed length.
        time_first: when its first byte arrived, nanoseconds since the epoch; -1 if unknown.
        time_last: when its last byte arrived.
        record: the capture record that completed it, or told that it would not be completed;
            from 1, or 0 if there is no capture.
        missing: how many of its bytes the capture does not have.
        value: the decoded header; None if there is none, or not enough of it.
        payload: the bytes behind the header; None if the kind has none.
        section: the section it belongs to (main channel).
        reason: why bytes are missing or undecoded.
        extents: the frame's bytes, if the decoder was asked to keep them.
        config: what is between the markers of a device's config, if it is whole and of a size
            that a real one can have; empty otherwise.
        head: the first bytes of device data that may begin a device's state.
    """

    kind: Kind
    channel: ChannelId
    number: int | None
    offset: int
    length: int
    time_first: int
    time_last: int
    record: int
    missing: int = 0
    value: Value | None = None
    payload: Span | None = None
    section: Section | None = None
    reason: str = ""
    extents: tuple[Extent, ...] = field(default=(), compare=False, repr=False)
    config: bytes = field(default=b"", repr=False)
    head: bytes = field(default=b"", repr=False)

    @property
    def complete(self) -> bool:
        """Whether the capture has all of the frame's bytes."""
        return not self.missing

    @property
    def end(self) -> int:
        """The stream position behind the frame."""
        return self.offset + self.length

    def data(self, span: Span | None = None, *, limit: int | None = None) -> bytes:
        """Copy the frame's bytes, or those of a span of it, as far as they are contiguous.

        Only a decoder that keeps extents has them. The result is shorter where bytes are missing,
        and at most ``limit`` long.
        """
        start, stop = (self.offset, self.end) if span is None else (span.start, span.stop)
        if limit is not None:
            stop = min(stop, start + limit)
        parts: list[memoryview] = []
        for extent in self.extents:
            low = start - extent.start
            if low >= len(extent.view):
                continue
            if low < 0 or start >= stop:
                break
            parts.append(extent.view[low : stop - extent.start])
            start += len(parts[-1])
        return b"".join(parts)


Frames = Generator[Frame | None, None, None]
"""What a framer yields: frames, and None whenever it needs more input."""

Find = Callable[[int], tuple[int | None, int]]
"""Searches from a position for where decoding can go on, in what was fed so far.

Gives that position, or None; and where to search on when more was fed.
"""


class Framer(ABC):
    """What all framers share: a reader, a channel's name, and the numbering of frames.

    Attributes:
        reader: where bytes come from.
        channel: the channel's name, which may become known with its first bytes.
        waiting_since: the record of a frame that is complete but cannot be given yet, because
            what follows must be seen first; None normally. Whoever merges channels by record
            waits for it.
    """

    def __init__(self, reader: Reader, channel: ChannelId) -> None:
        self.reader = reader
        self.channel = channel
        self.waiting_since: int | None = None
        self._number = 0
        self._lost: Span | None = None
        self._lost_stamp = Stamp(0, -1)
        self._lost_missing = 0

    @abstractmethod
    def frames(self) -> Frames:
        """Yield the channel's frames, and None whenever more input is needed."""

    def _frame(
        self,
        kind: Kind,
        start: int,
        first: Stamp,
        *,
        length: int | None = None,
        missing: int = 0,
        value: Value | None = None,
        payload: Span | None = None,
        section: Section | None = None,
        reason: str = "",
        last: Stamp | None = None,
        config: bytes = b"",
        head: bytes = b"",
    ) -> Frame:
        """Make the frame from ``start`` to the cursor; ``length`` if it claims to be longer."""
        reader = self.reader
        if last is None:
            last = reader.last_stamp()
        record = last.record
        if missing and reader.end is not None and reader.position >= reader.fed:
            # Only the stream's end told that no more would come.
            record = max(record, reader.end.record)
        number = self._number
        self._number = number + 1
        if length is None:
            length = reader.position - start
        return Frame(
            kind,
            self.channel,
            number,
            start,
            length,
            first.time_ns,
            last.time_ns,
            record,
            missing,
            value,
            payload,
            section,
            reason,
            reader.take_extents(start, start + length) if reader.keeps else (),
            config,
            head,
        )

    def _gaps(self) -> list[Frame]:
        """Give a frame for each gap that was met since the last call."""
        last = self.reader.last_stamp()
        return [
            Frame(
                Kind.GAP,
                self.channel,
                None,
                gap.start,
                gap.stop - gap.start,
                last.time_ns,
                last.time_ns,
                last.record,
                missing=gap.stop - gap.start,
                reason=gap.reason,
            )
            for gap in self.reader.take_gaps()
        ]

    def _lose(self, find: Find, reason: str) -> Frames:
        """Give up bytes, from the cursor to where ``find`` says that decoding can go on.

        Each stretch that the capture has becomes one undecoded frame.
        """
        reader = self.reader
        # At least one byte is given up: what begins here was tried already.
        search = reader.position + (reader.state(1) is State.READY)
        while True:
            found, search = find(search)
            stop = search if found is None else found
            if found is None and reader.end is not None:
                stop = reader.fed
            yield from self._discard(stop, reason)
            if found is not None or reader.end is not None:
                break
            yield None
        yield from self._close_lost(reason)

    def _discard(self, stop: int, reason: str) -> Frames:
        """Move to ``stop``; the last stretch of bytes passed stays open, for it may grow."""
        reader = self.reader
        for low, high in reader.stretches(reader.position, stop):
            if self._lost is not None and self._lost.stop != low:
                yield from self._close_lost(reason)
            reader.move_to(low)
            if self._lost is None:
                self._lost, self._lost_stamp = Span(low, low), reader.stamp()
            reader.move_to(high)
            self._lost = Span(self._lost.start, high)
        if self._lost is not None and self._lost.stop < stop:
            yield from self._close_lost(reason)
        reader.move_to(stop)
        yield from self._gaps()

    def _abandon(self, start: int, first: Stamp, *, missing: int = 0) -> None:
        """Count what lies between ``start`` and the cursor as undecoded."""
        self._lost, self._lost_stamp = Span(start, self.reader.position), first
        self._lost_missing = missing

    def _close_lost(self, reason: str) -> Frames:
        lost, self._lost = self._lost, None
        missing, self._lost_missing = self._lost_missing, 0
        if lost is None:
            return
        last = self.reader.last_stamp()
        yield self._frame(
            Kind.UNDECODED,
            lost.start,
            self._lost_stamp,
            length=lost.size,
            missing=missing,
            payload=lost,
            reason=reason,
            last=Stamp(max(last.record, self._settling_record()), last.time_ns),
        )

    def _settling_record(self) -> int:
        """Give the record that told where undecoded bytes end: that of what comes next."""
        reader = self.reader
        if reader.state(1) is State.READY:
            return reader.stamp().record
        return reader.end.record if reader.end is not None else 0

    def _lose_rest(self, reason: str) -> Frames:
        """Give up everything up to the end of the stream, which is known."""
        yield from self._lose(lambda _: (None, self.reader.fed), reason)
