# SPDX-License-Identifier: GPL-2.0-or-later
"""Named orders of a trace's device packets.

Everything else keeps its place: it arrives after as many device packets as in the recording. An
order inside a channel is fixed, so what an order wants is done as far as the channels let it,
unless packets may be moved to other channels. A SYNC holds its channel up until every channel has
one, so no packet passes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from mfdtool.errors import ScheduleError
from mfdtool.loader.events import Deliver, End
from mfdtool.schedule.acts import Act, Take
from mfdtool.schedule.schedule import Pace, Schedule
from mfdtool.schedule.trace import Trace, is_sync, packet_of

_NO_IDX: Final = 1 << 32


@dataclass(frozen=True, slots=True)
class Packet:
    """A device packet as orders see it.

    Attributes:
        number: in the order of arrival, from 0.
        lane: the lane that it was recorded on.
        place: its place there.
        epoch: how many SYNCs come before it in its lane.
        device: its device's idstr and instance id.
        idx: its idx, greater than any if it has none.
    """

    number: int
    lane: int
    place: int
    epoch: int
    device: tuple[str, int]
    idx: int
    is_config: bool


Key: TypeAlias = Callable[[Packet], tuple[int, ...]]
"""The packet with the least key is next."""

ORDERS: Final[Mapping[str, Key]] = {
    "in-order": lambda packet: (packet.idx, packet.number),
    "reverse": lambda packet: (-packet.idx, -packet.number),
    "config-first": lambda packet: (not packet.is_config, packet.number),
    "last-first": lambda packet: (-packet.number,),
}
"""Named orders that rank packets; ``recorded`` and ``round-robin`` are the others."""

ROUND_ROBIN: Final = "round-robin"


def packets_of(trace: Trace) -> tuple[Packet, ...]:
    """Give a trace's device packets in the order of arrival."""
    epochs = [0] * len(trace.lanes)
    places = [0] * len(trace.lanes)
    found: list[Packet] = []
    for lane in trace.observed:
        entry = trace.entry(lane, places[lane])
        packet = packet_of(entry)
        if packet is not None:
            idx = packet.idx if packet.idx is not None else _NO_IDX
            device = packet.idstr, packet.instance_id
            found.append(
                Packet(len(found), lane, places[lane], epochs[lane], device, idx, packet.is_config)
            )
        elif is_sync(entry):
            epochs[lane] += 1
        places[lane] += 1
    return tuple(found)


def order(
    trace: Trace, name: str, *, pace: Pace = Pace.OBSERVED, reassign: bool = False
) -> Schedule:
    """Make a schedule by the name of its order.

    Raises:
        ScheduleError: there is no order of that name.
    """
    if name == "recorded":
        return Schedule(trace.digest, pace)
    if name == ROUND_ROBIN:
        merge = _Merge(trace, key=None, reassign=reassign)
    elif name in ORDERS:
        merge = _Merge(trace, key=ORDERS[name], reassign=reassign)
    else:
        raise ScheduleError(f"there is no order {name!r}")
    return Schedule(trace.digest, pace, merge.acts())


class _Merge:
    """Merges lanes, each time with the device packet that an order wants next."""

    def __init__(self, trace: Trace, *, key: Key | None, reassign: bool) -> None:
        self._trace = trace
        self._key = key
        self._reassign = reassign
        self._acts: list[Act] = []
        packets = packets_of(trace)
        self._packets = {(found.lane, found.place): found for found in packets}
        self._slots = [found.lane for found in packets]
        self._places = [0] * len(trace.lanes)
        self._epochs = [0] * len(trace.lanes)
        self._last = -1
        self._pool = deque(sorted(packets, key=self._rank)) if reassign else deque()
        self._positions, self._before = self._survey()

    def _rank(self, packet: Packet) -> tuple[int, ...]:
        rank = self._key(packet) if self._key is not None else (packet.number,)
        return (packet.epoch, *rank)

    def _survey(self) -> tuple[list[list[int]], list[list[int]]]:
        """Tell of each lane's items when they arrived, and how many device packets before them."""
        positions: list[list[int]] = [[] for _ in self._trace.lanes]
        before: list[list[int]] = [[] for _ in self._trace.lanes]
        count = 0
        for position, lane in enumerate(self._trace.observed):
            is_packet = (lane, len(before[lane])) in self._packets
            positions[lane].append(position)
            before[lane].append(count)
            count += is_packet
        return positions, before

    def acts(self) -> tuple[Act, ...]:
        """Merge all lanes."""
        sent = 0
        while True:
            self._pass_others(sent)
            if self._send(sent):
                sent += 1
            elif not self._pass_one():
                return tuple(self._acts)

    # Other items

    def _head(self, lane: int) -> int | None:
        """Give the place of a lane's next item; packets that may move are no part of lanes."""
        place = self._places[lane]
        while self._reassign and (lane, place) in self._packets:
            place += 1
        self._places[lane] = place
        return place if place < len(self._trace.lanes[lane].entries) else None

    def _others(self) -> Iterator[tuple[int, int]]:
        """Give lane and place of each lane's next item, if it is no device packet."""
        for lane in range(len(self._trace.lanes)):
            place = self._head(lane)
            if place is not None and (lane, place) not in self._packets:
                yield lane, place

    def _pass_others(self, sent: int) -> None:
        """Let everything arrive that comes after as many packets as were sent."""
        while ready := [
            (self._positions[lane][place], lane)
            for lane, place in self._others()
            if self._before[lane][place] <= sent and self._may_pass(lane, place)
        ]:
            self._take(min(ready)[1])

    def _may_pass(self, lane: int, place: int) -> bool:
        """Whether no packet that may move has to come before a lane's SYNC or end."""
        if not self._pool or self._trace.lanes[lane].is_main:
            return True
        entry = self._trace.entry(lane, place)
        if is_sync(entry):
            return self._pool[0].epoch > self._epochs[lane]
        return not (isinstance(entry.event, Deliver) and isinstance(entry.event.item, End))

    def _pass_one(self) -> bool:
        """Let the earliest item arrive, whatever it waited for; False if there is none."""
        others = [(self._positions[lane][place], lane) for lane, place in self._others()]
        if others:
            self._take(min(others)[1])
        return bool(others)

    def _take(self, lane: int) -> None:
        place = self._places[lane]
        self._epochs[lane] += is_sync(self._trace.entry(lane, place))
        self._places[lane] = place + 1
        self._acts.append(Take(self._trace.lanes[lane].token))

    # Device packets

    def _send(self, sent: int) -> bool:
        """Send the packet that is wanted next; False if there is none."""
        if not self._reassign:
            packet = self._choose()
            if packet is not None:
                self._last = packet.lane
                self._take(packet.lane)
            return packet is not None
        if self._pool:
            packet = self._pool.popleft()
            lane = self._channel_for(sent)
            self._catch_up(lane, packet.epoch)
            self._acts.append(Take(self._trace.lanes[lane].token, packet.number))
            return True
        return False

    def _catch_up(self, lane: int, epoch: int) -> None:
        """Let a lane's items arrive up to the SYNC that a packet comes behind."""
        while self._epochs[lane] < epoch and (place := self._head(lane)) is not None:
            event = self._trace.entry(lane, place).event
            if isinstance(event, Deliver) and isinstance(event.item, End):
                return
            self._take(lane)

    def _choose(self) -> Packet | None:
        """Choose among the packets that their channels let through."""
        heads = ((lane, self._head(lane)) for lane in range(len(self._trace.lanes)))
        found = [
            self._packets[lane, place]
            for lane, place in heads
            if place is not None and (lane, place) in self._packets
        ]
        if self._key is not None:
            return min(found, key=self._key, default=None)
        lanes = len(self._trace.lanes)
        return min(found, key=lambda packet: (packet.lane - self._last - 1) % lanes, default=None)

    def _channel_for(self, sent: int) -> int:
        """Choose where a packet that may move goes: to the slot's channel, or to all in turn."""
        if self._key is not None:
            return self._slots[sent]
        lanes = sorted(set(self._slots))
        return lanes[sent % len(lanes)]
