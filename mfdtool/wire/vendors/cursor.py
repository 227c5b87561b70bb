# SPDX-License-Identifier: GPL-2.0-or-later
"""A cursor in a device's state that arrives piece by piece, and the reading of records with it.

Pieces are looked at once and not kept: a header that two pieces share is joined, a payload is
passed over. A hole inside a payload is counted there. Behind one inside a header nobody knows
where the next record begins, so nothing more is decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import Final

from mfdtool.errors import WireError
from mfdtool.wire.codec import Buffer
from mfdtool.wire.vendors.vendor import Record, Records, failure_text

READ_LIMIT: Final = 4096
"""Bytes that a decoder may read at once; all else is payload."""


class StateEnds(Exception):
    """The state ended, or has a hole, inside something that a decoder wanted to read."""


class Cursor:
    """Where a decoder is in a device's state.

    Attributes:
        position: bytes from the start of the state.
        origin: where the last byte of those passed came from.
        first: where the first byte of the current record came from.
    """

    def __init__(self) -> None:
        self.position = 0
        self.origin = ""
        self.first = ""
        self._begun = False
        self._view = memoryview(b"")
        self._hole = 0
        self._fed_from = ""
        self._ended = ""

    # For decoders

    def more(self) -> Generator[None, None, bool]:
        """Wait until there is another byte, True, or the state has ended, False."""
        while not self._view and not self._hole:
            if self._ended:
                return False
            yield None
        return True

    def read(self, count: int) -> Generator[None, None, bytes]:
        """Read the next ``count`` bytes, `READ_LIMIT` at most.

        Raises:
            StateEnds: they are not all there. `RecordReader` waits for it.
        """
        if count > READ_LIMIT:
            raise ValueError(f"{count} bytes are too many to be read at once")
        data = bytearray()
        while len(data) < count:
            if not (yield from self.more()):
                raise StateEnds(self._ended)
            if not self._view:
                raise StateEnds("bytes are missing in a header")
            part = self._view[: count - len(data)]
            data += part
            self._move(len(part))
        return bytes(data)

    def skip(self, count: int) -> Generator[None, None, int]:
        """Pass over ``count`` bytes; give how many of them are missing, at the end too."""
        missing = 0
        while count:
            if not (yield from self.more()):
                return missing + count
            step, lost = self.drop(count)
            count -= step
            missing += lost
        return missing

    @property
    def upcoming(self) -> str:
        """Where the next byte came from, if there is `more`."""
        return self._fed_from

    # For those who run one

    def feed(self, data: Buffer, origin: str) -> None:
        """Take the next piece; the one before must have been used up."""
        self._view = memoryview(data)
        self._fed_from = origin

    def feed_hole(self, length: int, origin: str) -> None:
        """Take a hole."""
        self._hole = length
        self._fed_from = origin

    def end(self, reason: str) -> None:
        """Take the end of the state."""
        self._ended = reason

    def begin(self) -> None:
        """Let the next record begin with the next byte."""
        self._begun = False

    def drop(self, limit: int | None = None) -> tuple[int, int]:
        """Pass over what is there, ``limit`` bytes at most; give how many, and how many miss."""
        size = len(self._view) or self._hole
        step = size if limit is None else min(size, limit)
        missing = 0 if self._view else step
        self._move(step)
        return step, missing

    def _move(self, count: int) -> None:
        if self._view:
            self._view = self._view[count:]
        else:
            self._hole -= count
        self.position += count
        self.origin = self._fed_from
        if not self._begun:
            self._begun = True
            self.first = self.origin


@dataclass(frozen=True, slots=True)
class Located:
    """A record, and where its first and its last byte came from."""

    record: Record
    first: str = ""
    last: str = ""


class RecordReader:
    """Runs a decoder over pieces of a device's state; every byte of it is in some record.

    What a decoder does not take, and what is behind a hole that it cannot pass, becomes a record
    of its own with a problem.

    Attributes:
        lost: bytes fed behind a hole of unknown length: their place is not known.
        undecoded: the last record, if it is what the decoder did not take.
    """

    def __init__(self, decode: Callable[[Cursor], Records]) -> None:
        self.lost = 0
        self.undecoded: Record | None = None
        self._ended = False
        self._cursor = Cursor()
        self._steps = self._run(decode)

    def feed(self, data: Buffer, origin: str = "") -> Iterator[Located]:
        """Give the records that end in a piece, or right before it."""
        if self._ended:
            self.lost += len(data)
        elif len(data):
            self._cursor.feed(data, origin)
            yield from self._drain()

    def feed_hole(self, length: int | None, origin: str = "") -> Iterator[Located]:
        """Give the records that end in a hole; behind one of unknown length there are none."""
        if self._ended:
            self.lost += length or 0
        elif length is None:
            yield from self.finish("a hole of unknown length follows")
        elif length:
            self._cursor.feed_hole(length, origin)
            yield from self._drain()

    def finish(self, reason: str = "the state ends in it") -> Iterator[Located]:
        """Give what is left at the end, or where the state cannot be followed for a ``reason``."""
        if not self._ended:
            self._ended = True
            self._cursor.end(reason)
            yield from self._drain()

    def _drain(self) -> Iterator[Located]:
        cursor = self._cursor
        for record in self._steps:
            if record is None:
                return
            yield Located(record, cursor.first, cursor.origin)
            cursor.begin()

    def _run(self, decode: Callable[[Cursor], Records]) -> Records:
        """Run the decoder, then take what it has left."""
        cursor = self._cursor
        start, missing = 0, 0
        problem = "behind the last record"
        try:
            for record in decode(cursor):
                if record is not None:
                    start = cursor.position
                yield record
        except StateEnds as error:
            problem = str(error)
        except WireError as error:
            problem = error.reason
        except Exception as error:
            # Anybody's plug-in: what it may raise is not known.
            problem = f"the driver's decoder failed: {failure_text(error)}"
        while (yield from cursor.more()):
            _, lost = cursor.drop()
            missing += lost
        if cursor.position > start:
            length = cursor.position - start
            self.undecoded = Record(
                offset=start, length=length, name="undecoded", missing=missing, problem=problem
            )
            yield self.undecoded
