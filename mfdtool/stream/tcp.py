# SPDX-License-Identifier: GPL-2.0-or-later
"""Reassembly of one direction of a TCP connection, by reference.

Segments go in as the capture has them; runs, gaps and one end come out in stream order.
The rules:

* **Positions** count from 0 without limit. A segment's 32-bit sequence number is placed by its
  signed distance to the next expected one, so wrapping costs nothing.
* **Position 0** is the byte after the SYN. If the capture begins later, it is the lowest
  sequence number among the first `EARLY_SEGMENTS` segments with payload (fewer if FIN, a SYN
  after all, or the end comes before); what then still comes from below is not part of the stream.
* **The first copy wins.** A later copy only fills what is still open; no payload is compared.
* **A hole waits** for the segment that fills it, be it reordered or sent again, because a
  retransmission may also supply what the snap length cut off. It becomes a gap when what is
  known beyond it exceeds `HELD_BYTES` or `HELD_PIECES`, or exceeds `SETTLED_BYTES` and the
  receiver has acknowledged the hole; or when the stream ends.
* **A piece is stamped** with the record at whose arrival the receiver could read it: the
  greatest record number up to there. What waited behind a hole has the stamp of the segment
  that filled it; if nothing did, its own.

Memory is bounded: about `HELD_PIECES` pieces of a few numbers each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from mfdtool.packets.values import NO_TIME, TCP_FIN, TCP_RST, TCP_SYN
from mfdtool.stream.held import Held, Piece
from mfdtool.stream.span import End, EndReason, Gap, Run

if TYPE_CHECKING:
    from mfdtool.packets.values import Segment

NOT_CAPTURED: Final = "not captured"
"""Reason of a gap: a segment was seen, but the snap length cut these bytes off."""

NO_SEGMENT: Final = "segment missing"
"""Reason of a gap: the capture has no segment with these bytes."""

EARLY_SEGMENTS: Final = 16
"""So many segments of a stream without SYN are looked at before its position 0 is settled."""

HELD_BYTES: Final = 4 << 20
HELD_PIECES: Final = 4096
"""A hole is given up when more than this is known beyond it."""

SETTLED_BYTES: Final = 256 << 10
"""The same, if the receiver has acknowledged the hole and so will not ask for it again."""

FAR: Final = 4 << 20
"""A sequence number this far from the expected one belongs to another connection, if it can."""

_MASK: Final = 0xFFFF_FFFF
_HALF: Final = 0x8000_0000


def distance(sequence: int, reference: int) -> int:
    """Give the signed distance of two sequence numbers, RFC 9293's comparison modulo 2**32."""
    return ((sequence - reference + _HALF) & _MASK) - _HALF


@dataclass(slots=True)
class FlowCounters:
    """What happened in one direction of a connection; bytes are payload bytes.

    ``retransmitted`` bytes came again after their position was settled or known,
    ``out_of_order`` segments began below the highest position seen and were not delivered yet,
    ``outside`` bytes came from before position 0 or from behind the end.
    """

    segments: int = 0
    delivered: int = 0
    retransmitted: int = 0
    out_of_order: int = 0
    not_captured: int = 0
    missing: int = 0
    outside: int = 0


class _Fin(NamedTuple):
    position: int
    record: int
    time_ns: int


class FlowReassembler:
    """Turns the segments of one direction into runs, gaps and an end.

    Every method that takes something returns what became final by it, in stream order; of the
    whole stream every position belongs to exactly one run or gap.

    Attributes:
        position: everything before it was delivered.
        acknowledged: the latest acknowledgement number of the other direction, if there is one.
        opening: the SYN, or the first segment seen; None before the stream has started.
        ended: the end was delivered.
        counters: what happened so far.
    """

    __slots__ = (
        "_base",
        "_buffer",
        "_early",
        "_fin",
        "_held",
        "_highest",
        "_stamp",
        "_stamp_time",
        "acknowledged",
        "counters",
        "ended",
        "opening",
        "position",
    )

    def __init__(self, buffer: memoryview) -> None:
        self.position = 0
        self.acknowledged: int | None = None
        self.opening: Segment | None = None
        self.ended = False
        self.counters = FlowCounters()
        self._buffer = buffer
        self._base = 0
        self._early: list[Segment] = []
        self._held = Held()
        self._highest = 0
        self._fin: _Fin | None = None
        self._stamp = 0
        self._stamp_time = NO_TIME

    # What is known

    @property
    def expected(self) -> int:
        """The sequence number of `position`."""
        return (self._base + self.position) & _MASK

    @property
    def waiting(self) -> bool:
        """Something is held back: the next segment in order will not simply pass."""
        return bool(self._held.pieces or self._early or self._fin) and not self.ended

    @property
    def flowing(self) -> bool:
        """Position 0 is settled, and no end is known."""
        return self.opening is not None and not (self._fin or self.ended)

    @property
    def orderly(self) -> bool:
        """The segment that begins at `expected`, captured whole, will simply pass."""
        return self.opening is not None and not (self._held.pieces or self._fin or self.ended)

    @property
    def low_watermark(self) -> int | None:
        """The smallest record number that what is held back may still be stamped with.

        None if no data and no end is held back.
        """
        if self._early:
            return self._early[0].record
        first = next((piece.record for piece in self._held.pieces if not piece.is_cut), None)
        if first is None and self._fin is not None and not self.ended:
            first = self._fin.record
        return None if first is None else max(first, self._stamp)

    def starts_anew(self, segment: Segment) -> bool:
        """Say whether a segment belongs to a new connection between the same endpoints.

        That is so for a SYN with another sequence number when this stream has ended, or when
        the number is far from what is expected; and for payload far from the end of an ended
        stream, when the SYN is missing.
        """
        syn = bool(segment.flags & TCP_SYN)
        sequence = segment.sequence + syn
        if self._early:
            return syn and abs(distance(sequence, self._early[0].sequence)) > FAR
        if self.opening is None or (syn and distance(sequence, self._base) == 0):
            return False
        far = abs(distance(sequence, self.expected)) > FAR
        if syn:
            return far or self.ended or self._fin is not None
        return far and self.ended and segment.length > 0

    # What comes in

    def feed(self, segment: Segment) -> list[Run | Gap | End]:
        """Take the next segment of the capture."""
        flags = segment.flags
        if flags & TCP_RST:
            return self.reset(segment.record, segment.time_ns)
        if not (segment.length or flags & (TCP_SYN | TCP_FIN)):
            return []
        if self.opening is None and not self.ended:
            self._early.append(segment)
            if flags & (TCP_SYN | TCP_FIN) or len(self._early) >= EARLY_SEGMENTS:
                return self._start()
            return []
        return self._take(segment)

    def receive(
        self,
        sequence: int,
        length: int,
        *,
        captured: int,
        offset: int,
        record: int,
        time_ns: int,
    ) -> list[Run | Gap | End]:
        """Take the payload of a segment without SYN, FIN and RST, of a stream that has started."""
        counters = self.counters
        position = self.position
        counters.segments += 1
        start = position + distance(sequence, self._base + position)
        stop = start + length
        known = start + captured
        if self.ended or (self._fin is not None and stop > self._fin.position):
            limit = position if self._fin is None else self._fin.position
            counters.outside += max(stop - max(start, limit), 0)
            stop = min(stop, limit)
            known = min(known, stop)
        if start < position:
            before = max(min(stop, 0) - start, 0)
            counters.outside += before
            counters.retransmitted += max(min(stop, position) - start - before, 0)
            offset += position - start
            start = position
        if start >= stop:
            return []
        if start == position and known == stop and not self._held.pieces:
            return self._pass(start, stop, offset=offset, record=record, time_ns=time_ns)
        if known > start:
            piece = Piece(start, known, offset, record, time_ns)
            counters.retransmitted += self._held.add(piece)
        if stop > known:
            self._held.add(Piece.cut(max(known, start), stop, record=record, time_ns=time_ns))
        if start < self._highest:
            counters.out_of_order += 1
        self._highest = max(self._highest, stop)
        return self._deliver()

    def passed(self, stop: int, *, segments: int, record: int, time_ns: int) -> None:
        """Note that ``segments`` orderly ones were delivered up to ``stop`` without this object.

        ``record`` and ``time_ns`` are those of the last one.
        """
        self.counters.segments += segments
        self._passed(stop, record=record, time_ns=time_ns)

    def settle(self) -> list[Run | Gap | End]:
        """Give up every hole: deliver all that is known."""
        events = self._start() if self._early else []
        return events + self._deliver(every_hole=True)

    def reset(self, record: int, time_ns: int) -> list[Run | Gap | End]:
        """Take a RST, of either direction: settle, and end here."""
        return self._finish(EndReason.RST, record, time_ns)

    def finish(self) -> list[Run | Gap | End]:
        """Take the end of the capture (or of what belongs to this connection)."""
        return self._finish(EndReason.CAPTURE, 0, NO_TIME)

    # Start and end

    def _start(self) -> list[Run | Gap | End]:
        """Settle position 0 and take the segments that waited for it."""
        early, self._early = self._early, []
        opening = early[0]
        if early[-1].flags & TCP_SYN:
            opening = early[-1]
            self._base = (opening.sequence + 1) & _MASK
        else:
            lowest = min(distance(segment.sequence, opening.sequence) for segment in early)
            self._base = (opening.sequence + lowest) & _MASK
        self.opening = opening
        events: list[Run | Gap | End] = []
        for segment in early:
            events += self._take(segment)
        return events

    def _take(self, segment: Segment) -> list[Run | Gap | End]:
        """Take a segment of a stream that has started."""
        sequence = segment.sequence
        if segment.flags & TCP_SYN:
            sequence += 1
            if distance(sequence, self._base) != 0:
                # A stray: the stream has another beginning.
                self.counters.outside += segment.length
                return []
        events: list[Run | Gap | End] = []
        if segment.length:
            events = self.receive(
                sequence,
                segment.length,
                captured=segment.captured,
                offset=segment.offset,
                record=segment.record,
                time_ns=segment.time_ns,
            )
        if segment.flags & TCP_FIN and self._fin is None and not self.ended:
            stop = self.position + distance(sequence + segment.length, self.expected)
            self._fin = _Fin(max(stop, self.position), segment.record, segment.time_ns)
            self.counters.outside += self._held.truncate(self._fin.position)
            events += self._deliver()
        return events

    def _finish(self, reason: EndReason, record: int, time_ns: int) -> list[Run | Gap | End]:
        if self.ended:
            return []
        events = self.settle()
        if self.ended or self.opening is None:
            self.ended = True
            return events
        position = self.position
        if self._fin is not None:
            stop = self._fin.position
        else:
            # Acknowledged, so it was sent; but one byte is what a FIN takes that was not seen.
            beyond = 0
            if self.acknowledged is not None:
                beyond = distance(self.acknowledged, self.expected)
            stop = position + (beyond if beyond > 1 else 0)
        if stop > position:
            events.append(self._gap(stop, NO_SEGMENT))
        events += self._end_at_fin()
        if not self.ended:
            self.ended = True
            stamp = (self.opening.record, self.opening.time_ns)
            if self._stamp:
                stamp = (self._stamp, self._stamp_time)
            if record > stamp[0]:
                stamp = (record, time_ns)
            events.append(End(self.position, reason, *stamp))
        return events

    def _end_at_fin(self) -> list[Run | Gap | End]:
        fin = self._fin
        if fin is None or self.ended or self.position < fin.position:
            return []
        self.ended = True
        stamp = (fin.record, fin.time_ns)
        if self._stamp > fin.record:
            stamp = (self._stamp, self._stamp_time)
        return [End(fin.position, EndReason.FIN, *stamp)]

    # Data

    def _pass(
        self, start: int, stop: int, *, offset: int, record: int, time_ns: int
    ) -> list[Run | Gap | End]:
        """Deliver a segment that comes in order, the usual case."""
        self._passed(stop, record=record, time_ns=time_ns)
        stamps = (self._stamp,), (self._stamp_time,)
        events: list[Run | Gap | End] = [
            Run(self._buffer, start, stop, (start,), (offset,), *stamps)
        ]
        return events + self._end_at_fin()

    def _passed(self, stop: int, *, record: int, time_ns: int) -> None:
        self.counters.delivered += stop - self.position
        self.position = stop
        self._highest = max(self._highest, stop)
        if record > self._stamp:
            self._stamp, self._stamp_time = record, time_ns

    def _deliver(self, *, every_hole: bool = False) -> list[Run | Gap | End]:
        """Deliver what is in order, and give up holes that are not worth waiting for."""
        held = self._held
        events: list[Run | Gap | End] = []
        while held.pieces:
            if ready := held.count_ready(self.position):
                events.append(self._run(held.take(ready)))
                continue
            front = held.pieces[0]
            is_cut = front.start == self.position
            hole_stop = front.stop if is_cut else front.start
            if not (every_hole or self._is_due(hole_stop)):
                break
            if is_cut:
                held.take(1)
            _append_gap(events, self._gap(hole_stop, NOT_CAPTURED if is_cut else NO_SEGMENT))
        return events + self._end_at_fin()

    def _is_due(self, hole_stop: int) -> bool:
        """Say whether the first hole is given up."""
        held = self._held
        if held.extent > HELD_BYTES or len(held.pieces) > HELD_PIECES:
            return True
        if held.extent <= SETTLED_BYTES or self.acknowledged is None:
            return False
        return distance(self.acknowledged, self._base + hole_stop) >= 0

    def _run(self, pieces: list[Piece]) -> Run:
        """Deliver adjacent pieces that begin at `position`."""
        start, stop = pieces[0].start, pieces[-1].stop
        records: list[int] = []
        times: list[int] = []
        for piece in pieces:
            if piece.record > self._stamp:
                self._stamp, self._stamp_time = piece.record, piece.time_ns
            records.append(self._stamp)
            times.append(self._stamp_time)
        self.counters.delivered += stop - start
        self.position = stop
        starts, offsets = [piece.start for piece in pieces], [piece.offset for piece in pieces]
        return Run(self._buffer, start, stop, starts, offsets, records, times)

    def _gap(self, stop: int, reason: str) -> Gap:
        """Give up what lies between `position` and ``stop``."""
        gap = Gap(self.position, stop, reason)
        if reason is NOT_CAPTURED:
            self.counters.not_captured += stop - self.position
        else:
            self.counters.missing += stop - self.position
        self.position = stop
        return gap


def _append_gap(events: list[Run | Gap | End], gap: Gap) -> None:
    """Append a gap, as one with the last event if that is its first half."""
    last = events[-1] if events else None
    if isinstance(last, Gap) and last.reason == gap.reason:
        events[-1] = Gap(last.start, gap.stop, gap.reason)
    else:
        events.append(gap)
