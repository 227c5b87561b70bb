# SPDX-License-Identifier: GPL-2.0-or-later
"""From frames to what the loader takes: events in the order in which they were observed."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from mfdtool.loader.destination import RamBlock
from mfdtool.loader.events import (
    Announced,
    BadHeader,
    Connect,
    Deliver,
    DevicePacket,
    FileHeader,
    Handshake,
    Unknown,
)
from mfdtool.loader.recording import Entry, Recording
from mfdtool.schedule.observed_main import MainItems
from mfdtool.schedule.observed_multifd import multifd_end, multifd_items
from mfdtool.stream import values
from mfdtool.stream.channel import Channel, ChannelKind
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.main import MainFramer
from mfdtool.stream.multifd import MultiFDFramer
from mfdtool.stream.span import EndReason
from mfdtool.wire.constants import MULTIFD_INIT_SIZE, X86_PAGE_SIZE, RamFlag, ReturnPathType
from mfdtool.wire.multifd import MultiFDInit, MultiFDPacketCounts

if TYPE_CHECKING:
    from mfdtool.stream.migration import Migration

_AFTER_ALL: Final = 1 << 62
_IDS: Final = 256
_UNNUMBERED: Final = -1
"""Stands for a multifd channel's number until all connections are in order."""


def recording_of(migration: Migration, frames: Sequence[Frame]) -> Recording:
    """Turn a migration's frames, in order of arrival and with their bytes, into a recording."""
    return _Observer(migration, frames).recording()


class _Observer:
    """Makes the recording of one migration."""

    def __init__(self, migration: Migration, frames: Sequence[Frame]) -> None:
        self._migration = migration
        self._positions = {id(frame): position for position, frame in enumerate(frames)}
        self._frames: dict[str, list[Frame]] = {}
        for frame in frames:
            self._frames.setdefault(frame.channel.name, []).append(frame)
        used = {frame.value.id for frame in frames if isinstance(frame.value, MultiFDInit)}
        self._free_ids = iter([number for number in range(_IDS) if number not in used])
        self._entries: list[tuple[tuple[int, int], Entry]] = []
        self._places: dict[str, tuple[int, int]] = {}
        self._times = [frame.time_last for frame in frames]
        self._records = [frame.record for frame in frames]

    def recording(self) -> Recording:
        """Give the recording."""
        channels = [channel for channel in self._migration.channels if self._of(channel)]
        multifd = [channel for channel in channels if channel.kind is ChannelKind.MULTIFD]
        for channel in channels:
            if channel.kind is ChannelKind.MULTIFD:
                self._add_multifd(channel)
            elif channel.kind is ChannelKind.MAIN:
                self._add_main(channel)
            elif channel.kind is ChannelKind.UNKNOWN and channel.stream.is_towards_server:
                self._add_unknown(channel)
        self._entries.sort(key=lambda entry: entry[0])
        entries, names = _numbered(entry for _, entry in self._entries)
        return Recording(
            migration=self._migration.index,
            entries=entries,
            page_size=self._page_size(channels),
            blocks=self._blocks(),
            acks=self._acks(),
            resets=tuple(channel.name for channel in multifd if _was_reset(channel)),
            is_whole=self._is_whole(multifd),
            names=names,
        )

    def _of(self, channel: Channel) -> list[Frame]:
        return self._frames.get(channel.name, [])

    # Entries

    def _add(self, frame: Frame, event: Connect | Deliver) -> None:
        """Add what arrives when the last byte of a frame does."""
        entry = Entry(event, frame.channel.name, frame.number, frame.offset, frame.time_last)
        self._place((frame.record, self._positions[id(frame)]), entry)

    def _add_at_start(self, frame: Frame, event: Deliver, *, since: Frame | None = None) -> None:
        """Add what the destination acts on when the first byte of it, or of ``since``, arrives."""
        first = since or frame
        time_ns = first.time_first
        entry = Entry(event, frame.channel.name, frame.number, frame.offset, time_ns)
        if time_ns < 0:
            self._place((first.record, self._positions[id(first)]), entry)
            return
        before = bisect_left(self._times, time_ns)
        self._place((self._records[before - 1] if before else 0, _AFTER_ALL), entry)

    def _place(self, place: tuple[int, int], entry: Entry) -> None:
        """Put an entry at its place in the order, but behind those of its channel."""
        place = max(place, self._places.get(entry.channel, place))
        self._places[entry.channel] = place
        self._entries.append((place, entry))

    def _add_multifd(self, channel: Channel) -> None:
        frames = self._of(channel)
        is_first = True
        for frame, item, since in multifd_items(channel, frames):
            if not is_first:
                assert not isinstance(item, Handshake | Unknown)
                if isinstance(item, DevicePacket) and item.is_cut:
                    announced = Announced(item.next_packet_size)
                    self._add_at_start(frame, Deliver(_UNNUMBERED, announced))
                if isinstance(item, BadHeader):
                    self._add_at_start(frame, Deliver(_UNNUMBERED, item), since=since)
                else:
                    self._add(frame, Deliver(_UNNUMBERED, item))
                continue
            is_first = False
            assert isinstance(item, Handshake | Unknown)
            if isinstance(item, Unknown) and not item.head:
                # Its handshake was not captured: the channel was there before.
                item = Handshake(next(self._free_ids, 0), uuid=self._migration.uuid or bytes(16))
            self._add(frame, Connect(item))
        self._add_end(channel, Deliver(_UNNUMBERED, multifd_end(channel, frames)))

    def _add_main(self, channel: Channel) -> None:
        items = MainItems(channel, self._of(channel))
        self._add(self._of(channel)[0], Connect(FileHeader()))
        for frame, item in items.items():
            add = self._add_at_start if isinstance(item, Unknown) else self._add
            add(frame, Deliver(None, item))
        self._add_end(channel, Deliver(None, items.end()))

    def _add_unknown(self, channel: Channel) -> None:
        """Accept a connection that is neither main nor multifd channel, when it came up."""
        frame = self._of(channel)[0]
        event = Connect(Unknown(frame.data(limit=MULTIFD_INIT_SIZE)))
        entry = Entry(event, channel.name, frame.number, 0, frame.time_first)
        self._place((channel.stream.record, 0), entry)

    def _add_end(self, channel: Channel, event: Deliver) -> None:
        """Add the end of a channel, if the source made it.

        A reset of a multifd channel is taken for the destination's: that closes its channels with
        data unread when it gives up, and a source that does so closes them in order.
        """
        end = channel.stream.end
        if end is None or end.reason is EndReason.CAPTURE:
            return
        if _was_reset(channel) and channel.kind is ChannelKind.MULTIFD:
            return
        last = self._of(channel)[-1]
        entry = Entry(event, channel.name, None, channel.stream.length, end.time_ns)
        self._place((max(end.record, last.record), _AFTER_ALL), entry)

    # What else is known

    def _page_size(self, channels: list[Channel]) -> int:
        """Give what most multifd channels tell of it; a main stream need not tell."""
        framers = [channel.framer for channel in channels]
        for kind in (MultiFDFramer, MainFramer):
            sizes = Counter(framer.page_size for framer in framers if isinstance(framer, kind))
            del sizes[0]
            if sizes:
                return sizes.most_common(1)[0][0]
        return X86_PAGE_SIZE

    def _blocks(self) -> tuple[RamBlock, ...] | None:
        for frame in self._frames.get(ChannelKind.MAIN.value, []):
            value = frame.value
            if isinstance(value, values.RamRecord) and value.flags & RamFlag.MEM_SIZE:
                return tuple(
                    RamBlock(idstr=entry.idstr, used_length=entry.used_length)
                    for entry in value.entries
                )
        return None

    def _acks(self) -> int:
        answers = self._frames.get(ChannelKind.RETURN_PATH.value, [])
        return sum(
            isinstance(frame.value, values.ReturnPathRecord)
            and frame.value.header.type == ReturnPathType.SWITCHOVER_ACK
            for frame in answers
        )

    def _is_whole(self, channels: list[Channel]) -> bool:
        """Whether no packet was taken out of the streams.

        Their numbers have no holes then (multifd.c:multifd_send_fill_packet). Where bytes are
        missing, holes prove nothing.
        """
        numbers: set[int] = set()
        for channel in channels:
            for frame in self._of(channel):
                if frame.missing or frame.kind is Kind.UNDECODED:
                    return True
                if isinstance(frame.value, MultiFDPacketCounts):
                    numbers.add(frame.value.packet_num)
        return not numbers or max(numbers) - min(numbers) < len(numbers)


def _was_reset(channel: Channel) -> bool:
    end = channel.stream.end
    return end is not None and end.reason is EndReason.RST


def _numbered(entries: Iterable[Entry]) -> tuple[tuple[Entry, ...], tuple[str, ...]]:
    """Number the multifd channels in the order in which they connect; give their names too."""
    numbers: dict[str, int] = {}
    numbered: list[Entry] = []
    for entry in entries:
        event = entry.event
        if isinstance(event, Connect):
            if not isinstance(event.first, FileHeader):
                numbers[entry.channel] = len(numbers)
        elif event.channel is not None:
            number = numbers.get(entry.channel)
            if number is None:
                continue
            entry = replace(entry, event=replace(event, channel=number))
        numbered.append(entry)
    return tuple(numbered), tuple(numbers)
