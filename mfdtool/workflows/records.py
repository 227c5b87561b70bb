# SPDX-License-Identifier: GPL-2.0-or-later
"""``extract --records``: a device's state as the records that its driver wrote.

What tells the driver is known at the end only, when the device's config has come. So every driver
that may be it decodes along, into a temporary file of its own; in the end one of them is shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mfdtool.report.records import header_text, record_json, record_text
from mfdtool.stream.extraction import Hole
from mfdtool.stream.pci_fields import pci_state
from mfdtool.stream.span import Span
from mfdtool.wire.vendors import pieces
from mfdtool.wire.vendors.cursor import RecordReader
from mfdtool.wire.vendors.vendor import HEAD_SIZE, Evidence
from mfdtool.workflows.extract import FileSpool, check_found

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from mfdtool.stream.device_data import DeviceExtractor
    from mfdtool.stream.extraction import Pieces
    from mfdtool.wire.vendors.cursor import Located
    from mfdtool.wire.vendors.registry import Registry
    from mfdtool.wire.vendors.vendor import Vendor
    from mfdtool.workflows.reading import Reading

_BLOCK: Final = 1 << 16
_HOLES_LISTED: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsResult:
    """How it went.

    Attributes:
        vendor: whose format the records were read by, ``none`` if by nobody's.
        why: what speaks for that; empty if the user named it.
        holes: what is missing, in words.
        problems: what else is wrong.
        notes: what the user may want to know besides.
    """

    vendor: str
    why: str
    holes: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether everything was there, as far as one can tell."""
        return not self.holes and not self.problems


class RecordsExtraction:
    """Reads an input once and decodes a device's state; a context manager.

    ``vendor`` is the driver to decode by; without it, the one of ``registry`` that the state and
    the device's config speak for.
    """

    def __init__(
        self,
        extractor: DeviceExtractor,
        registry: Registry,
        *,
        vendor: Vendor | None = None,
        as_json: bool = False,
    ) -> None:
        self._extractor = extractor
        self._registry = registry
        self._vendor = vendor
        self._stack = ExitStack()
        candidates = (*registry, pieces.VENDOR) if vendor is None else (vendor,)
        self._candidates = {
            each.name: _Candidate(each, self._stack.enter_context(FileSpool()), as_json=as_json)
            for each in candidates
        }
        self._header = "" if as_json else header_text()
        self._head = b""
        self._head_ended = False
        self._holes: list[str] = []
        self._shown = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(self, reading: Reading) -> RecordsResult:
        """Read an input whose frames keep their extents.

        Raises:
            CaptureError: there is no state of such a device.
        """
        extractor = self._extractor
        wanted = extractor.migration
        for frame in reading.frames():
            if frame.channel.migration == wanted:
                self._take(extractor.add(frame))
        migrations = reading.decoder.migrations
        self._take(extractor.finish(migrations[wanted] if wanted < len(migrations) else None))
        check_found(extractor, reading)
        for candidate in self._candidates.values():
            candidate.finish()
        vendor, why = self._choose()
        self._shown = vendor.name
        lost = self._candidates[vendor.name].lost
        problems = list(extractor.remarks.problems)
        if undecoded := self._candidates[vendor.name].undecoded:
            problems.append(undecoded)
        if lost:
            problems.append(f"{lost} bytes behind a hole of unknown length are not decoded")
        return RecordsResult(
            vendor=vendor.name,
            why=why,
            holes=tuple(self._holes),
            problems=tuple(problems),
            notes=tuple(extractor.remarks.notes),
        )

    def text(self) -> Iterator[bytes]:
        """Give the lines of what `run` found, in blocks."""
        yield self._header.encode()
        yield from self._candidates[self._shown].text()

    def _choose(self) -> tuple[Vendor, str]:
        if self._vendor is not None:
            return self._vendor, ""
        state = pci_state(self._extractor.config)
        pci = None if state is None else (state.header.vendor_id, state.header.device_id)
        choice = self._registry.choose(Evidence(self._head[:HEAD_SIZE], pci))
        return choice.vendor or pieces.VENDOR, choice.why

    def _take(self, found: Pieces) -> None:
        for piece in found:
            origin = self._extractor.origin
            if isinstance(piece, Hole):
                self._head_ended = True
                self._tell(piece)
            elif not self._head_ended:
                self._head += bytes(piece[: HEAD_SIZE - len(self._head)])
                self._head_ended = len(self._head) == HEAD_SIZE
            for candidate in self._candidates.values():
                candidate.take(piece, origin)

    def _tell(self, hole: Hole) -> None:
        if len(self._holes) < _HOLES_LISTED:
            self._holes.append(hole.what)
        elif len(self._holes) == _HOLES_LISTED:
            self._holes.append("more holes")


class _Candidate:
    """A driver that may be the one, and the records that its decoder finds."""

    def __init__(self, vendor: Vendor, spool: FileSpool, *, as_json: bool) -> None:
        self._name = vendor.name
        self._reader = RecordReader(vendor.decode)
        self._spool = spool
        self._as_json = as_json
        self._lines: list[bytes] = []
        self._size = 0
        self._written = 0

    @property
    def undecoded(self) -> str:
        """What its decoder has left, and why; empty if it took everything."""
        rest = self._reader.undecoded
        if rest is None:
            return ""
        return f"{rest.length} bytes from offset {rest.offset} are undecoded: {rest.problem}"

    @property
    def lost(self) -> int:
        """Bytes whose place in the state is not known."""
        return self._reader.lost

    def take(self, piece: memoryview | bytes | Hole, origin: str) -> None:
        """Decode a piece."""
        if isinstance(piece, Hole):
            self._write(self._reader.feed_hole(piece.length, piece.what))
        else:
            self._write(self._reader.feed(piece, origin))

    def finish(self) -> None:
        """Decode what is left."""
        self._write(self._reader.finish())
        self._flush()

    def text(self) -> Iterator[bytes]:
        """Give the records' lines."""
        return self._spool.get(Span(0, self._written))

    def _write(self, found: Iterable[Located]) -> None:
        for located in found:
            text = self._render(located)
            self._lines.append(text.encode())
            self._size += len(text)
            if self._size > _BLOCK:
                self._flush()

    def _render(self, located: Located) -> str:
        if self._as_json:
            return record_json(located, vendor=self._name)
        return record_text(located)

    def _flush(self) -> None:
        self._written = self._spool.put(self._lines).stop
        self._lines = []
        self._size = 0
