# SPDX-License-Identifier: GPL-2.0-or-later
"""The flows of a capture file, a window of records at a time.

The outcome is that of `connections.ScalarStreams`: a test holds this module to it. Nearly
always a segment begins where the last one of its flow ended; such segments become one run with
many pieces, and nothing looks at them one by one. From the first exception on (a gap, a
retransmission, a cut segment) the flow's own reassembler takes over, until nothing is held back.
What begins or ends connections (SYN, FIN, RST, the first payload) splits the window.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from functools import cached_property
from typing import TYPE_CHECKING, Final, cast

import numpy as np

from mfdtool.errors import CaptureError
from mfdtool.packets.bulk import SegmentReader
from mfdtool.packets.bulk_records import WINDOW, read
from mfdtool.packets.values import TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN
from mfdtool.stream.connections import SWEEP_RECORDS, Connections, FlowEvent, Window
from mfdtool.stream.span import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mfdtool.packets.bulk import SegmentColumns
    from mfdtool.packets.bulk_records import Ints, RecordColumns
    from mfdtool.packets.info import CaptureInfo
    from mfdtool.stream.connections import Flow, StreamCounters
    from mfdtool.stream.span import End, Gap
    from mfdtool.stream.tcp import FlowReassembler

_MASK: Final = 0xFFFF_FFFF

_FEW: Final = 64
"""So few segments are not worth arrays."""

_SMALL_CHUNK: Final = 16
_LARGE_CHUNK: Final = 1024
"""How many segments are taken out of the arrays at once when a flow's order is disturbed."""


class BulkStreams:
    """The flows of a capture file, a window at a time."""

    def __init__(
        self,
        buffer: memoryview,
        *,
        window: int = WINDOW,
        path: str = "",
        info: CaptureInfo | None = None,
        release: Callable[[int, int], None] | None = None,
    ) -> None:
        """Set up for a pcap or pcapng file; nothing is read yet.

        Args:
            buffer: the whole file.
            window: how many bytes of it are looked at in one go.
            path: the file's name, for errors.
            info: filled with what the file says about itself.
            release: called with start and stop of each window when its events were used: what
                was touched there is not needed soon.
        """
        self._buffer = buffer
        self._window = window
        self._path = path
        self._info = info
        self._release = release
        self._connections = Connections(buffer)
        self._segments = SegmentReader(buffer)
        self.counters.skipped = self._segments.skipped

    @property
    def counters(self) -> StreamCounters:
        """What was read so far."""
        return self._connections.counters

    def windows(self) -> Iterator[Window]:
        """Give the windows; the last one holds the end of every flow.

        Raises:
            CaptureError: at once when the file is no capture; after the last window when its
                end is damaged.
        """
        problem: CaptureError | None = None
        windows = read(self._buffer, window=self._window, path=self._path, info=self._info)
        while True:
            try:
                records = next(windows, None)
            except CaptureError as error:
                problem, records = error, None
            if records is None:
                break
            events = self._take(records)
            self.counters.records += len(records)
            yield self._result(events)
            if self._release is not None:
                self._release(records.start, records.stop)
        yield self._result(self._connections.finish())
        if problem is not None:
            raise problem

    def _result(self, events: list[FlowEvent]) -> Window:
        connections = self._connections
        return Window(tuple(events), self.counters.records, connections.low_watermark)

    def _take(self, records: RecordColumns) -> list[FlowEvent]:
        """Take a window, with the sweeps that fall into it."""
        segments = self._segments.read(records)
        self.counters.segments += len(segments)
        splitter = _Splitter(self._buffer, self._connections, segments)
        last = records.first + len(records) - 1
        first_sweep = -(-records.first // SWEEP_RECORDS) * SWEEP_RECORDS
        events: list[FlowEvent] = []
        done = 0
        for sweep in range(first_sweep, last + 1, SWEEP_RECORDS):
            stop = int(np.searchsorted(segments.record, sweep, side="right"))
            events += splitter.take(done, stop)
            events += self._connections.sweep(sweep)
            done = stop
        return events + splitter.take(done, len(segments))


class _Splitter:
    """Splits the segments of a window into those for arrays and those for `Connections.feed`."""

    def __init__(
        self, buffer: memoryview, connections: Connections, segments: SegmentColumns
    ) -> None:
        self._buffer = buffer
        self._connections = connections
        self._segments = segments
        controls = np.flatnonzero(segments.flags & (TCP_SYN | TCP_FIN | TCP_RST))
        self._controls: list[int] = [*controls.tolist(), len(segments)]
        # Looking for what arrays can take is not free; the more often it ends early, the more
        # is then fed one by one, so that no capture makes it dear.
        self._patience = _FEW

    def take(self, start: int, stop: int) -> list[FlowEvent]:
        """Take the segments with these indices."""
        events: list[FlowEvent] = []
        while start < stop:
            limit = min(stop, self._controls[bisect_left(self._controls, start)])
            fed_until = limit + 1
            if limit - start >= _FEW:
                passable = self._stretch(start, limit).passable()
                if passable - start >= _FEW:
                    events += self._stretch(start, passable).take()
                    start = passable
                if passable < limit:
                    fed_until = passable + self._patience
                    self._patience *= 2
            fed_until = min(fed_until, stop)
            for index in range(start, fed_until):
                events += self._connections.feed(self._segments.segment(index))
            start = max(start, fed_until)
        return events

    def _stretch(self, start: int, stop: int) -> _Stretch:
        return _Stretch(self._buffer, self._connections, self._segments, start=start, stop=stop)


class _Stretch:
    """Segments without SYN, FIN and RST, by flow."""

    def __init__(
        self,
        buffer: memoryview,
        connections: Connections,
        segments: SegmentColumns,
        *,
        start: int,
        stop: int,
    ) -> None:
        self._buffer = buffer
        self._connections = connections
        self._segments = segments
        self._stop = stop
        flow = segments.flow[start:stop]
        # Sorting 16-bit numbers takes two passes over them.
        narrow = flow.astype(np.uint16) if len(segments.flows) <= 1 << 16 else flow
        order = narrow.argsort(kind="stable")
        self._rows: Ints = order + start
        self._groups = [
            (connections.find(segments.flows[number]), low, high)
            for number, low, high in _groups(flow[order])
        ]

    def passable(self) -> int:
        """Give the index of the first segment that may begin, revive or end a connection."""
        first = self._stop
        for flow, low, high in self._groups:
            if flow is None or not flow.stream.flowing:
                rows = self._rows[low:high]
                payload = rows[self._segments.length[rows] > 0]
                if len(payload):
                    first = min(first, int(payload[0]))
        return first

    def take(self) -> list[FlowEvent]:
        """Take all of them, which must be passable."""
        acks = {
            flow.peer.id: _Acks(self._segments, self._rows[low:high])
            for flow, low, high in self._groups
            if flow
        }
        payload = self._rows[self._segments.length[self._rows] > 0]
        data = _Data(self._buffer, self._segments, payload)
        events: list[FlowEvent] = []
        for number, low, high in _groups(self._segments.flow[payload]):
            flow = self._connections.find(self._segments.flows[number])
            if flow is not None:
                events += data.take(flow, low, high, acks.get(flow.id))
                self._connections.note_waiting(flow)
        for flow, low, high in self._groups:
            if flow is None:
                self._connections.counters.unattached += high - low
            else:
                stream = flow.peer.stream
                stream.acknowledged = acks[flow.peer.id].last(stream.acknowledged)
        return events


class _Acks:
    """What the segments of one direction acknowledge."""

    def __init__(self, segments: SegmentColumns, rows: Ints) -> None:
        self._segments = segments
        self._rows = rows

    def last(self, default: int | None) -> int | None:
        """Give the last acknowledgement."""
        segments, row = self._segments, int(self._rows[-1])
        if not segments.flags[row] & TCP_ACK:
            if not len(self._with_ack):
                return default
            row = int(self._with_ack[-1])
        return int(segments.acknowledgement[row])

    def before(self, records: Ints) -> list[int | None]:
        """Give the last acknowledgement before each of these ascending records."""
        places = np.searchsorted(self._records, records)
        none = int(np.searchsorted(places, 1))
        rows = self._with_ack[places[none:] - 1]
        found: list[int] = self._segments.acknowledgement[rows].tolist()
        return [*[None] * none, *found]

    @cached_property
    def _with_ack(self) -> Ints:
        rows: Ints = self._rows[(self._segments.flags[self._rows] & TCP_ACK) != 0]
        return rows

    @cached_property
    def _records(self) -> Ints:
        records: Ints = self._segments.record[self._with_ack]
        return records


class _Data:
    """Segments with payload, sorted by flow, and where they do not simply follow each other."""

    def __init__(self, buffer: memoryview, segments: SegmentColumns, rows: Ints) -> None:
        self._buffer = buffer
        self._sequence = segments.sequence[rows]
        self._length = segments.length[rows]
        self._captured = segments.captured[rows]
        self._offset = segments.offset[rows]
        self._record = segments.record[rows]
        self._time_ns = segments.time_ns[rows]
        self._before = self._length.cumsum() - self._length
        follows = self._captured == self._length
        follows[1:] &= self._sequence[1:] == (self._sequence[:-1] + self._length[:-1]) & _MASK
        self._exceptions: list[int] = [*np.flatnonzero(~follows).tolist(), len(rows)]

    def take(self, flow: Flow, low: int, high: int, acks: _Acks | None) -> list[FlowEvent]:
        """Take the segments of one flow."""
        stream = flow.stream
        events: list[FlowEvent] = []
        chunk = _SMALL_CHUNK
        while low < high:
            if self._is_next(stream, low):
                stop = min(self._exceptions[bisect_right(self._exceptions, low)], high)
                events.append(FlowEvent(flow.id, self._pass(stream, low, stop)))
                low = stop
                continue
            stop = min(low + chunk, high)
            low, found = self._feed(stream, low, stop, acks)
            events += [FlowEvent(flow.id, event) for event in found]
            chunk = _LARGE_CHUNK if low == stop else _SMALL_CHUNK
        return events

    def _is_next(self, stream: FlowReassembler, index: int) -> bool:
        return (
            stream.orderly
            and bool(self._sequence[index] == stream.expected)
            and bool(self._captured[index] == self._length[index])
        )

    def _pass(self, stream: FlowReassembler, low: int, high: int) -> Run:
        """Deliver segments that are in order; all they need is their positions."""
        start = stream.position
        starts = self._before[low:high] + (start - int(self._before[low]))
        stop = int(starts[-1] + self._length[high - 1])
        record, time_ns = int(self._record[high - 1]), int(self._time_ns[high - 1])
        stream.passed(stop, segments=high - low, record=record, time_ns=time_ns)
        columns = (
            starts,
            *(column[low:high] for column in (self._offset, self._record, self._time_ns)),
        )
        # Arrays do what is asked of a sequence of numbers, but are not declared as one.
        return Run(self._buffer, start, stop, *cast("list[Sequence[int]]", columns))

    def _feed(
        self, stream: FlowReassembler, low: int, high: int, acks: _Acks | None
    ) -> tuple[int, list[Run | Gap | End]]:
        """Feed segments one by one until nothing is held back; give where that was."""
        columns = (
            self._sequence,
            self._length,
            self._captured,
            self._offset,
            self._record,
            self._time_ns,
        )
        numbers = [column[low:high].tolist() for column in columns]
        known = acks.before(self._record[low:high]) if acks else [None] * (high - low)
        events: list[Run | Gap | End] = []
        for acknowledged, (sequence, length, captured, offset, record, time_ns) in zip(
            known, zip(*numbers, strict=True), strict=True
        ):
            if acknowledged is not None:
                stream.acknowledged = acknowledged
            events += stream.receive(
                sequence,
                length,
                captured=captured,
                offset=offset,
                record=record,
                time_ns=time_ns,
            )
            low += 1
            if stream.orderly:
                break
        return low, events


def _groups(numbers: Ints) -> list[tuple[int, int, int]]:
    """List the stretches of equal numbers as (number, start, stop)."""
    if not len(numbers):
        return []
    borders = (np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist()
    starts, stops = [0, *borders], [*borders, len(numbers)]
    return list(zip(numbers[starts].tolist(), starts, stops, strict=True))
