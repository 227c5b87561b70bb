# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries faults out: on bytes, which are then decoded as if they had been captured.

So a fault has all its consequences. A longer ``next_packet_size``, say, makes the destination take
the next packet for payload.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple

from mfdtool.errors import ScheduleError
from mfdtool.schedule.acts import Act, Take
from mfdtool.schedule.faults import (
    Corrupt,
    Disconnect,
    Drop,
    Duplicate,
    Fault,
    Hold,
    SetField,
    Truncate,
)
from mfdtool.schedule.observation import Observation
from mfdtool.schedule.schedule import Arrival, Schedule
from mfdtool.schedule.set_field import with_field
from mfdtool.stream.connections import FlowEvent, Opened, Window
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.main import MainFramer
from mfdtool.stream.migration import Decoder
from mfdtool.stream.multifd import MultiFDFramer
from mfdtool.stream.span import End, EndReason, Gap, Run, Span, run_of

if TYPE_CHECKING:
    from mfdtool.loader.events import Event
    from mfdtool.schedule.address import Address
    from mfdtool.schedule.trace import Trace
    from mfdtool.stream.channel import Channel
    from mfdtool.wire.vmdesc import VmDescription

_NOT_CAPTURED: Final = "not captured"


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of a frame, or bytes that nobody has, and when they arrived."""

    data: memoryview | None
    length: int
    record: int
    time_ns: int


class _Guest(NamedTuple):
    """A copy that arrives on another channel, and what it precedes there; None for nothing."""

    frame: Frame
    before: Frame | None


def apply(observation: Observation, faults: Iterable[Fault]) -> Observation:
    """Give what would have been captured with these faults; ``Hold`` is left to :func:`hold`.

    Raises:
        ScheduleError: a fault is about a packet that is not there, or cannot be made.
    """
    edits = _Edits(observation, faults)
    return edits.result() if edits.is_any else observation


def check_together(observation: Observation, faults: Sequence[Fault]) -> None:
    """Check that no fault is made void by others; ``Hold`` is left to :func:`hold`.

    Raises:
        ScheduleError: one could as well be left out, or :func:`apply` would raise it.
    """
    made = [fault for fault in faults if not isinstance(fault, Hold)]
    if len(made) < 2:
        return
    sent = _Edits(observation, made).sent()
    for place, fault in enumerate(made):
        try:
            same = _Edits(observation, made[:place] + made[place + 1 :]).sent() == sent
        except ScheduleError:
            continue  # The others need it.
        if same:
            raise ScheduleError(f"{fault}: with the other faults it changes nothing")


def hold(
    schedule: Schedule, trace: Trace, observation: Observation, holds: Iterable[Hold]
) -> Schedule:
    """Let packets wait for others, and with them what is behind them in their channels.

    A packet that the schedule moves waits in the channel that it is moved to. ``observation`` is
    the one that ``trace`` was made of.

    Raises:
        ScheduleError: a packet is not there, or would wait for itself.
    """
    waits = [_wait_of(fault, trace, observation) for fault in holds]
    if not waits:
        return schedule
    waiting = _Waiting(waits)
    acts = [act for arrival in schedule.arrivals(trace) for act in waiting.let(arrival)]
    waiting.check()
    return replace(schedule, acts=tuple(acts))


class _Edits:
    """Collects what happens to each frame, then makes the streams anew."""

    def __init__(self, observation: Observation, faults: Iterable[Fault]) -> None:
        self._observation = observation
        self._changed: dict[int, bytes] = {}
        self._dropped: set[int] = set()
        self._copies: dict[int, list[str | None]] = {}
        self._ends: dict[str, tuple[Frame, Disconnect]] = {}
        self.is_any = False
        for fault in faults:
            self._add(fault)

    def _add(self, fault: Fault) -> None:
        if isinstance(fault, Hold):
            return
        self.is_any = True
        frame = fault.address.resolve(self._observation)
        if isinstance(fault, Drop):
            self._dropped.add(id(frame))
        elif isinstance(fault, Duplicate):
            self._copy(frame, fault.channel)
        elif isinstance(fault, Disconnect):
            known = self._ends.get(frame.channel.name)
            if known is None or frame.offset < known[0].offset:
                self._ends[frame.channel.name] = frame, fault
        else:
            self._change(frame, fault)

    def _copy(self, frame: Frame, channel: str | None) -> None:
        if channel is not None and channel not in self._observation.by_channel:
            raise ScheduleError(f"there is no channel {channel}")
        self._copies.setdefault(id(frame), []).append(channel)

    def _change(self, frame: Frame, fault: Corrupt | Truncate | SetField) -> None:
        data = self._changed.get(id(frame))
        if data is None:
            data = _bytes_of(frame)
        if isinstance(fault, SetField):
            data = with_field(frame, data, fault.field, fault.value)
        elif isinstance(fault, Truncate):
            _check_inside(fault.length, 0, data, fault)
            data = data[: fault.length]
        else:
            _check_inside(fault.offset, fault.length, data, fault)
            stop = fault.offset + fault.length
            bad = fault.data
            if bad is None:
                bad = bytes(byte ^ 0xFF for byte in data[fault.offset : stop])
            data = data[: fault.offset] + bad + data[stop:]
        self._changed[id(frame)] = data

    def result(self) -> Observation:
        """Decode the changed streams."""
        before = self._observation
        channels = before.migration.channels
        decoder = Decoder(
            page_size=_page_size(channels),
            description=_description(channels),
            keep_extents=True,
            is_single=True,
        )
        guests = self._guests()
        events: list[FlowEvent] = []
        last = 0
        for channel in channels:
            visitors = guests.get(channel.name, ())
            if channel.stream.key is None:
                data = b"".join(piece.data or b"" for piece in self._pieces(channel, visitors))
                decoder.add(channel.kind, run_of(data))
                continue
            found = list(self._events(channel, visitors))
            events += (FlowEvent(channel.stream.number, event) for event in found)
            last = max([last, *(_record_of(event) for event in found)])
        frames = decoder.feed(Window(tuple(events), last, None)) + decoder.finish()
        if not decoder.migrations:
            raise ScheduleError("with these faults nothing is left of the migration")
        (migration,) = decoder.migrations
        kept = tuple(
            replace(frame, channel=replace(frame.channel, migration=before.migration.index))
            for frame in frames
        )
        migration.index = before.migration.index
        return Observation(migration, kept)

    def sent(self) -> dict[str, list[int | bytes | bool]]:
        """Tell what the channels carry: frames as they were, bytes of changed ones, own ends."""
        guests = self._guests()
        sent: dict[str, list[int | bytes | bool]] = {}
        for name in self._observation.by_channel:
            frames = [id(frame) for frame, _ in self._sent(name, guests.get(name, ()))]
            sent[name] = [self._changed.get(frame, frame) for frame in frames]
            if cut := self._ends.get(name):
                sent[name].append(cut[1].reset)
        return sent

    def _guests(self) -> dict[str, list[_Guest]]:
        """Give the copies that arrive on other channels, by channel."""
        guests: dict[str, list[_Guest]] = {}
        for frame in self._observation.frames:
            for channel in self._copies.get(id(frame), ()):
                if channel is not None:
                    there = self._observation.by_channel[channel]
                    after = next((other for other in there if _is_later(other, frame)), None)
                    guests.setdefault(channel, []).append(_Guest(frame, after))
        return guests

    def _events(
        self, channel: Channel, guests: Sequence[_Guest]
    ) -> Iterator[Opened | Run | Gap | End]:
        """Give what is captured of a channel."""
        stream = channel.stream
        assert stream.key is not None
        yield Opened(stream.key, stream.opening, stream.record, stream.time_ns)
        position = 0
        for piece in self._pieces(channel, guests):
            stop = position + piece.length
            if not piece.length:
                continue
            if piece.data is None:
                yield Gap(position, stop, _NOT_CAPTURED)
            else:
                run = run_of(piece.data, start=position, record=piece.record, time_ns=piece.time_ns)
                yield run
            position = stop
        end = stream.end
        if cut := self._ends.get(channel.name):
            frame, fault = cut
            reason = EndReason.RST if fault.reset else EndReason.FIN
            end = End(position, reason, frame.record, frame.time_last)
        if end is not None:
            # With copies behind all else it ends later.
            late = [guest.frame for guest in guests if guest.before is None and not cut]
            record = max([end.record, *(frame.record for frame in late)])
            time_ns = max([end.time_ns, *(frame.time_last for frame in late)])
            yield End(position, end.reason, record, time_ns)

    def _pieces(self, channel: Channel, guests: Sequence[_Guest]) -> Iterator[_Piece]:
        length = channel.stream.length
        frames = self._observation.by_channel.get(channel.name, ())
        holed = [Span(each.offset, each.end) for each in frames if _is_holed(each)]
        for frame, before in self._sent(channel.name, guests):
            if frame.kind is Kind.GAP:
                rest = min(frame.end, length) - _outside(holed, frame.offset)
                yield _Piece(None, max(rest, 0), frame.record, frame.time_last)
            else:
                is_guest = frame.channel.name != channel.name
                yield from self._pieces_of(frame, frame.end if is_guest else length, before=before)

    def _sent(self, channel: str, guests: Sequence[_Guest]) -> Iterator[tuple[Frame, Frame | None]]:
        """Give the frames that are sent on a channel; copies from elsewhere with what follows."""
        cut = self._ends.get(channel)
        for frame in self._observation.by_channel.get(channel, ()):
            yield from (guest for guest in guests if guest.before is frame)
            if id(frame) not in self._dropped:
                copies = self._copies.get(id(frame), ())
                yield from [(frame, None)] * (1 + copies.count(None))
            if cut is not None and cut[0] is frame:
                return
        yield from (guest for guest in guests if guest.before is None)

    def _pieces_of(self, frame: Frame, length: int, *, before: Frame | None) -> Iterator[_Piece]:
        """Give a frame's bytes; a copy arrives before ``before`` does."""
        record, time_ns = frame.record, frame.time_last
        if before is not None:
            record, time_ns = min(record, before.record), min(time_ns, before.time_last)
        changed = self._changed.get(id(frame))
        if changed is not None:
            yield _Piece(memoryview(changed), len(changed), record, time_ns)
            return
        position = frame.offset
        for extent in frame.extents:
            if extent.start > position:
                yield _Piece(None, extent.start - position, record, time_ns)
            yield _Piece(extent.view, len(extent.view), record, time_ns)
            position = extent.start + len(extent.view)
        stop = min(frame.end, length)
        if position < stop:
            yield _Piece(None, stop - position, record, time_ns)


def _bytes_of(frame: Frame) -> bytes:
    data = frame.data()
    if frame.missing or len(data) < frame.length:
        name = f"{frame.channel.name}#{frame.number}"
        raise ScheduleError(f"{name} is not whole in the capture, so it cannot be changed")
    return data


def _check_inside(offset: int, length: int, data: bytes, fault: Fault) -> None:
    if offset + length > len(data):
        raise ScheduleError(f"{fault}: the packet has only {len(data)} bytes")


def _is_holed(frame: Frame) -> bool:
    """Whether it is a packet that lacks bytes; there is a frame for the gap, too."""
    return bool(frame.missing) and frame.kind is not Kind.GAP


def _outside(holed: Sequence[Span], offset: int) -> int:
    """Give the first position from ``offset`` on that is not in a packet."""
    at = bisect_right(holed, offset, key=attrgetter("start"))
    return max(offset, holed[at - 1].stop) if at else offset


def _is_later(frame: Frame, other: Frame) -> bool:
    return (frame.record, frame.time_last) > (other.record, other.time_last)


def _record_of(event: Opened | Run | Gap | End) -> int:
    if isinstance(event, Run):
        return int(event.records[-1])
    return event.record if isinstance(event, Opened | End) else 0


def _page_size(channels: list[Channel]) -> int | None:
    """Give the page size that the streams told; faults do not change the source's pages."""
    for channel in channels:
        framer = channel.framer
        if isinstance(framer, MainFramer | MultiFDFramer) and framer.page_size:
            return framer.page_size
    return None


def _description(channels: list[Channel]) -> VmDescription | None:
    """Give the vmdescription, which faults may cut off."""
    for channel in channels:
        if isinstance(channel.framer, MainFramer):
            return channel.framer.description
    return None


# Waiting.


@dataclass(frozen=True, slots=True)
class _Wait:
    """A hold, with the events of its two packets, which stay the same wherever they are moved."""

    fault: Hold
    event: Event
    until: Event


class _Next(NamedTuple):
    """An act that makes an event happen."""

    act: Act
    event: Event


class _Waiting:
    """Holds packets back until those that they wait for have arrived."""

    def __init__(self, waits: Sequence[_Wait]) -> None:
        self._waits: dict[int, list[_Wait]] = {}
        for wait in waits:
            self._waits.setdefault(id(wait.event), []).append(wait)
        self._wanted = {id(wait.until) for wait in waits}
        self._queues: dict[str, deque[_Next]] = {}
        self._lanes: dict[int, str] = {}
        self._arrived: set[int] = set()

    def let(self, arrival: Arrival) -> Iterator[Act]:
        """Give what can happen now that an act would be next."""
        act, entry = arrival
        if not isinstance(act, Take) or entry is None:
            yield act
            return
        self._lanes[id(entry.event)] = act.lane
        self._queues.setdefault(act.lane, deque()).append(_Next(act, entry.event))
        lanes = deque([act.lane])
        while lanes:
            queue = self._queues[lanes.popleft()]
            while queue and not self._is_held(queue[0].event):
                arrived = queue.popleft()
                yield arrived.act
                self._arrived.add(id(arrived.event))
                if id(arrived.event) in self._wanted:
                    lanes.extend(lane for lane, held in self._queues.items() if held)

    def _is_held(self, event: Event) -> bool:
        return any(self._is_on(wait) for wait in self._waits.get(id(event), ()))

    def _is_on(self, wait: _Wait) -> bool:
        """Whether what a packet waits for has not arrived yet."""
        return id(wait.until) not in self._arrived

    def check(self) -> None:
        """Check that all holds are kept.

        Raises:
            ScheduleError: packets wait for each other, or for one that does not arrive.
        """
        waits = list(chain.from_iterable(self._waits.values()))
        for wait in waits:
            packets = (wait.event, wait.fault.address), (wait.until, wait.fault.until)
            for event, address in packets:
                if id(event) not in self._lanes:
                    raise ScheduleError(f"{wait.fault}: {address} does not arrive in this order")
        heads = {id(queue[0].event) for queue in self._queues.values() if queue}
        stuck = [wait for wait in waits if id(wait.event) in heads and self._is_on(wait)]
        for wait in stuck:
            if self._lanes[id(wait.event)] == self._lanes[id(wait.until)]:
                raise ScheduleError(f"{wait.fault}: the one is behind the other in its channel")
        if stuck:
            names = ", ".join(str(wait.fault) for wait in stuck)
            raise ScheduleError(f"{names}: these packets wait for each other")


def _wait_of(fault: Hold, trace: Trace, observation: Observation) -> _Wait:
    held, until = (
        _events_of(address, trace, observation) for address in (fault.address, fault.until)
    )
    return _Wait(fault, held[0], until[-1])


def _events_of(address: Address, trace: Trace, observation: Observation) -> list[Event]:
    """Find what happens to the destination when a packet arrives."""
    frame = address.resolve(observation)
    number = frame.number
    found: list[Event] = [
        entry.event
        for lane in trace.lanes
        if lane.name == frame.channel.name
        for entry in lane.entries
        if entry.number == number and number is not None
    ]
    if not found:
        raise ScheduleError(f"{address}: the destination reads nothing there")
    return found
