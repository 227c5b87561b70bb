# SPDX-License-Identifier: GPL-2.0-or-later
"""What extractors give: bytes by reference, and holes where the capture has none.

An extractor takes frames (of a decoder that keeps extents) in the order of arrival and gives
pieces of one byte string in *its* order, as early as it can.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.span import EndReason, Span

if TYPE_CHECKING:
    from mfdtool.stream.migration import Migration

REMARKS_LIMIT: Final = 50
"""Remarks that are kept; those beyond are counted."""


@dataclass(frozen=True, slots=True)
class Hole:
    """Bytes that are missing; ``length`` is None where nobody can know how many."""

    what: str
    length: int | None


Piece: TypeAlias = memoryview | bytes | Hole
"""A stretch of what is extracted."""

Pieces: TypeAlias = Iterator[Piece]


class Spool(Protocol):
    """Keeps bytes for later, outside of memory."""

    def put(self, views: Iterable[memoryview | bytes]) -> Span:
        """Keep bytes; give where they are."""

    def get(self, span: Span) -> Iterator[bytes]:
        """Give bytes that were kept."""

    def clear(self) -> None:
        """Forget everything."""


class Remarks:
    """What there is to say about an extraction.

    Attributes:
        problems: why what was extracted is not all, or may not be right.
        notes: what the user may want to know besides.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._omitted = 0

    def problem(self, text: str) -> None:
        """Say that something is missing or wrong."""
        if len(self.problems) < REMARKS_LIMIT:
            self.problems.append(text)
        else:
            self._omitted += 1
            self.problems[-1] = f"{self._omitted + 1} more problems like these"

    def note(self, text: str) -> None:
        """Say something that is no problem."""
        if len(self.notes) < REMARKS_LIMIT:
            self.notes.append(text)


class Extractor(ABC):
    """Base of all extractors.

    Attributes:
        migration: the one to take frames of.
        remarks: what there is to say.
        found: whether there was anything of what is wanted.
    """

    def __init__(self, migration: int) -> None:
        self.migration = migration
        self.remarks = Remarks()
        self.found = False

    @abstractmethod
    def add(self, frame: Frame) -> Pieces:
        """Take the next frame of the migration; give what can be given now."""

    @abstractmethod
    def finish(self, migration: Migration | None) -> Pieces:
        """Give what is left after the last frame, with what the decoder knows; None: nothing."""

    @abstractmethod
    def wanted(self) -> str:
        """Say what is looked for, and what there is instead, in case it was not found."""


class ChannelExtractor(Extractor):
    """A channel's stream as it was reassembled."""

    def __init__(self, migration: int, name: str) -> None:
        super().__init__(migration)
        self._name = name
        self._names: dict[str, None] = {}
        self._position = 0

    def add(self, frame: Frame) -> Pieces:
        """Give the frame's bytes."""
        name = frame.channel.name
        if name != self._name:
            self._names.setdefault(name)
        elif frame.kind is not Kind.GAP:
            self.found = True
            for extent in frame.extents:
                if extent.start > self._position:
                    yield self._hole(extent.start)
                yield extent.view
                self._position = extent.start + len(extent.view)

    def finish(self, migration: Migration | None) -> Pieces:
        """Tell whether the start or the end is missing."""
        channels = migration.channels if migration is not None else []
        for channel in channels:
            if channel.name != self._name:
                continue
            if not channel.has_start:
                self.remarks.problem(f"{self._name}: its start was not captured")
            if channel.stream.length > self._position:
                yield self._hole(channel.stream.length)
            end = channel.stream.end
            if channel.stream.key is not None and end and end.reason is EndReason.CAPTURE:
                self.remarks.note(f"{self._name}: no FIN or RST captured, more may have followed")

    def wanted(self) -> str:
        """List the channels."""
        return f"no channel {self._name}; there are {', '.join(self._names) or 'none'}"

    def _hole(self, stop: int) -> Hole:
        hole = Hole(f"{self._name}: bytes {self._position}-{stop - 1}", stop - self._position)
        self._position = stop
        return hole


class DescriptionExtractor(Extractor):
    """The vmdescription's JSON text."""

    def add(self, frame: Frame) -> Pieces:
        """Give the text."""
        if frame.kind is Kind.MAIN_VMDESCRIPTION and frame.payload is not None:
            self.found = True
            yield from pieces_of(frame, frame.payload, "vmdescription")

    def finish(self, migration: Migration | None) -> Pieces:
        """Give nothing more."""
        return iter(())

    def wanted(self) -> str:
        """Say that there is none."""
        return (
            "no vmdescription: the main stream's end is not captured, or the machine has"
            " suppress-vmdesc on"
        )


def pieces_of(frame: Frame, span: Span, what: str) -> Pieces:
    """Give a part of a frame; holes are named after ``what``, positions count from the part's."""
    position = span.start
    for extent in frame.extents:
        low = max(extent.start, position)
        high = min(extent.start + len(extent.view), span.stop)
        if low >= high:
            continue
        if low > position:
            yield _hole(what, position - span.start, low - span.start)
        yield extent.view[low - extent.start : high - extent.start]
        position = high
    if position < span.stop:
        yield _hole(what, position - span.start, span.size)


def _hole(what: str, start: int, stop: int) -> Hole:
    return Hole(f"{what}: bytes {start}-{stop - 1}", stop - start)
