# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a stream beyond the first byte that is missing."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_CUT: Final = -1


class Piece(NamedTuple):
    """Stream positions that a segment covered; its bytes are at ``offset``, if captured at all."""

    start: int
    stop: int
    offset: int
    record: int
    time_ns: int

    @classmethod
    def cut(cls, start: int, stop: int, *, record: int, time_ns: int) -> Piece:
        """Make a piece of which the snap length left nothing."""
        return cls(start, stop, _CUT, record, time_ns)

    @property
    def is_cut(self) -> bool:
        """There are no bytes, only the knowledge that there were some."""
        return self.offset == _CUT

    def part(self, start: int, stop: int) -> Piece:
        """Give the same piece between two positions inside it."""
        offset = self.offset if self.is_cut else self.offset + start - self.start
        return Piece(start, stop, offset, self.record, self.time_ns)


class Held:
    """Pieces in stream order, without overlap.

    Attributes:
        pieces: the pieces.
        extent: how many positions they cover together.
    """

    __slots__ = ("extent", "pieces")

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.extent = 0

    def add(self, new: Piece) -> int:
        """Put a piece where the others leave room; give how many of its bytes were there before.

        The first copy wins, but bytes take the place of what was cut.
        """
        pieces = self.pieces
        if not pieces or pieces[-1].stop <= new.start:
            pieces.append(new)
            self.extent += new.stop - new.start
            return 0
        first = bisect_left(pieces, (new.start,))
        if first and pieces[first - 1].stop > new.start:
            first -= 1
        last = first
        while last < len(pieces) and pieces[last].start < new.stop:
            last += 1
        merged, again = _merge(new, pieces[first:last])
        self.extent += _extent(merged) - _extent(pieces[first:last])
        pieces[first:last] = merged
        return again

    def take(self, count: int) -> list[Piece]:
        """Remove the first ``count`` pieces and give them."""
        taken = self.pieces[:count]
        del self.pieces[:count]
        self.extent -= _extent(taken)
        return taken

    def truncate(self, stop: int) -> int:
        """Remove what lies at or behind ``stop``; give how many bytes that were."""
        removed = 0
        while self.pieces and self.pieces[-1].stop > stop:
            last = self.pieces.pop()
            inside = max(last.start, stop)
            self.extent -= last.stop - inside
            removed += 0 if last.is_cut else last.stop - inside
            if last.start < inside:
                self.pieces.append(last.part(last.start, inside))
        return removed

    def count_ready(self, position: int) -> int:
        """Count the first pieces that hold bytes from ``position`` on without a hole."""
        for count, piece in enumerate(self.pieces):
            if piece.start != position or piece.is_cut:
                return count
            position = piece.stop
        return len(self.pieces)


def _extent(pieces: Iterable[Piece]) -> int:
    return sum(piece.stop - piece.start for piece in pieces)


def _merge(new: Piece, old: list[Piece]) -> tuple[list[Piece], int]:
    """Lay a piece into those that it overlaps; give the result and how much was there before."""
    merged: list[Piece] = []
    again = 0
    cursor = new.start
    rest: Piece | None = None
    for piece in old:
        if piece.is_cut and not new.is_cut:
            if piece.start < new.start:
                merged.append(piece.part(piece.start, new.start))
            if piece.stop > new.stop:
                rest = piece.part(new.stop, piece.stop)
            continue
        if cursor < piece.start:
            merged.append(new.part(cursor, piece.start))
        if not new.is_cut:
            again += min(piece.stop, new.stop) - max(piece.start, new.start)
        merged.append(piece)
        cursor = piece.stop
    if cursor < new.stop:
        merged.append(new.part(cursor, new.stop))
    if rest is not None:
        merged.append(rest)
    return merged, again
