# SPDX-License-Identifier: GPL-2.0-or-later
"""What a trace tells before anything has happened: which packets can still come from a place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from mfdtool.loader.device import array_size
from mfdtool.loader.events import (
    Body,
    Command,
    Configuration,
    Deliver,
    DevicePacket,
    FileHeader,
    Footer,
    Marker,
    RamRecord,
    SectionPart,
    SectionStart,
)
from mfdtool.schedule.trace import is_sync, packet_of
from mfdtool.wire.constants import Command as CommandNumber
from mfdtool.wire.constants import RamFlag, VFIOMarker

if TYPE_CHECKING:
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.recording import Entry
    from mfdtool.schedule.trace import Lane, Trace

UNKNOWN_DEVICE: Final = -1
"""Stands for a device that the destination does not have."""

_PLAIN: Final = (SectionStart, SectionPart, Footer, Body, FileHeader, Configuration)
"""Items by which the main thread changes nothing but where it is itself."""

_NOBODY: Final[frozenset[int]] = frozenset()
_HARMLESS_MARKERS: Final = frozenset(
    {
        VFIOMarker.END_OF_STATE,
        VFIOMarker.DEV_SETUP_STATE,
        VFIOMarker.DEV_INIT_DATA_SENT,
        VFIOMarker.DEV_CONFIG_LOAD_READY,
    }
)


class Statics:
    """Facts about a trace and a destination.

    Attributes:
        is_regular: whether a device's packets can come in any order: there is one config packet at
            most, all data is below it, no idx comes twice, and the main stream does not disturb.
        idxs: those of each device's packets, the highest first: low ones are soon loaded.
        is_calm: whether neither the queue's limit nor the memory can be reached.
    """

    def __init__(self, trace: Trace, destination: Destination) -> None:
        self._destination = destination
        self._all: list[tuple[frozenset[int], ...]] = []
        self._epoch: list[tuple[frozenset[int], ...]] = []
        self._packets: list[tuple[bool, ...]] = []
        self._counts: list[tuple[int, ...]] = []
        for lane in trace.lanes:
            everything, epoch = self._survey(lane)
            self._all.append(everything)
            self._epoch.append(epoch)
            is_packet = tuple(packet_of(entry) is not None for entry in lane.entries)
            self._packets.append(is_packet)
            self._counts.append((0, *accumulate(is_packet)))
        main = next((lane for lane in trace.lanes if lane.is_main), None)
        entries = main.entries if main is not None else ()
        self._plain = tuple(_is_plain(entry) for entry in entries)
        kinds = RamFlag.MULTIFD_FLUSH | (RamFlag.EOS if destination.flushes_each_section else 0)
        self._flushes = tuple(_is_record(entry, kinds) for entry in entries)
        self._last_write, switched = _disturbances(main)
        packets = self._packets_by_device(trace)
        self.idxs = tuple(
            sorted({packet.idx for packet in found if packet.idx is not None}, reverse=True)
            for found in packets
        )
        self.is_regular = tuple(not switched and _is_regular(found) for found in packets)
        self.is_calm = _is_calm(packets, destination)

    def is_packet(self, lane: int, place: int) -> bool:
        """Whether there is a device packet at a place of a lane."""
        return self._packets[lane][place]

    def packets_before(self, lane: int, place: int) -> int:
        """Count the device packets before a place of a lane."""
        return self._counts[lane][place]

    def devices_from(self, lane: int, place: int) -> frozenset[int]:
        """Give the devices that packets are for from a place of a lane on."""
        return self._all[lane][place]

    def devices_before_sync(self, lane: int, place: int) -> frozenset[int]:
        """Give the devices that packets are for from a place of a lane to its next SYNC."""
        return self._epoch[lane][place]

    def main_writes_from(self, place: int) -> bool:
        """Whether the main thread may meddle with a load thread from a place of its stream on."""
        return place <= self._last_write

    def is_plain(self, place: int) -> bool:
        """Whether what the main thread makes of an item depends on nobody else."""
        return place < len(self._plain) and self._plain[place]

    def may_flush(self, place: int) -> bool:
        """Whether the main thread may begin a flush by an item."""
        return self._flushes[place]

    def _survey(self, lane: Lane) -> tuple[tuple[frozenset[int], ...], tuple[frozenset[int], ...]]:
        everything, epoch = [_NOBODY], [_NOBODY]
        for entry in reversed(lane.entries):
            packet = packet_of(entry)
            found = _NOBODY if packet is None else frozenset({self._number(packet)})
            everything.append(everything[-1] | found)
            epoch.append(_NOBODY if is_sync(entry) else epoch[-1] | found)
        return tuple(reversed(everything)), tuple(reversed(epoch))

    def _number(self, packet: DevicePacket) -> int:
        number = self._destination.device_named(packet.idstr, packet.instance_id)
        return UNKNOWN_DEVICE if number is None else number

    def _packets_by_device(self, trace: Trace) -> list[list[DevicePacket]]:
        packets: list[list[DevicePacket]] = [[] for _ in self._destination.devices]
        for lane, place in trace.packets:
            packet = packet_of(trace.entry(lane, place))
            assert packet is not None
            number = self._number(packet)
            if number != UNKNOWN_DEVICE and packet.idx is not None:
                packets[number].append(packet)
        return packets


def _is_plain(entry: Entry) -> bool:
    event = entry.event
    if not isinstance(event, Deliver):
        return False
    item = event.item
    if isinstance(item, RamRecord):
        return not item.flags & (RamFlag.MULTIFD_FLUSH | RamFlag.EOS)
    if isinstance(item, Marker):
        return item.marker == VFIOMarker.END_OF_STATE
    return isinstance(item, _PLAIN)


def _is_record(entry: Entry, kinds: int) -> bool:
    event = entry.event
    item = event.item if isinstance(event, Deliver) else None
    return isinstance(item, RamRecord) and bool(item.flags & kinds)


def _disturbances(main: Lane | None) -> tuple[int, bool]:
    """Give the last place of a main stream that touches devices, and whether it disturbs threads.

    It does if SWITCHOVER_START comes twice, or data behind it.
    """
    last, switchovers, disturbs = -1, 0, False
    for place, entry in enumerate(main.entries if main is not None else ()):
        item = entry.event.item if isinstance(entry.event, Deliver) else None
        if isinstance(item, Command) and item.cmd == CommandNumber.SWITCHOVER_START:
            switchovers += 1
            last = place
        elif isinstance(item, Marker) and item.marker not in _HARMLESS_MARKERS:
            disturbs |= switchovers > 0
            last = place
        elif isinstance(item, Marker) and item.marker == VFIOMarker.DEV_CONFIG_LOAD_READY:
            last = place
    return last, disturbs or switchovers > 1


def _is_regular(packets: Sequence[DevicePacket]) -> bool:
    configs = [packet.idx for packet in packets if packet.is_config]
    idxs = [packet.idx for packet in packets if packet.idx is not None]
    if len(set(idxs)) < len(idxs) or len(configs) > 1:
        return False
    return not configs or configs[0] == max(idxs)


def _is_calm(packets: Sequence[Sequence[DevicePacket]], destination: Destination) -> bool:
    total = 0
    for found in packets:
        size = sum(packet.data.length for packet in found)
        if size > destination.max_queued:
            return False
        total += size + array_size(1 + max((packet.idx or 0 for packet in found), default=-1))
    return total <= destination.memory
