# SPDX-License-Identifier: GPL-2.0-or-later
"""What a connection carries, told by its first bytes.

QEMU numbers no connection and uses no fixed port: the main channel, the multifd channels and the
others all connect to the same listening socket, in any order (migration.c:
migration_ioc_process_incoming). A capture may also begin after a connection did, or lack its
first bytes: then the first plausible packet or section tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from mfdtool.packets.values import Endpoint, FlowKey
from mfdtool.stream.connections import Opening
from mfdtool.stream.frames import ChannelId, Framer, Frames, Kind
from mfdtool.stream.main import MainFramer
from mfdtool.stream.multifd import find_packet
from mfdtool.stream.ram import is_plausible_word
from mfdtool.stream.reader import Extent, Reader, Stamp, State
from mfdtool.stream.span import End, Gap, Run, Span
from mfdtool.wire.constants import MULTIFD_MAGIC, QEMU_VM_FILE_MAGIC

SEARCH_LIMIT: Final = 8 << 20
"""How far a stream whose start was not captured is searched for a packet or section."""

HEAD_SIZE: Final = 64
"""Bytes that are kept of an unidentified stream: as many as a multifd handshake has."""

_MAGIC_SIZE: Final = 4
_WORD_SIZE: Final = 8
_TLS_HANDSHAKE: Final = b"\x16\x03"


class ChannelKind(StrEnum):
    """What a channel carries."""

    MAIN = "main"
    RETURN_PATH = "return-path"
    MULTIFD = "multifd"
    PREEMPT = "preempt"
    TLS = "tls"
    UNKNOWN = "unknown"


@dataclass(slots=True, eq=False)
class Stream:
    """What one direction of a connection carries, as far as it is known.

    Attributes:
        number: the flow's id, whose lowest bit tells the two directions apart.
        key: addresses and ports; None for a stream that came as a file.
        opening: what the capture has of its beginning.
        record: the capture record that it was first seen in.
        time_ns: that record's time.
        reader: the bytes.
        kind: what they are; None as long as nobody can tell.
        gap_bytes: how many bytes the capture lacks.
        last_time_ns: when its latest byte arrived.
        end: how it ended, once that is known.
        head: the first bytes of a stream that could not be identified; its others are not kept.
        origin: where it begins in the file that it came as.
    """

    number: int
    key: FlowKey | None
    opening: Opening
    record: int
    time_ns: int
    reader: Reader
    kind: ChannelKind | None = None
    gap_bytes: int = 0
    last_time_ns: int = -1
    end: End | None = None
    head: bytes = b""
    origin: int = 0
    searched_packet: int = 0
    searched_element: int = 0

    @property
    def length(self) -> int:
        """Bytes of the stream so far, gaps included."""
        return self.reader.fed

    @property
    def server(self) -> Endpoint | None:
        """Where the stream goes to."""
        return self.key.destination if self.key is not None else None

    @property
    def is_towards_server(self) -> bool:
        """Whether it goes to the side that listened, by the SYN or else by the lower port."""
        if self.key is None or self.opening is not Opening.MIDDLE:
            return self.opening is not Opening.SYN_ACK
        return self.key.destination.port <= self.key.source.port

    def feed(self, item: Run | Gap | End) -> None:
        """Take the next stretch."""
        self.reader.feed(item)
        if isinstance(item, Run):
            self.last_time_ns = max(self.last_time_ns, int(item.times[-1]))
        elif isinstance(item, Gap):
            self.gap_bytes += item.stop - item.start
        else:
            self.end = item


@dataclass(slots=True, eq=False)
class Channel:
    """A stream that belongs to a migration, and the framer that cuts it.

    Attributes:
        framer: knows the channel's name, which a multifd channel learns with its handshake.
        frames: what the framer yields.
        has_start: whether the capture has its first byte, by the SYN or by what must come first.
        done: whether that was all.
    """

    kind: ChannelKind
    stream: Stream
    framer: Framer
    frames: Frames
    has_start: bool = True
    done: bool = False

    @property
    def name(self) -> str:
        """The channel's name, as ``decode`` shows it."""
        return self.framer.channel.name


class Unidentified(Framer):
    """Shows a stream that cannot be cut as one undecoded frame, after its end."""

    def __init__(self, stream: Stream, channel: ChannelId, reason: str) -> None:
        super().__init__(stream.reader, channel)
        self._stream = stream
        self._reason = reason

    def frames(self) -> Frames:
        """Yield the one frame."""
        while self.reader.end is None:
            yield None
        first = Stamp(self._stream.record, self._stream.time_ns)
        self.reader.move_to(self.reader.fed)
        frame = self._frame(
            Kind.UNDECODED,
            0,
            first,
            length=self.reader.fed,
            missing=self._stream.gap_bytes,
            payload=Span(0, self.reader.fed),
            reason=self._reason,
        )
        if self.reader.keeps and self._stream.head:
            frame = replace(frame, extents=(Extent(0, memoryview(self._stream.head)),))
        yield frame
        yield from self._gaps()


def classify(stream: Stream, other: ChannelKind | None) -> ChannelKind | None:
    """Tell what a stream carries; None while more must be seen, UNKNOWN if it cannot be told.

    ``other`` is what the connection's other direction carries, None if that is not known.
    """
    if other is ChannelKind.MAIN:
        return ChannelKind.RETURN_PATH
    if other in {ChannelKind.MULTIFD, ChannelKind.PREEMPT, ChannelKind.UNKNOWN}:
        return ChannelKind.UNKNOWN
    reader = stream.reader
    if reader.state(_MAGIC_SIZE) is State.WAIT:
        return None
    start = reader.peek_at(0, _MAGIC_SIZE)
    magic = int.from_bytes(start)
    if magic == QEMU_VM_FILE_MAGIC:
        return ChannelKind.MAIN
    if len(start) == _MAGIC_SIZE and magic == MULTIFD_MAGIC:
        return ChannelKind.MULTIFD
    if start[:2] == _TLS_HANDSHAKE:
        return ChannelKind.TLS
    is_cut = stream.opening is Opening.SYN and reader.state(_MAGIC_SIZE) is State.GAP
    if stream.opening is Opening.MIDDLE or is_cut:
        return _classify_middle(stream)
    if stream.opening is Opening.SYN:
        return _classify_client(reader)
    # What the listening side says is told by what it answers to, which may be identified later.
    return None


def _classify_client(reader: Reader) -> ChannelKind | None:
    state = reader.state(_WORD_SIZE)
    if state is State.WAIT:
        return None
    if state is State.READY and is_plausible_word(int.from_bytes(reader.peek(_WORD_SIZE))):
        return ChannelKind.PREEMPT
    return ChannelKind.UNKNOWN


def _classify_middle(stream: Stream) -> ChannelKind | None:
    """Search a stream that may have begun before the capture, or whose first bytes it lacks."""
    reader = stream.reader
    found, stream.searched_packet = find_packet(reader, stream.searched_packet)
    if found is not None:
        return ChannelKind.MULTIFD
    framer = MainFramer(reader, ChannelId(0, ChannelKind.MAIN.value))
    found, stream.searched_element = framer.find_element(stream.searched_element)
    if found is not None:
        return ChannelKind.MAIN
    return ChannelKind.UNKNOWN if reader.fed > SEARCH_LIMIT else None
