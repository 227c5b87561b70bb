# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording as lanes: what an order may permute, and what it may not.

A lane is a connection with its items in the order in which they were sent, which TCP keeps. What a
schedule decides is how lanes are merged, and how fast load threads are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import Final, TypeAlias

from mfdtool.loader.events import (
    MAIN,
    Command,
    Connect,
    Deliver,
    DevicePacket,
    Footer,
    Handshake,
    Marker,
    RamPacket,
    RamRecord,
    SectionPart,
    SectionStart,
)
from mfdtool.loader.recording import Entry, Recording

Place: TypeAlias = tuple[int, int]
"""A lane's number, and the number of an entry in it."""

DIGEST_SIZE: Final = 6
"""Bytes of a trace's digest: enough to tell a mix-up, short enough to paste."""

_HEAD: Final = 64
_MAIN_TOKEN: Final = "m"
_SHORT: Final = (("multifd-", ""), ("unknown-", "u"), ("tls-", "t"), ("preempt-", "p"))


@dataclass(frozen=True, slots=True)
class Lane:
    """A connection.

    Attributes:
        name: as ``decode`` shows the channel.
        token: the same in a schedule's text: ``m``, ``0``, ``?1``, ``u0``.
        entries: what arrives on it, the connection itself first.
    """

    name: str
    token: str
    entries: tuple[Entry, ...]

    @property
    def is_main(self) -> bool:
        """Whether it is the main channel."""
        return self.token == _MAIN_TOKEN


@dataclass(frozen=True)
class Trace:
    """A recording, lane by lane.

    Attributes:
        recording: where it comes from.
        lanes: in the order in which they connect.
        observed: the lane of each entry, in the order of arrival.
    """

    recording: Recording
    lanes: tuple[Lane, ...]
    observed: tuple[int, ...]

    @cached_property
    def digest(self) -> str:
        """What names the trace: it depends on every item, its channel and its order there.

        The order of arrival and the times take no part in it: all captures of the same bytes have
        the same schedules.
        """
        digest = blake2b(digest_size=DIGEST_SIZE)
        for lane in sorted(self.lanes, key=lambda lane: lane.name):
            digest.update(repr(lane.name).encode())
            for entry in lane.entries:
                digest.update(repr(_essence(entry)).encode())
        return digest.hexdigest()

    @cached_property
    def packets(self) -> tuple[Place, ...]:
        """The device packets in the order of arrival: lane, and place in the lane."""
        counts = [0] * len(self.lanes)
        found = []
        for lane in self.observed:
            if packet_of(self.lanes[lane].entries[counts[lane]]) is not None:
                found.append((lane, counts[lane]))
            counts[lane] += 1
        return tuple(found)

    @cached_property
    def by_token(self) -> dict[str, int]:
        """Lanes by their tokens."""
        return {lane.token: number for number, lane in enumerate(self.lanes)}

    def entry(self, lane: int, place: int) -> Entry:
        """Give what is at a place of a lane."""
        return self.lanes[lane].entries[place]


def trace_of(recording: Recording) -> Trace:
    """Sort a recording's entries into lanes."""
    lanes: dict[str, list[Entry]] = {}
    for entry in recording.entries:
        lanes.setdefault(entry.channel, []).append(entry)
    names = list(lanes)
    numbers = {name: number for number, name in enumerate(names)}
    return Trace(
        recording,
        tuple(Lane(name, token_of(name), tuple(lanes[name])) for name in names),
        tuple(numbers[entry.channel] for entry in recording.entries),
    )


def token_of(name: str) -> str:
    """Shorten a channel's name for a schedule's text."""
    for prefix, short in _SHORT:
        if name.startswith(prefix):
            return short + name.removeprefix(prefix)
    return _MAIN_TOKEN if name == MAIN.kind.value else name


def packet_of(entry: Entry) -> DevicePacket | None:
    """Give the device packet that an entry delivers; None if it delivers something else."""
    event = entry.event
    if isinstance(event, Deliver) and isinstance(event.item, DevicePacket):
        return event.item
    return None


def is_sync(entry: Entry) -> bool:
    """Whether an entry is a SYNC packet, which holds its channel up until all have one."""
    event = entry.event
    return isinstance(event, Deliver) and isinstance(event.item, RamPacket) and event.item.is_sync


def _essence(entry: Entry) -> tuple[object, ...]:
    """Give what tells an entry from others, in values that no later version writes differently.

    Neither when it arrived takes part in it, nor which connection was first.
    """
    event = entry.event
    item = event.first if isinstance(event, Connect) else event.item
    essence: tuple[object, ...] = ()
    if isinstance(item, Handshake):
        essence = (item.id, item.magic, item.version, item.uuid)
    elif isinstance(item, RamPacket):
        essence = (item.flags, item.packet_num, item.normal_pages, item.zero_pages)
    elif isinstance(item, DevicePacket):
        essence = (item.idstr, item.instance_id, item.packet_flags, item.next_packet_size)
        essence += (item.version, item.idx, item.flags, item.data.head(_HEAD))
    elif isinstance(item, Marker):
        essence = (item.marker, item.following, item.data.length, item.data.head(_HEAD))
    elif isinstance(item, Command):
        essence = (item.cmd, item.length, item.value)
    elif isinstance(item, SectionStart):
        essence = (item.type, item.section_id, item.idstr, item.instance_id, item.version_id)
    elif isinstance(item, SectionPart | Footer):
        essence = (item.section_id,)
    elif isinstance(item, RamRecord):
        essence = (item.flags, item.addr)
    return (type(item).__name__, entry.offset, *(_plain(value) for value in essence))


def _plain(value: object) -> object:
    return int(value) if isinstance(value, int) else value
