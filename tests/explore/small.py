# SPDX-License-Identifier: GPL-2.0-or-later
"""Small migrations, right and wrong, and the search that knows no tricks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from mfdtool.explore.classes import OutcomeClass
from mfdtool.explore.space import Node, Space
from mfdtool.loader.blob import blob_of
from mfdtool.loader.destination import Destination, DeviceSpec
from mfdtool.loader.events import (
    Configuration,
    Connect,
    Deliver,
    DevicePacket,
    End,
    Eof,
    FileHeader,
    Footer,
    Handshake,
    MainItem,
    Marker,
    MultiFDItem,
    RamPacket,
    SectionPart,
    SectionStart,
    VmDescription,
)
from mfdtool.loader.recording import Entry, Recording
from mfdtool.schedule.trace import Trace, trace_of
from mfdtool.stream.span import EndReason
from mfdtool.wire.constants import SectionType, VFIOMarker
from mfdtool.wire.profile import PROFILES
from tests.support.playbook import (
    DEVICE,
    END_OF_STATE,
    EOS,
    FLUSH,
    MACHINE,
    SWITCHOVER,
    SYNC,
    packet,
)

Lanes: TypeAlias = list[list[MultiFDItem]]

DEVICES: Final = (DEVICE, "0000:00:06.0/vfio")


def small_trace(
    main: Sequence[MainItem],
    lanes: Sequence[Sequence[MultiFDItem]],
) -> Trace:
    """Make a trace of these items."""
    entries = [Entry(Connect(FileHeader()), "main", 0)]
    entries += [
        Entry(Connect(Handshake(number)), f"multifd-{number}", 0) for number in range(len(lanes))
    ]
    entries += [Entry(Deliver(None, item), "main", n) for n, item in enumerate(main, 1)]
    for number, items in enumerate(lanes):
        entries += [
            Entry(Deliver(number, item), f"multifd-{number}", n) for n, item in enumerate(items, 1)
        ]
    names = tuple(f"multifd-{number}" for number in range(len(lanes)))
    return trace_of(Recording(entries=tuple(entries), names=names))


def good_main(*, flushes: int = 0) -> list[MainItem]:
    """Give a good main stream, as short as it can be; the first flush ends the setup."""
    items: list[MainItem] = [FileHeader(), Configuration(MACHINE), SectionStart(0, "ram", 0, 4)]
    items += [FLUSH, EOS, Footer(0), SWITCHOVER]
    for _ in range(flushes):
        items += [SectionPart(0), FLUSH, EOS, Footer(0)]
    return [*items, Eof(), VmDescription()]


def destination(lanes: int, devices: int = 1, **changes: Any) -> Destination:
    """Give a destination for a small trace."""
    specs = tuple(DeviceSpec(idstr=name) for name in DEVICES[:devices])
    return Destination(devices=specs, channels=lanes, machine=MACHINE, **changes)


class Dice:
    """Makes small migrations, some of them wrong in one way or another."""

    def __init__(self, rng: random.Random, *, packets: int, lanes: int) -> None:
        self._rng = rng
        self._packets = rng.randint(1, packets)
        self._lanes = rng.randint(1, lanes)
        self._devices = rng.randint(1, 2)
        self._late = rng.random() < 0.2
        self._is_early = rng.random() < 0.1
        """Whether device packets can come while the destination sets its devices up."""

    def draw(self) -> tuple[Trace, Destination]:
        """Make one."""
        flushes = self._rng.choice([0, 0, 1, 1])
        lanes: Lanes = [[] for _ in range(self._lanes)]
        found = self._device_packets()
        cut = self._rng.randint(0, len(found)) if flushes else len(found)
        for item in found[:cut]:
            self._rng.choice(lanes).append(item)
        for lane in lanes:
            lane += [SYNC] * flushes
            if flushes and self._rng.random() < 0.05:
                lane.pop()
        for item in found[cut:]:
            self._rng.choice(lanes).append(item)
        for lane in lanes:
            if self._rng.random() < 0.1:
                lane.insert(self._rng.randint(0, len(lane)), RamPacket())
            if self._rng.random() < 0.08:
                lane.insert(self._rng.randint(0, len(lane)), RamPacket(normal_pages=1))
            if self._rng.random() < 0.3:
                reason = self._rng.choice([EndReason.FIN, EndReason.FIN, EndReason.RST])
                lane.append(End(reason))
        made = destination(
            self._lanes,
            self._devices,
            profile=PROFILES["10.2"],
            config_after_iter=self._late,
            **self._limits(),
        )
        if not self._is_early:
            lanes = [[SYNC, *lane] for lane in lanes]
        return small_trace(self._main(flushes), lanes), made

    def _limits(self) -> dict[str, Any]:
        return {"max_queued": 600} if self._rng.random() < 0.1 else {}

    def _device_packets(self) -> list[DevicePacket]:
        packets: list[DevicePacket] = []
        left = self._packets
        for number in range(self._devices):
            count = left if number == self._devices - 1 else self._rng.randint(0, left)
            left -= count
            packets += [
                packet(idx, config=idx == count - 1, idstr=DEVICES[number]) for idx in range(count)
            ]
        for _ in range(self._rng.choice([0, 0, 1, 1, 2])):
            self._spoil(packets)
        self._rng.shuffle(packets)
        return packets

    def _spoil(self, packets: list[DevicePacket]) -> None:
        """Make a mistake."""
        if not packets:
            return
        at = self._rng.randrange(len(packets))
        victim = packets[at]
        idx, is_config = victim.idx or 0, victim.is_config
        kind = self._rng.randrange(5)
        if kind == 0:
            packets.pop(at)
        elif kind == 1:
            packets.append(victim)
        elif kind == 2:
            idx = self._rng.randrange(4)
            packets[at] = packet(idx, config=is_config, idstr=victim.idstr)
        elif kind == 3:
            packets[at] = packet(idx, config=not is_config, idstr=victim.idstr)
        else:
            packets[at] = packet(idx, config=is_config, idstr=self._rng.choice(["ram", "no/vfio"]))

    def _main(self, flushes: int) -> list[MainItem]:
        rng = self._rng
        items: list[MainItem] = [FileHeader(), Configuration(MACHINE)]
        if not self._is_early:
            items += [SectionStart(0, "ram", 0, 4), FLUSH, EOS, Footer(0)]
        data: list[MainItem] = [
            SectionStart(1, DEVICE),
            Marker(VFIOMarker.DEV_DATA_STATE, blob_of(b"data")),
            END_OF_STATE,
            Footer(1),
        ]
        if rng.random() < 0.2:
            items += data
        for _ in range(rng.choice([1] * 8 + [0, 2])):
            items.append(SWITCHOVER)
            if rng.random() < 0.1:
                items += data
        for _ in range(flushes + (rng.random() < 0.05)):
            items += [SectionStart(0, "ram", 0, 4), FLUSH, EOS, Footer(0)]
        if self._late and rng.random() < 0.9:
            ready = Marker(VFIOMarker.DEV_CONFIG_LOAD_READY)
            for number in range(self._devices):
                start = SectionStart(1 + number, DEVICES[number], type=SectionType.FULL)
                items += [start, ready, Footer(1 + number)]
        if rng.random() < 0.95:
            items.append(Eof())
        if rng.random() < 0.9:
            items += [VmDescription()]
        return items


def all_classes(space: Space) -> tuple[set[OutcomeClass], int]:
    """Find the classes of all runs, and the deepest queue; each state is looked at once."""
    classes: set[OutcomeClass] = set()
    deepest = 0
    node, _ = space.start()
    pending, seen = [node], {node}
    while pending:
        node = pending.pop()
        deepest = max([deepest, *(device.queued for device in node.state.devices)])
        moves = space.moves(node)
        if not moves:
            classes.add(space.verdict(node))
        for move in moves:
            after = space.after(node, move)
            if after not in seen:
                seen.add(after)
                pending.append(after)
    return classes, deepest


def prepared(space: Space) -> Node:
    """Let the setup be over, and everybody be in front of what matters.

    That is SWITCHOVER_START on the main channel (the end if there is none), and on the others what
    follows the first SYNC.
    """
    node, _ = space.start()
    main = len(space.trace.lanes[0].entries)
    for number, entry in enumerate(space.trace.lanes[0].entries):
        if isinstance(entry.event, Deliver) and entry.event.item in (SWITCHOVER, Eof()):
            main = min(main, number)
    places = [main, *(2 for _ in space.trace.lanes[1:])]
    while moves := [
        move
        for move in space.moves(node)
        if move >= len(places) or node.places[move] < places[move]
    ]:
        node = space.after(node, moves[0])
    return node


def all_runs(space: Space, start: Node) -> dict[tuple[int, ...], set[OutcomeClass]]:
    """Make every run from a node, one after the other; give the ends of each order."""
    orders: dict[tuple[int, ...], set[OutcomeClass]] = {}
    pending: list[tuple[Node, tuple[int, ...]]] = [(start, ())]
    while pending:
        node, order = pending.pop()
        moves = space.moves(node)
        if not moves:
            orders.setdefault(order, set()).add(space.verdict(node))
        for move in moves:
            longer = (*order, move) if space.is_packet(node, move) else order
            pending.append((space.after(node, move), longer))
    return orders


def tiny(rng: random.Random) -> tuple[Trace, Destination]:
    """Make a migration that is small enough for :func:`all_runs`."""
    lanes: Lanes = [[SYNC] for _ in range(rng.randint(1, 2))]
    count = rng.randint(1, 3)
    for idx in range(count):
        flag = idx == count - 1 if rng.random() < 0.8 else rng.random() < 0.5
        idx = idx if rng.random() < 0.8 else rng.randrange(3)
        lane = rng.choice(lanes)
        lane.insert(rng.randint(1, len(lane)), packet(idx, config=flag))
    main = good_main()
    if rng.random() < 0.2:
        main.remove(SWITCHOVER)
    return small_trace(main, lanes), destination(len(lanes))
