# SPDX-License-Identifier: GPL-2.0-or-later
"""A cursor in a stream that is still arriving.

A framer is a generator: it asks its :class:`Reader` what lies at the cursor, and yields None
when it cannot go on before more is fed. So it reads from top to bottom like blocking code,
while the caller decides where bytes come from (a mapped capture, a socket, a test).

The reader keeps references to runs, never bytes; moving over a payload touches none of it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import Final, Generic, TypeVar

from mfdtool.stream.span import End, Gap, Run

_FIND_FIRST: Final = 1 << 8
_FIND_BLOCK: Final = 1 << 16
_FORGOTTEN: Final = 64
_STOP: Final = attrgetter("stop")

Stretch = TypeVar("Stretch", Run, Gap)


class State(Enum):
    """Answer to "are the next n bytes there?"."""

    READY = "ready"
    WAIT = "wait"
    """Not yet: feed more."""
    GAP = "gap"
    """Never: the capture lacks at least one of them."""
    END = "end"
    """Never: the stream ends before them."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes of a stream, from position ``start`` on: a view of the capture, not a copy."""

    start: int
    view: memoryview


@dataclass(frozen=True, slots=True)
class Stamp:
    """When bytes arrived: capture record (from 1, 0 if there is no capture) and its time."""

    record: int
    time_ns: int


class _Shelf(Generic[Stretch]):
    """Stretches in stream order: forgotten from the front, found by position.

    A framer may have to wait over very many of them, so nothing here looks at all.
    """

    __slots__ = ("_first", "_items")

    def __init__(self) -> None:
        self._items: list[Stretch] = []
        self._first = 0

    def __len__(self) -> int:
        return len(self._items) - self._first

    def append(self, item: Stretch) -> None:
        """Put a stretch behind the others."""
        self._items.append(item)

    def front(self) -> Stretch | None:
        """Give the first stretch that is not forgotten."""
        return self._items[self._first] if self._first < len(self._items) else None

    def behind(self, position: int) -> Iterator[Stretch]:
        """Give the stretches that end behind a position; none may be forgotten meanwhile."""
        first = bisect_right(self._items, position, lo=self._first, key=_STOP)
        for index in range(first, len(self._items)):
            yield self._items[index]

    def forget(self, position: int) -> Stretch | None:
        """Drop the stretches that end at or before a position; give the last of them."""
        items, first = self._items, self._first
        while first < len(items) and items[first].stop <= position:
            first += 1
        passed = items[first - 1] if first > self._first else None
        if first > _FORGOTTEN and 2 * first > len(items):
            del items[:first]
            first = 0
        self._first = first
        return passed


class Reader:
    """The cursor and everything fed that lies at or behind it.

    Attributes:
        position: the cursor, a stream position. It may run ahead of what was fed.
        fed: everything before this position is known, as data or as gap.
        end: the end of the stream once it is known.
        keeps: whether what the cursor has passed can still be had by `take_extents`.
    """

    __slots__ = (
        "_gaps",
        "_holes",
        "_kept",
        "_piece",
        "_piece_offset",
        "_piece_start",
        "_piece_stop",
        "_run",
        "_runs",
        "_stamp",
        "end",
        "fed",
        "keeps",
        "position",
    )

    def __init__(self, *, keeps: bool = False) -> None:
        self.keeps = keeps
        self._kept: deque[Run] = deque()
        self.position = 0
        self.fed = 0
        self.end: End | None = None
        self._runs: _Shelf[Run] = _Shelf()
        self._holes: _Shelf[Gap] = _Shelf()
        self._gaps: deque[Gap] = deque()
        self._run: Run | None = None
        self._piece = 0
        self._piece_start = self._piece_stop = self._piece_offset = 0
        self._stamp: Stamp | None = Stamp(0, -1)

    # Feeding

    def feed(self, item: Run | Gap | End) -> None:
        """Take the next stretch of the stream.

        Raises:
            ValueError: it does not begin where the one before ended.
        """
        if isinstance(item, End):
            self.end = item
            return
        if item.start != self.fed:
            raise ValueError(f"stretch begins at {item.start}, {self.fed} was expected")
        self.fed = item.stop
        if isinstance(item, Gap):
            self._holes.append(item)
            self._gaps.append(item)
            return
        self._runs.append(item)
        if self.keeps:
            self._kept.append(item)

    def take_gaps(self) -> list[Gap]:
        """Give each gap that the cursor has reached since the last call, once."""
        gaps: list[Gap] = []
        while self._gaps and self._gaps[0].start <= self.position:
            gaps.append(self._gaps.popleft())
        return gaps

    def take_extents(self, start: int, stop: int) -> tuple[Extent, ...]:
        """Give the bytes between two positions, and keep nothing before the second any more.

        Bytes that the capture lacks are left out: the extents' positions tell.
        """
        extents: list[Extent] = []
        while self._kept and self._kept[0].start < stop:
            run = self._kept[0]
            position = max(start, run.start)
            for view in pieces_of(run, position, min(stop, run.stop)):
                extents.append(Extent(position, view))
                position += len(view)
            if run.stop > stop:
                break
            self._kept.popleft()
        return tuple(extents)

    # Looking

    def state(self, count: int) -> State:
        """Tell whether the next ``count`` bytes are there."""
        wanted = self.position + count
        if (
            self._run is not None
            and self._piece_start <= self.position
            and wanted <= self._run.stop
        ):
            return State.READY
        self._go(self.position)
        hole = self._holes.front()
        if wanted <= (self.fed if hole is None else hole.start):
            return State.READY
        if hole is not None:
            return State.GAP
        return State.WAIT if self.end is None else State.END

    def need(self, count: int) -> Generator[None, None, State]:
        """Wait until it is known whether the next ``count`` bytes are there."""
        while (state := self.state(count)) is State.WAIT:
            yield None
        return state

    def available(self) -> int:
        """Count the bytes that can be peeked at now, up to a gap or to what was fed."""
        self._go(self.position)
        hole = self._holes.front()
        return max(0, (self.fed if hole is None else hole.start) - self.position)

    def peek(self, count: int) -> bytes:
        """Give the next ``count`` bytes, which must be ready, and stay."""
        start = self.position
        if not count:
            return b""
        if not self._at(start):
            raise ValueError(f"no byte at {start}")
        if start + count <= self._piece_stop:
            assert self._run is not None
            at = self._piece_offset + start - self._piece_start
            return bytes(self._run.buffer[at : at + count])
        return self._gather(start, start + count)

    def stamp(self) -> Stamp:
        """Tell when the byte at the cursor arrived; the byte must be ready."""
        self._at(self.position)
        return self.last_stamp()

    def last_stamp(self) -> Stamp:
        """Tell when the last byte before the cursor arrived that the capture has."""
        stamp = self._stamp
        if stamp is None:
            run = self._run
            assert run is not None
            stamp = self._stamp = Stamp(int(run.records[self._piece]), int(run.times[self._piece]))
        return stamp

    # Moving

    def advance(self, count: int) -> None:
        """Move over ``count`` bytes, which must be ready."""
        self.position += count
        if self.position > self._piece_stop and not self._at(self.position - 1):
            raise ValueError(f"moved to {self.position}, {self.fed} bytes were fed")

    def read(self, count: int) -> bytes:
        """Give the next ``count`` bytes, which must be ready, and move over them."""
        data = self.peek(count)
        self.advance(count)
        return data

    def skip(self, count: int) -> Generator[None, None, int]:
        """Move over ``count`` bytes whether they are there or not; give how many are missing.

        When the stream ends first, the cursor stops at its end.
        """
        target = self.position + count
        if self._run is not None and target <= self._run.stop:
            self.advance(count)
            return 0
        missing = 0
        while True:
            stop = min(self.fed, target)
            missing += self._missing(self.position, stop)
            self._go(stop)
            if stop == target:
                return missing
            if self.end is not None:
                return missing + target - stop
            yield None

    def move_to(self, position: int) -> None:
        """Move to a position at or behind the cursor that was fed, over data and gaps alike."""
        self._go(position)

    def find(self, pattern: bytes, start: int) -> int:
        """Find ``pattern`` at or behind position ``start`` in what was fed; -1 if it is not there.

        A pattern is never found across a gap.
        """
        overlap = len(pattern) - 1
        # Small blocks first: a caller that refuses one place after the other stays linear.
        size = _FIND_FIRST
        for low, high in self._stretches(start, self.fed):
            at = low
            while at < high:
                block = self._gather(at, min(at + size + overlap, high))
                if (found := block.find(pattern)) >= 0:
                    return at + found
                at += size
                size = min(2 * size, _FIND_BLOCK)
        return -1

    def peek_at(self, start: int, count: int) -> bytes:
        """Give up to ``count`` bytes at position ``start``, fewer before a gap or the end."""
        for low, high in self._stretches(start, start + count):
            return self._gather(start, high) if low == start else b""
        return b""

    def stretches(self, start: int, stop: int) -> list[tuple[int, int]]:
        """List the gapless stretches, as (low, high), between two positions not yet passed."""
        return list(self._stretches(start, stop))

    # Inside

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        low, stop = start, min(stop, self.fed)
        for hole in self._holes.behind(start):
            if hole.start >= stop:
                break
            if low < hole.start:
                yield low, hole.start
            low = hole.stop
        if low < stop:
            yield low, stop

    def _at(self, position: int) -> bool:
        """Put the piece cursor on the piece that holds ``position``; False if no run does."""
        if self._run is not None and self._piece_start <= position < self._piece_stop:
            return True
        run, piece = self._run, self._piece + 1
        if run is None or not run.start <= position < run.stop:
            self._runs.forget(position)
            run, piece = self._runs.front(), 0
            if run is None or position < run.start:
                return False
        last = len(run.starts) - 1
        follows = piece <= last and run.starts[piece] <= position
        if not follows or (piece < last and run.starts[piece + 1] <= position):
            piece = bisect_right(run.starts, position) - 1
        self._enter(run, piece)
        return True

    def _go(self, position: int) -> None:
        """Move to a position that was fed, and forget what lies before it.

        The piece cursor stays on the last byte moved over, for its stamp.
        """
        passed = self._runs.forget(position)
        self._holes.forget(position)
        self.position = position
        front = self._runs.front()
        if front is not None and front.start < position and self._at(position - 1):
            return
        if passed is not None:
            self._enter(passed, len(passed.starts) - 1)

    def _enter(self, run: Run, piece: int) -> None:
        last = len(run.starts) - 1
        self._run = run
        self._piece = piece
        self._stamp = None
        self._piece_start = int(run.starts[piece])
        self._piece_stop = int(run.starts[piece + 1]) if piece < last else run.stop
        self._piece_offset = int(run.offsets[piece])

    def _missing(self, start: int, stop: int) -> int:
        """Count the bytes that gaps hold between two positions."""
        missing = 0
        for hole in self._holes.behind(start):
            if hole.start >= stop:
                break
            missing += min(stop, hole.stop) - max(start, hole.start)
        return missing

    def _gather(self, start: int, stop: int) -> bytes:
        """Join the bytes of a gapless range."""
        parts: list[memoryview] = []
        for run in self._runs.behind(start):
            if run.start >= stop:
                break
            parts.extend(pieces_of(run, max(start, run.start), min(stop, run.stop)))
        return b"".join(parts)


def pieces_of(run: Run, start: int, stop: int) -> list[memoryview]:
    """Give the bytes ``start`` to ``stop`` of a run, as views of its buffer."""
    views: list[memoryview] = []
    last = len(run.starts) - 1
    piece = bisect_right(run.starts, start) - 1
    while start < stop:
        piece_stop = min(stop, int(run.starts[piece + 1]) if piece < last else run.stop)
        at = int(run.offsets[piece]) + start - int(run.starts[piece])
        views.append(run.buffer[at : at + piece_stop - start])
        start = piece_stop
        piece += 1
    return views
