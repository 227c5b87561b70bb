# SPDX-License-Identifier: GPL-2.0-or-later
"""Where records begin: each one's length tells where the next one is.

Following the lengths is one long chain of dependent steps. For large records a `struct` per
step is the fastest there is. For small ones a stretch of the file is given to hundreds of
walkers that step at the same time, an array operation for all. Each begins at a *guess*: the next
place that looks like a record's time stamp. A guess is *proved* when the walker before arrives
exactly there; if only one fails, the stretch is walked again by single steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mfdtool.packets import pcap
from mfdtool.packets.pcapng import BLOCK_OVERHEAD, BlockType

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mfdtool.packets.info import ByteOrder

    Ints = NDArray[np.int64]

PACKET_OVERHEAD: Final = BLOCK_OVERHEAD + 20
"""An enhanced packet block without options, less its frame."""

_WALKER_BYTES: Final = 32 << 10
"""What one walker does."""
_GUESS_BYTES: Final = 4 << 10
"""How far a walker looks for its first record."""
_FEW_WALKERS: Final = 8
_SAMPLE: Final = 64
_LARGE_RECORD: Final = 6 << 10
"""From this average length on, single steps are faster."""


class Hops(ABC):
    """Steps from record to record in one file format.

    Attributes:
        head: a record is at least so long.
    """

    head: int

    def __init__(self, buffer: memoryview, byte_order: ByteOrder) -> None:
        self.buffer = buffer
        self.byte_order = byte_order

    @abstractmethod
    def list_from(
        self, start: int, stop: int, *, count: int | None = None
    ) -> tuple[list[int], int]:
        """List whole records from ``start`` up to the first that begins at or behind ``stop``.

        Gives also where the next one begins, which is before ``stop`` only if that one is not
        whole or not good, or after ``count`` records.
        """

    @abstractmethod
    def step(self, offsets: Ints) -> Ints:
        """Give the next record's offset for each of these; 0 where there is none."""

    @abstractmethod
    def signature(self, offset: int) -> tuple[bytes, int]:
        """Give bytes that the records around the one at ``offset`` have in common, and where."""

    def walk(self, start: int, stop: int) -> tuple[Ints, int]:
        """Do the same as `list_from`, in the fastest way."""
        stop = min(stop, len(self.buffer) - self.head + 1)
        sample, offset = self.list_from(start, stop, count=_SAMPLE)
        if len(sample) == _SAMPLE and offset - start < _SAMPLE * _LARGE_RECORD:
            guesses = self._guess(offset, stop)
            if len(guesses) >= _FEW_WALKERS:
                walked = self._walk_together(guesses, stop)
                if walked is not None:
                    return np.concatenate([np.array(sample, dtype=np.int64), walked[0]]), walked[1]
        rest, offset = self.list_from(offset, stop)
        return np.array(sample + rest, dtype=np.int64), offset

    def _guess(self, start: int, stop: int) -> list[int]:
        """List where walkers may begin, the first one at ``start``."""
        if start >= stop:
            return []
        pattern, at = self.signature(start)
        guesses = [start]
        buffer = self.buffer
        for place in range(start + _WALKER_BYTES, stop - _GUESS_BYTES, _WALKER_BYTES):
            found = bytes(buffer[place : place + _GUESS_BYTES]).find(pattern, at)
            if found >= 0:
                guesses.append(place + found - at)
        return guesses

    def _walk_together(self, guesses: list[int], stop: int) -> tuple[Ints, int] | None:
        """Walk from all guesses up to the next one; None if one of them was wrong."""
        places = np.array(guesses, dtype=np.int64)
        limits = np.append(places[1:], stop)
        arrived = places.copy()
        walkers = np.arange(len(places))
        steps: list[Ints] = []
        while len(walkers):
            steps.append(places)
            places = self.step(places)
            going = (places > 0) & (places < limits)
            if not going.all():
                arrived[walkers] = places
                walkers, places, limits = walkers[going], places[going], limits[going]
        if not (arrived[:-1] == guesses[1:]).all() or arrived[-1] == 0:
            return None
        offsets = np.sort(np.concatenate(steps))
        end = int(arrived[-1])
        if end > len(self.buffer):
            # The last record is not whole.
            return offsets[:-1], int(offsets[-1])
        return offsets, end

    def _words(self, offsets: Ints, count: int) -> NDArray[Any]:
        """Read ``count`` numbers of 32 bits at each offset."""
        width = 4 * count
        words = overlapping(self.buffer, width)[offsets].view(f"{self.byte_order}u4")
        return words.reshape(len(offsets), count)


class PcapHops(Hops):
    """Steps of a pcap file."""

    head = pcap.RECORD_HEADER_SIZE

    def list_from(
        self, start: int, stop: int, *, count: int | None = None
    ) -> tuple[list[int], int]:
        """List records."""
        size = len(self.buffer)
        unpack_from = Struct(f"{self.byte_order}I").unpack_from
        buffer = self.buffer
        offsets: list[int] = []
        offset = start
        stop = min(stop, size - self.head + 1)
        while offset < stop and len(offsets) != count:
            (captured,) = unpack_from(buffer, offset + 8)
            after = offset + pcap.RECORD_HEADER_SIZE + captured
            if captured > pcap.MAX_CAPTURED or after > size:
                break
            offsets.append(offset)
            offset = after
        return offsets, offset

    def step(self, offsets: Ints) -> Ints:
        """Step over records."""
        captured = self._words(offsets + 8, 1)[:, 0]
        after = offsets + captured + pcap.RECORD_HEADER_SIZE
        return np.where(captured <= pcap.MAX_CAPTURED, after, 0)

    def signature(self, offset: int) -> tuple[bytes, int]:
        """All but the lowest byte of the seconds: the same for four minutes."""
        at = 1 if self.byte_order == "<" else 0
        return bytes(self.buffer[offset + at : offset + at + 3]), at


class PcapngHops(Hops):
    """Steps of a pcapng file, over enhanced packet blocks."""

    head = PACKET_OVERHEAD

    def list_from(
        self, start: int, stop: int, *, count: int | None = None
    ) -> tuple[list[int], int]:
        """List packet blocks."""
        size = len(self.buffer)
        unpack_from = Struct(f"{self.byte_order}II").unpack_from
        buffer = self.buffer
        enhanced = int(BlockType.ENHANCED_PACKET)
        offsets: list[int] = []
        offset = start
        stop = min(stop, size - self.head + 1)
        while offset < stop and len(offsets) != count:
            kind, length = unpack_from(buffer, offset)
            after = offset + length
            if kind != enhanced or length < PACKET_OVERHEAD or length % 4 or after > size:
                break
            offsets.append(offset)
            offset = after
        return offsets, offset

    def step(self, offsets: Ints) -> Ints:
        """Step over packet blocks."""
        kind, length = self._words(offsets, 2).T
        good = (kind == BlockType.ENHANCED_PACKET) & (length >= PACKET_OVERHEAD) & (length % 4 == 0)
        return np.where(good, offsets + length, 0)

    def signature(self, offset: int) -> tuple[bytes, int]:
        """Interface and upper half of the time: with nanoseconds the same for four seconds."""
        return bytes(self.buffer[offset + 8 : offset + 16]), 8


def overlapping(buffer: memoryview, width: int) -> NDArray[np.void]:
    """See a buffer as items of ``width`` bytes, one at each offset."""
    shape = (len(buffer) - width + 1,)
    return np.ndarray(shape, dtype=f"V{width}", buffer=buffer, strides=(1,))
