# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace with some of its items taken out, and a schedule to match.

Where a device packet is taken out, the idx behind it close up: the device's state is shorter, but
there is no hole in it. A hole that was there stays.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from mfdtool.loader.events import (
    Connect,
    Deliver,
    Footer,
    RamRecord,
    SectionPart,
    SectionStart,
)
from mfdtool.schedule.acts import Act, Take
from mfdtool.schedule.schedule import Schedule
from mfdtool.schedule.trace import Lane, Place, Trace, is_sync, packet_of
from mfdtool.wire.constants import RamFlag

if TYPE_CHECKING:
    from mfdtool.loader.recording import Entry

Unit: TypeAlias = tuple[Place, ...]
"""Entries that go together: a packet, or a section with all that is in it."""


def units_of(trace: Trace) -> tuple[Unit, ...]:
    """Give what can be taken out, in the order of arrival; connections stay."""
    units: dict[Place, list[Place]] = {}
    for number, lane in enumerate(trace.lanes):
        for unit in _lane_units(number, lane):
            units[unit[0]] = unit
    counts = [0] * len(trace.lanes)
    ordered = []
    for lane_number in trace.observed:
        found = units.get((lane_number, counts[lane_number]))
        counts[lane_number] += 1
        if found is not None:
            ordered.append(tuple(found))
    return tuple(ordered)


def rounds_of(trace: Trace) -> tuple[Unit, ...]:
    """Give what belongs to each flush: the main stream's record, and a SYNC of every channel.

    One cannot go without the others.
    """
    rounds: dict[int, list[Place]] = {}
    for number, lane in enumerate(trace.lanes):
        found = [(number, place) for place, entry in enumerate(lane.entries) if _is_of_flush(entry)]
        for count, place in enumerate(found):
            rounds.setdefault(count, []).append(place)
    return tuple(tuple(places) for places in rounds.values())


def _is_of_flush(entry: Entry) -> bool:
    event = entry.event
    if isinstance(event, Deliver) and isinstance(event.item, RamRecord):
        return bool(event.item.flags & RamFlag.MULTIFD_FLUSH)
    return is_sync(entry)


def _lane_units(number: int, lane: Lane) -> Iterator[list[Place]]:
    section: list[Place] | None = None
    for place, entry in enumerate(lane.entries):
        event = entry.event
        if isinstance(event, Connect):
            continue
        if isinstance(event.item, SectionStart | SectionPart):
            if section is not None:
                yield section
            section = []
        if section is None:
            yield [(number, place)]
            continue
        section.append((number, place))
        if isinstance(event.item, Footer):
            yield section
            section = None
    if section is not None:
        yield section


@dataclass(frozen=True, slots=True)
class Shrunk:
    """What is left.

    Attributes:
        trace: the items that are left.
        schedule: the order of what is left.
        origin: the place in the original trace of every entry that is left, lane by lane.
        idx: the new idx of packets that have one, by their place in the original trace.
    """

    trace: Trace
    schedule: Schedule
    origin: tuple[tuple[Place, ...], ...]
    idx: dict[Place, int]


def without(trace: Trace, schedule: Schedule, removed: Collection[Place]) -> Shrunk:
    """Take entries out of a trace, and their arrival out of its schedule."""
    gone = set(removed)
    idx = _closed_up(trace, gone)
    lanes = []
    origin = []
    for number, lane in enumerate(trace.lanes):
        places = tuple(
            (number, place) for place in range(len(lane.entries)) if (number, place) not in gone
        )
        entries = tuple(_with_idx(lane.entries[place], idx.get((n, place))) for n, place in places)
        lanes.append(Lane(lane.name, lane.token, entries))
        origin.append(places)
    observed = tuple(
        lane for (lane, place) in _arrivals(trace.observed) if (lane, place) not in gone
    )
    recording = replace(trace.recording, entries=_merged(lanes, observed))
    shrunk = Trace(recording, tuple(lanes), observed)
    acts = None if schedule.acts is None else tuple(_acts(trace, schedule.acts, gone))
    return Shrunk(shrunk, Schedule(shrunk.digest, schedule.pace, acts), tuple(origin), idx)


def _arrivals(observed: Iterable[int]) -> Iterator[Place]:
    counts: dict[int, int] = {}
    for lane in observed:
        place = counts.get(lane, 0)
        counts[lane] = place + 1
        yield lane, place


def _merged(lanes: list[Lane], observed: tuple[int, ...]) -> tuple[Entry, ...]:
    return tuple(lanes[lane].entries[place] for lane, place in _arrivals(observed))


def _closed_up(trace: Trace, gone: set[Place]) -> dict[Place, int]:
    """Give the new idx of the packets that are left and get another one."""
    left: dict[tuple[str, int], dict[Place, int]] = {}
    taken: dict[tuple[str, int], set[int]] = {}
    for place in trace.packets:
        packet = packet_of(trace.entry(*place))
        if packet is None or packet.idx is None:
            continue
        device = packet.idstr, packet.instance_id
        if place in gone:
            taken.setdefault(device, set()).add(packet.idx)
        else:
            left.setdefault(device, {})[place] = packet.idx
    changed: dict[Place, int] = {}
    for device, holes in taken.items():
        places = left.get(device, {})
        closed = sorted(holes - set(places.values()))
        for place, idx in places.items():
            if below := bisect_left(closed, idx):
                changed[place] = idx - below
    return changed


def _with_idx(entry: Entry, idx: int | None) -> Entry:
    if idx is None:
        return entry
    event = entry.event
    packet = packet_of(entry)
    assert isinstance(event, Deliver)
    assert packet is not None
    return replace(entry, event=replace(event, item=replace(packet, idx=idx)))


def _acts(trace: Trace, acts: tuple[Act, ...], gone: set[Place]) -> Iterator[Act]:
    """Give the acts that are about what is left."""
    packets = trace.packets
    numbers: dict[int, int] = {}
    for number, place in enumerate(packets):
        if place not in gone:
            numbers[number] = len(numbers)
    moved = {
        packets[act.packet] for act in acts if isinstance(act, Take) and act.packet is not None
    }
    counts = [0] * len(trace.lanes)
    for act in acts:
        if not isinstance(act, Take):
            yield act
        elif act.packet is not None:
            if act.packet in numbers:
                yield Take(act.lane, numbers[act.packet])
        else:
            lane = trace.by_token[act.lane]
            while (lane, counts[lane]) in moved:
                counts[lane] += 1
            if (lane, counts[lane]) not in gone:
                yield act
            counts[lane] += 1
