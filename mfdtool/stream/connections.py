# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP connections of a capture: whose segment is this, and what becomes final by it.

A *flow* is one direction of one connection. Flows have small integer ids in the order in which
connections begin; the two of a connection differ in the lowest bit, and the even one is the
direction that was seen first. Endpoints that are used again give new flows.

This is the scalar way, one segment at a time: the reference, and what live captures use.
`mfdtool.stream.bulk` does the same on arrays.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from mfdtool.errors import CaptureError
from mfdtool.packets.ip import segment_of
from mfdtool.packets.link import Skip
from mfdtool.packets.values import TCP_ACK, TCP_RST, TCP_SYN
from mfdtool.stream.span import End, Gap, Run
from mfdtool.stream.tcp import FlowReassembler

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mfdtool.packets.values import FlowKey, Record, Segment
    from mfdtool.stream.tcp import FlowCounters

SWEEP_RECORDS: Final = 1 << 16
"""After each so many records, holes older than as many are given up, and connections that
ended as long ago are forgotten. So a silent connection cannot hold back the others for ever."""

WINDOW_RECORDS: Final = 4096
"""Records per window of `ScalarStreams`."""


class Opening(Enum):
    """How a flow begins."""

    SYN = "SYN"
    """It is the side that connected."""
    SYN_ACK = "SYN, ACK"
    """It is the side that accepted."""
    MIDDLE = "no handshake"
    """The capture has neither: it began later, or lost them."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A flow begins; ``record`` is that of its SYN, or of its first segment seen."""

    key: FlowKey
    opening: Opening
    record: int
    time_ns: int


class FlowEvent(NamedTuple):
    """What happened on a flow: first `Opened`, then runs and gaps in stream order, last `End`."""

    flow: int
    event: Opened | Run | Gap | End


@dataclass(frozen=True, slots=True)
class Window:
    """What a stretch of the capture made final.

    Events of one flow are in order; those of several flows are not ordered between each other.
    ``last_record`` is the last record read. ``low_watermark`` is the smallest record number
    that a later window's run or end may still be stamped with, None if it is just the next.
    """

    events: tuple[FlowEvent, ...]
    last_record: int
    low_watermark: int | None


@dataclass(slots=True)
class StreamCounters:
    """What was read so far; ``flows`` has an entry for every flow that was opened.

    ``unattached`` segments carry neither SYN nor payload, and no connection is known.
    """

    records: int = 0
    segments: int = 0
    unattached: int = 0
    skipped: Counter[Skip] = field(default_factory=Counter)
    flows: dict[int, FlowCounters] = field(default_factory=dict)


def reverse_flow(flow: int) -> int:
    """Give the id of the other direction of the same connection."""
    return flow ^ 1


class Flow:
    """One direction of a connection, as `Connections` keeps it."""

    __slots__ = ("id", "key", "opened", "peer", "stream")

    peer: Flow

    def __init__(self, flow: int, key: FlowKey, stream: FlowReassembler) -> None:
        self.id = flow
        self.key = key
        self.stream = stream
        self.opened = False

    @property
    def is_over(self) -> bool:
        """Nothing more will come: the stream has ended, or its direction was never seen."""
        return self.stream.ended or not self.opened


class Connections:
    """Assigns segments to flows and reassembles them.

    Attributes:
        waiting: flows that hold something back.
        counters: what was read; ``records``, ``segments`` and ``skipped`` are the caller's.
    """

    def __init__(self, buffer: memoryview) -> None:
        self.waiting: set[Flow] = set()
        self.counters = StreamCounters()
        self._buffer = buffer
        self._flows: dict[FlowKey, Flow] = {}
        self._over: deque[tuple[int, Flow]] = deque()
        self._next_id = 0

    @property
    def low_watermark(self) -> int | None:
        """The smallest record number that what is held back may still be stamped with."""
        marks = (flow.stream.low_watermark for flow in self.waiting)
        return min((mark for mark in marks if mark is not None), default=None)

    def find(self, key: FlowKey) -> Flow | None:
        """Give the flow that a segment with this key belongs to, unless it begins a new one."""
        return self._flows.get(key)

    def feed(self, segment: Segment) -> list[FlowEvent]:
        """Take the next segment of the capture."""
        flow = self._flows.get(segment.flow)
        events: list[FlowEvent] = []
        if flow is None or _starts_anew(flow, segment):
            if not (segment.length or segment.flags & TCP_SYN) or segment.flags & TCP_RST:
                self.counters.unattached += 1
                return events
            if flow is not None:
                events = self._finish(flow) + self._finish(flow.peer)
            flow = self._connect(segment.flow)
        stream = flow.stream
        if segment.flags & TCP_RST:
            for side in (flow, flow.peer):
                reset = side.stream.reset(segment.record, segment.time_ns)
                events += self._note(side, reset, record=segment.record)
            return events
        if segment.flags & TCP_ACK:
            flow.peer.stream.acknowledged = segment.acknowledgement
        return events + self._note(flow, stream.feed(segment), record=segment.record)

    def sweep(self, record: int) -> list[FlowEvent]:
        """Give up what has waited for `SWEEP_RECORDS`; ``record`` is the last one, a multiple."""
        events: list[FlowEvent] = []
        limit = record - SWEEP_RECORDS
        for flow in sorted(self.waiting, key=lambda flow: flow.id):
            mark = flow.stream.low_watermark
            if mark is not None and mark <= limit:
                events += self._note(flow, flow.stream.settle(), record=record)
        while self._over and self._over[0][0] <= limit:
            _, flow = self._over.popleft()
            for side in (flow, flow.peer):
                if self._flows.get(side.key) is side:
                    del self._flows[side.key]
        return events

    def finish(self) -> list[FlowEvent]:
        """Take the end of the capture: every flow ends."""
        flows = sorted(self._flows.values(), key=lambda flow: flow.id)
        self._flows.clear()
        return [event for flow in flows for event in self._finish(flow)]

    def note_waiting(self, flow: Flow) -> None:
        """Keep `waiting` true after the flow's stream was given something."""
        if flow.stream.waiting:
            self.waiting.add(flow)
        else:
            self.waiting.discard(flow)

    def _connect(self, key: FlowKey) -> Flow:
        """Begin a connection with the flow of this key."""
        flow, peer = (
            Flow(self._next_id + side, side_key, FlowReassembler(self._buffer))
            for side, side_key in enumerate((key, key.reversed()))
        )
        flow.peer, peer.peer = peer, flow
        self._next_id += 2
        self._flows[peer.key] = peer
        self._flows[key] = flow
        return flow

    def _finish(self, flow: Flow) -> list[FlowEvent]:
        return self._note(flow, flow.stream.finish(), record=0)

    def _note(self, flow: Flow, events: list[Run | Gap | End], *, record: int) -> list[FlowEvent]:
        """Tag what a flow's stream gave, and note what has changed by it."""
        stream = flow.stream
        tagged: list[FlowEvent] = []
        if not flow.opened and stream.opening is not None:
            flow.opened = True
            self.counters.flows[flow.id] = stream.counters
            tagged.append(FlowEvent(flow.id, _opened(flow.key, stream.opening)))
        tagged += [FlowEvent(flow.id, event) for event in events]
        self.note_waiting(flow)
        if events and isinstance(events[-1], End) and flow.peer.is_over:
            self._over.append((record, flow))
        return tagged


class ScalarStreams:
    """The flows of a capture, one record at a time."""

    def __init__(self, buffer: memoryview, records: Iterable[Record]) -> None:
        """Set up for records of ``buffer``; nothing is read yet."""
        self._buffer = buffer
        self._records = records
        self._connections = Connections(buffer)

    @property
    def counters(self) -> StreamCounters:
        """What was read so far."""
        return self._connections.counters

    def windows(self, *, every: int = WINDOW_RECORDS) -> Iterator[Window]:
        """Give windows of ``every`` records; the last one holds the end of every flow.

        Raises:
            CaptureError: the records end in damage; everything before was given.
        """
        events: list[FlowEvent] = []
        problem: CaptureError | None = None
        records = iter(self._records)
        while True:
            try:
                record = next(records, None)
            except CaptureError as error:
                problem, record = error, None
            if record is None:
                break
            events += self.feed(record)
            if self.counters.records % every == 0:
                yield self._window(events)
                events = []
        events += self._connections.finish()
        yield self._window(events)
        if problem is not None:
            raise problem

    def feed(self, record: Record) -> list[FlowEvent]:
        """Take one record, for a caller that has no iterator of them."""
        connections = self._connections
        counters = connections.counters
        counters.records += 1
        found = segment_of(record, self._buffer)
        events: list[FlowEvent] = []
        if isinstance(found, Skip):
            counters.skipped[found] += 1
        else:
            counters.segments += 1
            events = connections.feed(found)
        if record.number % SWEEP_RECORDS == 0:
            events += connections.sweep(record.number)
        return events

    def _window(self, events: list[FlowEvent]) -> Window:
        connections = self._connections
        return Window(tuple(events), self.counters.records, connections.low_watermark)


def _starts_anew(flow: Flow, segment: Segment) -> bool:
    """Say whether a segment begins a new connection between endpoints that have one."""
    if flow.stream.starts_anew(segment):
        return True
    fresh = not flow.opened and not flow.stream.waiting
    return fresh and bool(segment.flags & TCP_SYN) and flow.peer.stream.ended


def _opened(key: FlowKey, first: Segment) -> Opened:
    opening = Opening.MIDDLE
    if first.flags & TCP_SYN:
        opening = Opening.SYN_ACK if first.flags & TCP_ACK else Opening.SYN
    return Opened(key, opening, first.record, first.time_ns)
