# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames of a main stream as the items that the main thread reads.

A VFIO section's body is read marker by marker, each with what belongs to it, and a RAM section's
record by record. Where neither follows, the destination takes the next word for one; so that word
is looked up in the frames to come.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mfdtool.loader.assume import is_vfio
from mfdtool.loader.destination import RAM
from mfdtool.loader.events import (
    Body,
    Command,
    Configuration,
    End,
    Eof,
    FileHeader,
    Footer,
    Lost,
    MainItem,
    Marker,
    RamRecord,
    SectionPart,
    SectionStart,
    Unknown,
    VmDescription,
)
from mfdtool.schedule.bytes_of import blob_of_frame, joined
from mfdtool.stream import values
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.span import EndReason, Span
from mfdtool.wire import main_stream as wire
from mfdtool.wire.constants import RamFlag, VFIOMarker

if TYPE_CHECKING:
    from mfdtool.stream.channel import Channel

_HEAD: Final = 64
_WORD: Final = 8
_HEADERS: Final = frozenset(
    {
        Kind.MAIN_SECTION_START,
        Kind.MAIN_SECTION_PART,
        Kind.MAIN_SECTION_END,
        Kind.MAIN_SECTION_FULL,
    }
)
_BODIES: Final = frozenset(
    {Kind.VFIO_MARKER, Kind.RAM_RECORD, Kind.MAIN_OPAQUE, Kind.UNDECODED, Kind.GAP}
)


class MainItems:
    """Turns the frames of a main stream into items, looking ahead where that is needed."""

    def __init__(self, channel: Channel, frames: list[Frame]) -> None:
        self._length = channel.stream.length
        self._end = channel.stream.end
        self._frames = frames
        self._at = 0
        self._reach = 0
        self._read = -1
        self._is_behind_loss = False

    def items(self) -> Iterator[tuple[Frame, MainItem]]:
        """Give each item with the frame that it begins in."""
        while self._at < len(self._frames):
            frame = self._frames[self._at]
            self._at += 1
            if self._at - 1 == self._read:
                continue
            item = self._lost(frame) or self._item(frame)
            if item is None or (self._is_behind_loss and isinstance(item, Footer)):
                # The section that a footer behind a hole ends is not known to have begun.
                continue
            self._is_behind_loss = isinstance(item, Lost) and not item.is_inside
            yield frame, item
            if self._wants_more(frame, item):
                yield frame, Body(self._ahead(_WORD))

    def end(self) -> End:
        """Tell how the channel ends."""
        reason = self._end.reason if self._end is not None else EndReason.CAPTURE
        return End(reason)

    def _lost(self, frame: Frame) -> Lost | None:
        """Give what was not captured, or cannot be read for that reason."""
        if frame.kind is Kind.GAP:
            return Lost(frame.length, is_inside=frame.end <= self._reach)
        if frame.kind is Kind.UNDECODED and self._is_behind_gap():
            return Lost(frame.length)
        self._reach = max(self._reach, frame.end)
        return None

    def _is_behind_gap(self) -> bool:
        return self._at > 1 and self._frames[self._at - 2].kind is Kind.GAP

    def _item(self, frame: Frame) -> MainItem | None:
        kind, value = frame.kind, frame.value
        item: MainItem | None = None
        if isinstance(value, wire.FileHeader):
            item = FileHeader(value.magic, value.version)
        elif isinstance(value, wire.Configuration):
            item = Configuration(value.name)
        elif isinstance(value, wire.SectionStart):
            item = SectionStart(
                value.section_id, value.idstr, value.instance_id, value.version_id, value.type
            )
        elif isinstance(value, wire.SectionPart):
            item = SectionPart(value.section_id, value.type)
        elif isinstance(value, wire.SectionFooter):
            item = Footer(value.section_id)
        elif isinstance(value, values.CommandRecord):
            ping = value.payload.value if isinstance(value.payload, wire.Ping) else 0
            item = Command(value.header.cmd, value.header.len, ping)
        elif isinstance(value, values.RamRecord):
            item = RamRecord(value.flags, value.addr, value.ramblock, value.fill)
        elif isinstance(value, values.MarkerRecord):
            item = self._marker(frame, value)
        elif kind is Kind.MAIN_EOF:
            item = Eof()
        elif kind is Kind.MAIN_VMDESCRIPTION:
            item = VmDescription()
        elif kind is Kind.MAIN_OPAQUE:
            item = None if frame.end > self._length else Body(frame.data(limit=_HEAD))
        elif kind is Kind.UNDECODED:
            item = Unknown(frame.data(limit=_HEAD))
        return item

    def _marker(self, frame: Frame, record: values.MarkerRecord) -> Marker:
        marker = record.marker
        if marker == VFIOMarker.DEV_DATA_STATE:
            is_cut = frame.end > self._length
            span = frame.payload or Span(frame.end, frame.end)
            stop = min(span.stop, self._length) if is_cut else span.stop
            return Marker(marker, blob_of_frame(frame, Span(span.start, stop)), is_cut=is_cut)
        if marker == VFIOMarker.DEV_SETUP_STATE:
            following = int.from_bytes(self._ahead(_WORD).ljust(_WORD, b"\0"))
            self._skip_end_of_state()
            return Marker(marker, following=following)
        if marker == VFIOMarker.DEV_CONFIG_STATE:
            blobs = [blob_of_frame(frame, Span(frame.offset, min(frame.end, self._length)))]
            place = self._behind_gaps(frame.end)
            following_frame = self._frames[place] if place < len(self._frames) else None
            if following_frame is not None and _is_end_of_state(following_frame):
                whole = Span(following_frame.offset, following_frame.end)
                blobs.append(blob_of_frame(following_frame, whole))
                self._read = place
            return Marker(marker, joined(blobs))
        return Marker(marker)

    def _behind_gaps(self, end: int) -> int:
        """Find the place of the next frame, behind the gaps that a frame has inside."""
        place = self._at
        while place < len(self._frames):
            frame = self._frames[place]
            if frame.kind is not Kind.GAP or frame.end > end:
                break
            place += 1
        return place

    def _skip_end_of_state(self) -> None:
        following = self._next()
        if following is not None and _is_end_of_state(following):
            self._at += 1

    def _wants_more(self, frame: Frame, item: MainItem) -> bool:
        """Whether the destination reads a word of the section's body where no frame has it."""
        if frame.section is None:
            return False
        idstr = frame.section.idstr
        following = self._next()
        if following is None or following.kind in _BODIES:
            return False
        if is_vfio(idstr):
            is_data = isinstance(item, Marker) and item.marker == VFIOMarker.DEV_DATA_STATE
            return frame.kind in _HEADERS or (is_data and not frame.missing)
        if idstr == RAM:
            ends = isinstance(item, RamRecord) and bool(item.flags & RamFlag.EOS)
            is_part = frame.kind in _HEADERS or isinstance(item, RamRecord)
            return is_part and not ends
        return False

    def _next(self) -> Frame | None:
        return self._frames[self._at] if self._at < len(self._frames) else None

    def _ahead(self, count: int) -> bytes:
        """Give the next bytes of the stream, fewer at its end or where some are missing."""
        found = b""
        at = self._at
        while len(found) < count and at < len(self._frames):
            frame = self._frames[at]
            data = frame.data(limit=count - len(found))
            found += data
            if frame.missing and len(data) < frame.length:
                break
            at += 1
        return found


def _is_end_of_state(frame: Frame) -> bool:
    value = frame.value
    return isinstance(value, values.MarkerRecord) and value.marker == VFIOMarker.END_OF_STATE
