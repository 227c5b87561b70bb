# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets of packet indexes, which a device's packets should fill from 0 on without a hole.

Memory follows the number of packets, a quarter of a byte each when they are dense; it never
follows the largest idx, which is any 32-bit number that the sender likes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHIFT: Final = 10
_CHUNK: Final = 1 << _SHIFT
_FULL: Final = (1 << _CHUNK) - 1

RANGES_LISTED: Final = 16
"""Holes that are listed one by one; the others are only counted."""


class IdxRange(NamedTuple):
    """Indexes ``first`` to ``last``, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.first}-{self.last}" if self.last > self.first else str(self.first)


class IdxSet:
    """Which indexes were seen.

    Attributes:
        count: how many different ones.
        highest: the largest, -1 if there is none.
    """

    __slots__ = ("_masks", "count", "highest")

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}
        self.count = 0
        self.highest = -1

    def __contains__(self, idx: int) -> bool:
        return bool(self._masks.get(idx >> _SHIFT, 0) >> (idx & (_CHUNK - 1)) & 1)

    def add(self, idx: int) -> bool:
        """Note an index; False if it had been seen before."""
        chunk, bit = idx >> _SHIFT, 1 << (idx & (_CHUNK - 1))
        mask = self._masks.get(chunk, 0)
        if mask & bit:
            return False
        self._masks[chunk] = mask | bit
        self.count += 1
        self.highest = max(self.highest, idx)
        return True

    def count_missing(self, stop: int) -> int:
        """Count the indexes below ``stop`` that were not seen."""
        return sum(last - first + 1 for first, last in self.missing(stop))

    def missing(self, stop: int) -> Iterator[IdxRange]:
        """Give the ranges of indexes below ``stop`` that were not seen, in order."""
        position = 0
        for low, high in self._runs():
            if low >= stop:
                break
            if position < low:
                yield IdxRange(position, low - 1)
            position = high
        if position < stop:
            yield IdxRange(position, stop - 1)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """Give the stretches that were seen, as (low, high); one may follow another directly."""
        for chunk in sorted(self._masks):
            low, mask = chunk << _SHIFT, self._masks[chunk]
            if mask == _FULL:
                yield low, low + _CHUNK
                continue
            while mask:
                zeros = _trailing_zeros(mask)
                mask >>= zeros
                ones = _trailing_zeros(~mask)
                mask >>= ones
                yield low + zeros, low + zeros + ones
                low += zeros + ones


def _trailing_zeros(number: int) -> int:
    return (number & -number).bit_length() - 1
