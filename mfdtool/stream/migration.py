# SPDX-License-Identifier: GPL-2.0-or-later
"""Streams to migrations: which connections belong together, and all their frames in one order.

The order is that of arrival: a frame has arrived when the capture record with its last byte has.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Final

from mfdtool.packets.values import Endpoint
from mfdtool.stream.channel import HEAD_SIZE, Channel, ChannelKind, Stream, Unidentified, classify
from mfdtool.stream.connections import Opened, Opening, Window, reverse_flow
from mfdtool.stream.frames import ChannelId, Frame, Framer
from mfdtool.stream.main import MainFramer
from mfdtool.stream.multifd import MultiFDFramer
from mfdtool.stream.ram import PreemptFramer
from mfdtool.stream.reader import Reader
from mfdtool.stream.return_path import ReturnPathFramer
from mfdtool.stream.span import End, EndReason, Gap, Run
from mfdtool.wire.constants import QEMU_VM_FILE_MAGIC
from mfdtool.wire.multifd import MultiFDInit
from mfdtool.wire.vmdesc import VmDescription

HELD_FRAMES: Final = 1 << 16
"""Frames that wait for an earlier one before the main stream stops waiting for its end."""

_RECORD: Final = attrgetter("record")
_REASONS: Final = {
    ChannelKind.TLS: "TLS: encrypted, cannot be decoded",
    ChannelKind.PREEMPT: "not a known protocol",
    ChannelKind.UNKNOWN: "not a known protocol",
}


@dataclass(slots=True, eq=False)
class Migration:
    """One migration: the connections to one listening socket, as long as they last.

    Attributes:
        index: number in order of appearance, from 0.
        server: where the destination listens; None if the streams came as files.
        uuid: the VM's UUID by the multifd handshakes; None as long as there was none.
        channels: in order of appearance.
    """

    index: int
    server: Endpoint | None
    uuid: bytes | None = None
    channels: list[Channel] = field(default_factory=list)

    def first(self, kind: ChannelKind) -> Channel | None:
        """Give the first channel of a kind."""
        return next((channel for channel in self.channels if channel.kind is kind), None)

    def count(self, kind: ChannelKind) -> int:
        """Count the channels of a kind."""
        return sum(channel.kind is kind for channel in self.channels)

    def was_over(self, record: int) -> bool:
        """Tell whether all connections had ended when ``record`` was captured."""
        ends = [channel.stream.end for channel in self.channels]
        return all(end is not None and end.record < record for end in ends)


class Decoder:
    """Takes a capture's streams apart into frames.

    Feed it window after window, and take the frames that became final::

        for window in streams.windows():
            for frame in decoder.feed(window):
                ...
        for frame in decoder.finish():
            ...

    Attributes:
        migrations: what was found so far.
        others: streams that are no migration's, as far as can be told.
    """

    def __init__(
        self,
        *,
        page_size: int | None = None,
        description: VmDescription | None = None,
        descriptions: Mapping[int, VmDescription] | None = None,
        keep_extents: bool = False,
        is_single: bool = False,
    ) -> None:
        """Set up; ``page_size`` and ``description`` replace what a stream does not tell.

        ``descriptions`` are those of migrations that were read before, by their indexes.
        With ``keep_extents`` every frame refers to its bytes, which costs time and memory. With
        ``is_single`` all streams are known to be one migration's, whatever they say.
        """
        self._is_single = is_single
        self._keeps = keep_extents
        self.migrations: list[Migration] = []
        self.others: list[Stream] = []
        self._page_size = page_size
        self._description = description
        self._descriptions = descriptions or {}
        self._streams: dict[int, Stream] = {}
        self._channels: dict[int, Channel] = {}
        self._frames: list[Frame] = []

    def feed(self, window: Window) -> list[Frame]:
        """Take what a window made final; give the frames that nothing can come before any more."""
        for flow, events in _by_arrival(window):
            for event in events:
                if isinstance(event, Opened):
                    self._open(flow, event)
                else:
                    if isinstance(event, End) and not event.record:
                        event = replace(event, record=window.last_record)
                    self._feed(self._streams[flow], event)
        before = window.last_record + 1
        if window.low_watermark is not None:
            before = min(before, window.low_watermark)
        return self._take(before)

    def add(self, kind: ChannelKind, *content: Run, origin: int = 0) -> None:
        """Take a whole stream that came as a file; all such streams are one migration's.

        ``origin`` is where in the file it begins, if places in it count from the file's start.
        """
        stream = Stream(2 * len(self._streams), None, Opening.SYN, 0, -1, self._reader(), kind=kind)
        stream.origin = origin
        self._streams[stream.number] = stream
        self._begin(stream)
        for run in content:
            self._feed(stream, run)
        self._feed(stream, End(stream.length, EndReason.CAPTURE, 0, -1))

    def finish(self) -> list[Frame]:
        """Give all frames that are left, after the last window."""
        for stream in self._streams.values():
            if stream.kind is None and stream.length:
                # No more will come that could tell.
                stream.kind = ChannelKind.UNKNOWN
                self.others.append(stream)
        self._adopt()
        return self._take(None)

    # Streams

    def _reader(self) -> Reader:
        return Reader(keeps=self._keeps)

    def _open(self, flow: int, opened: Opened) -> None:
        self._streams[flow] = Stream(
            flow, opened.key, opened.opening, opened.record, opened.time_ns, self._reader()
        )

    def _feed(self, stream: Stream, item: Run | Gap | End) -> None:
        stream.feed(item)
        if stream.kind is None and stream.length:
            self._identify(stream)
        channel = self._channels.get(stream.number)
        if channel is not None:
            self._pump(channel)
        elif stream.kind is not None:
            # Nobody will read it: keep the counts, forget the bytes.
            stream.reader.move_to(stream.length)
            stream.reader.take_extents(stream.length, stream.length)

    def _identify(self, stream: Stream) -> None:
        other = self._streams.get(reverse_flow(stream.number))
        kind = classify(stream, other.kind if other is not None else None)
        if kind is None:
            return
        stream.kind = kind
        preempt = kind is ChannelKind.PREEMPT and self._migration_of(stream) is not None
        if not preempt and kind in _REASONS:
            # It may belong to a migration that shows itself later: see `_adopt`.
            stream.head = stream.reader.peek_at(0, HEAD_SIZE)
            self.others.append(stream)
        else:
            self._begin(stream)
        if other is not None and other.kind is None and other.length:
            self._identify(other)

    def _adopt(self) -> None:
        """Give connections that could not be identified to the migration they went to.

        Where nothing but TLS was seen, each listening socket's connections are a migration.
        """
        only_tls = not self.migrations
        for stream in list(self.others):
            new = only_tls and stream.kind is ChannelKind.TLS
            if stream.is_towards_server and (new or self._migration_of(stream) is not None):
                self.others.remove(stream)
                self._begin(stream)

    # Channels

    def _begin(self, stream: Stream) -> None:
        """Make a stream whose kind is known a channel of its migration."""
        kind = stream.kind
        assert kind is not None
        framer: Framer
        has_start = stream.opening is not Opening.MIDDLE
        if kind is ChannelKind.MULTIFD:
            channel = self._multifd_channel(stream)
        else:
            migration = self._migration_for(stream)
            if kind is ChannelKind.MAIN:
                has_start = _has_start(stream)
                framer = MainFramer(
                    stream.reader,
                    ChannelId(migration.index, kind.value),
                    from_start=has_start,
                    page_size=self._page_size,
                    description=self._descriptions.get(migration.index, self._description),
                )
                framer.origin = stream.origin
            elif kind is ChannelKind.RETURN_PATH:
                framer = ReturnPathFramer(stream.reader, ChannelId(migration.index, kind.value))
            elif kind is ChannelKind.PREEMPT and stream.end is None:
                framer = PreemptFramer(
                    stream.reader, ChannelId(migration.index, kind.value), page_size=self._page_size
                )
            else:
                name = f"{kind.value}-{migration.count(kind)}"
                framer = Unidentified(stream, ChannelId(migration.index, name), _REASONS[kind])
            channel = Channel(kind, stream, framer, framer.frames(), has_start)
            migration.channels.append(channel)
        self._channels[stream.number] = channel
        self._pump(channel)

    def _multifd_channel(self, stream: Stream) -> Channel:
        def name(init: MultiFDInit | None) -> ChannelId:
            migration = self._migration_for(stream, init)
            chosen = f"multifd-{init.id}" if init is not None else ""
            if not chosen or any(other.name == chosen for other in migration.channels):
                nameless = sum(other.name.startswith("multifd-?") for other in migration.channels)
                chosen = f"multifd-?{nameless}"
            migration.channels.append(channel)
            channel.has_start = init is not None
            return ChannelId(migration.index, chosen)

        framer = MultiFDFramer(
            stream.reader,
            ChannelId(-1, ChannelKind.MULTIFD.value),
            name=name,
            from_start=stream.opening is Opening.SYN and stream.key is not None,
            page_size=self._page_size,
        )
        channel = Channel(ChannelKind.MULTIFD, stream, framer, framer.frames())
        return channel

    # Migrations

    def _migration_of(self, stream: Stream, uuid: bytes | None = None) -> Migration | None:
        """Find the latest migration to where a stream goes, of the VM with ``uuid`` if there is."""
        main = self._channels.get(reverse_flow(stream.number))
        if main is not None and stream.kind is ChannelKind.RETURN_PATH:
            return self.migrations[main.framer.channel.migration]
        found = [known for known in reversed(self.migrations) if known.server == stream.server]
        if not found or uuid is None or found[0].uuid in (None, uuid):
            return found[0] if found else None
        same_vm = (
            known for known in found if known.uuid == uuid and not known.was_over(stream.record)
        )
        return next(same_vm, found[0])

    def _migration_for(self, stream: Stream, init: MultiFDInit | None = None) -> Migration:
        """Find the migration that a stream belongs to, or begin one."""
        migration = self._migration_of(stream, init.uuid if init is not None else None)
        if migration is None or self._begins_another(migration, stream, init):
            migration = Migration(len(self.migrations), stream.server)
            self.migrations.append(migration)
        if init is not None and migration.uuid is None:
            migration.uuid = init.uuid
        return migration

    def _begins_another(
        self, migration: Migration, stream: Stream, init: MultiFDInit | None
    ) -> bool:
        """Tell whether a stream cannot be one of a migration to the same destination.

        Another UUID alone does not tell: a destination that is busy with one VM's migration is
        sent nobody else's, so it is a fault of this one. With it, a channel that is there already
        tells that the capture has lost the first migration's end.
        """
        if self._is_single or stream.kind is ChannelKind.RETURN_PATH:
            return False
        if init is not None and migration.uuid not in (None, init.uuid):
            name = f"multifd-{init.id}"
            if any(channel.name == name for channel in migration.channels):
                return True
        if stream.kind is ChannelKind.MAIN and migration.first(ChannelKind.MAIN) is not None:
            return True
        return stream.key is not None and migration.was_over(stream.record)

    # Frames

    def _pump(self, channel: Channel) -> None:
        """Take the frames that a channel can give now."""
        if channel.done:
            return
        append = self._frames.append
        for frame in channel.frames:
            if frame is None:
                return
            append(frame)
        channel.done = True

    def _take(self, before: int | None) -> list[Frame]:
        """Give the frames that arrived before a record, and before what a framer waits for."""
        if len(self._frames) > HELD_FRAMES:
            self._hurry()
        self._frames.sort(key=_RECORD)
        waiting = (channel.framer.waiting_since for channel in self._channels.values())
        bounds = [bound for bound in (before, *waiting) if bound is not None]
        frames = self._frames
        count = bisect_left(frames, min(bounds), key=_RECORD) if bounds else len(frames)
        self._frames = frames[count:]
        return frames[:count]

    def _hurry(self) -> None:
        """Let main streams decode without the vmdescription that they wait for."""
        for channel in self._channels.values():
            if isinstance(channel.framer, MainFramer):
                channel.framer.hurry()
                self._pump(channel)


def _by_arrival(window: Window) -> list[tuple[int, list[Opened | Run | Gap | End]]]:
    """Group a window's events by flow, the flow first whose data came first.

    So what connections are called, and which migration they belong to, does not depend on how
    the capture was cut into windows.
    """
    flows: dict[int, list[Opened | Run | Gap | End]] = {}
    for flow, event in window.events:
        flows.setdefault(flow, []).append(event)
    return sorted(flows.items(), key=lambda item: _first_record(item[1]))


def _first_record(events: list[Opened | Run | Gap | End]) -> int:
    for event in events:
        if isinstance(event, Run):
            return int(event.records[0])
    return max((e.record for e in events if isinstance(e, Opened | End)), default=0)


def _has_start(stream: Stream) -> bool:
    """Tell whether a main stream's first byte is the first of the migration."""
    start = stream.reader.peek_at(0, 4)
    return stream.key is None or int.from_bytes(start) == QEMU_VM_FILE_MAGIC
