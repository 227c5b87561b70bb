# SPDX-License-Identifier: GPL-2.0-or-later
"""What a capture file says about itself, collected while its records are read.

A reader fills a `CaptureInfo` as it meets each statement, so it is complete when the iteration
has ended. Texts come from the file: they are shown, never believed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from mfdtool.packets.values import NO_TIME

NANOSECONDS: Final = 1_000_000_000
"""How many of them a second has."""

MAX_COMMENTS: Final = 10_000
MAX_COMMENT_TEXT: Final = 4 << 20
"""Comments that are kept, and characters of all of them together: a recorder may put a comment
on each of millions of records."""

MAX_INTERFACES: Final = 4096
"""Interfaces that a file may describe; more than that is damage."""

MAX_TIME_NS: Final = (1 << 63) - 1
"""The latest time that is told, in the year 2262: it still fits a signed 64-bit array."""


class ByteOrder(StrEnum):
    """Order of the bytes of the file's own numbers, as `struct` spells it."""

    LITTLE = "<"
    BIG = ">"


class Format(StrEnum):
    """File formats."""

    PCAP = "pcap"
    PCAPNG = "pcapng"
    RAW = "raw"
    """The bytes of one stream; not a capture."""

    LIBVIRT = "libvirt save image"
    QCOW2 = "qcow2 image"
    """Files that hold main streams besides other things."""


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface that records came from.

    ``index`` counts over all sections of the file (the number that `Record.interface` holds).
    A time stamp counts ticks of ``1 / ticks_per_second`` seconds, ``offset_seconds`` is added.
    ``snaplen`` is 0 when frames were not cut.
    """

    index: int
    linktype: int
    snaplen: int = 0
    ticks_per_second: int = NANOSECONDS
    offset_seconds: int = 0
    name: str = ""
    description: str = ""
    hardware: str = ""
    os: str = ""
    filter: str = ""

    def time_ns(self, ticks: int) -> int:
        """Turn a time stamp into nanoseconds since the epoch.

        What is not between the years 1970 and 2262 is no time that a capture can have been
        made at; it becomes NO_TIME.
        """
        time = ticks * NANOSECONDS // self.ticks_per_second + self.offset_seconds * NANOSECONDS
        return time if 0 <= time <= MAX_TIME_NS else NO_TIME

    def ticks(self, time_ns: int) -> int:
        """Turn a time into this interface's time stamp; NO_TIME and what is before 0 give 0."""
        since_offset = time_ns - self.offset_seconds * NANOSECONDS
        return max(since_offset, 0) * self.ticks_per_second // NANOSECONDS


@dataclass(frozen=True, slots=True)
class Statistics:
    """What a capturing system counted on one interface; None: it did not say."""

    interface: int
    received: int | None = None
    dropped_by_interface: int | None = None
    accepted_by_filter: int | None = None
    dropped_by_os: int | None = None
    delivered: int | None = None


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment in a capture, on record ``record`` or (0) on something else at ``offset``."""

    text: str
    offset: int
    record: int = 0


@dataclass(slots=True)
class CaptureInfo:
    """What is known about a capture file; a reader fills it.

    ``byte_order`` is that of the first section. ``statistics`` holds the last statement per
    interface (they are running totals). ``dropped_before_records`` adds up the losses that
    single records report. ``comments_omitted`` counts comments beyond the limits, and
    ``damaged_options`` blocks whose options (names, comments, drop counts) end in nonsense;
    their records are good.
    """

    format: Format | None = None
    byte_order: ByteOrder | None = None
    sections: int = 0
    interfaces: list[Interface] = field(default_factory=list)
    statistics: dict[int, Statistics] = field(default_factory=dict)
    dropped_before_records: int = 0
    comments: list[Comment] = field(default_factory=list)
    comments_omitted: int = 0
    damaged_options: int = 0
    hardware: str = ""
    os: str = ""
    application: str = ""
    _comment_text: int = field(default=0, init=False, repr=False, compare=False)

    @property
    def snaplen(self) -> int:
        """The largest snap length of all interfaces, 0 when one of them does not cut."""
        lengths = [interface.snaplen for interface in self.interfaces]
        return max(lengths) if lengths and all(lengths) else 0

    @property
    def dropped(self) -> int:
        """Frames that the capturing system says it lost.

        Records and statistics count the same losses, so the greater sum is told.
        """
        counted = sum(
            (entry.dropped_by_interface or 0) + (entry.dropped_by_os or 0)
            for entry in self.statistics.values()
        )
        return max(counted, self.dropped_before_records)

    def add_comment(self, comment: Comment) -> None:
        """Keep a comment, or count it when there are too many."""
        total = self._comment_text + len(comment.text)
        if len(self.comments) < MAX_COMMENTS and total <= MAX_COMMENT_TEXT:
            self.comments.append(comment)
            self._comment_text = total
        else:
            self.comments_omitted += 1
