# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the bytes of a stream are.

A stream is what one direction of a connection carried, numbered from 0. It arrives as *runs*
(bytes that are there, by reference), *gaps* (bytes that the capture lacks) and one *end*,
in stream order and without overlap: every position belongs to exactly one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``start`` to ``stop`` (exclusive) of a channel's stream."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many bytes; a wire's lengths are too large for ``len``."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a stream that is all there, in one or more pieces.

    Piece ``i`` begins at stream position ``starts[i]`` and at ``buffer[offsets[i]]``; it ends
    where the next one begins, the last one at ``stop``. ``records[i]`` is the capture record
    at whose arrival the receiver could read the whole piece (so it never decreases), and
    ``times[i]`` that record's time in nanoseconds.
    """

    buffer: memoryview
    start: int
    stop: int
    starts: Sequence[int]
    offsets: Sequence[int]
    records: Sequence[int]
    times: Sequence[int]


@dataclass(frozen=True, slots=True)
class Gap:
    """Stream positions ``start`` to ``stop`` (exclusive) that the capture does not have."""

    start: int
    stop: int
    reason: str


class EndReason(Enum):
    """Why a stream ends."""

    FIN = "FIN"
    RST = "RST"
    CAPTURE = "end of capture"
    """The capture stops, the connection was still open."""


@dataclass(frozen=True, slots=True)
class End:
    """The stream ends at ``position``."""

    position: int
    reason: EndReason
    record: int
    time_ns: int


def run_of(
    data: bytes | bytearray | memoryview, *, start: int = 0, record: int = 0, time_ns: int = -1
) -> Run:
    """Make a run of one piece from bytes in memory."""
    view = memoryview(data)
    return Run(view, start, start + len(view), (start,), (0,), (record,), (time_ns,))
