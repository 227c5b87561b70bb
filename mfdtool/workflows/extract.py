# SPDX-License-Identifier: GPL-2.0-or-later
"""``extract``: read an input once and write one byte string of it.

Pieces are written as soon as their turn comes. What arrives before its turn waits in an unnamed
temporary file, so memory does not grow with the state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from mfdtool.errors import CaptureError
from mfdtool.stream.extraction import Extractor, Hole, Pieces
from mfdtool.stream.span import Span

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from mfdtool.workflows.reading import Reading

FILL_LIMIT: Final = 4 << 30
"""Bytes of filler that a hole can get; one that claims to be longer is not believed."""

TEXT_LIMIT: Final = 64 << 20
"""Bytes of a text that is read as a whole; a vmdescription has some hundred thousand."""

_BLOCK: Final = 1 << 20
_HOLES_LISTED: Final = 50


class Sink(Protocol):
    """Where the bytes go."""

    def write(self, data: memoryview | bytes, /) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """How it went.

    Attributes:
        written: bytes that were written, filler included.
        filled: bytes of filler among them.
        holes: what is missing, in words.
        problems: what else is wrong.
        notes: where it came from, and what else there would be.
    """

    written: int
    filled: int
    holes: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether everything was there, as far as one can tell."""
        return not self.holes and not self.problems


class OutputFile:
    """A file that is made, or emptied, when something is written to it at last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def write(self, data: memoryview | bytes, /) -> int:
        """Write bytes; an empty string makes an empty file."""
        if self._file is None:
            self._file = self._path.open("wb", buffering=_BLOCK)
        return self._file.write(data)

    def close(self) -> None:
        """Close the file if there is one."""
        if self._file is not None:
            self._file.close()


class TextBuffer:
    """Keeps a text of limited length in memory."""

    def __init__(self) -> None:
        self.text = bytearray()

    def write(self, data: memoryview | bytes, /) -> int:
        """Keep bytes.

        Raises:
            CaptureError: they are more than any real text has.
        """
        if len(self.text) + len(data) > TEXT_LIMIT:
            raise CaptureError(f"the text has more than {TEXT_LIMIT} bytes, try without --pretty")
        self.text += data
        return len(data)


class FileSpool:
    """A `mfdtool.stream.extraction.Spool` in a temporary file; a context manager."""

    def __init__(self) -> None:
        self._file: BinaryIO = TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def put(self, views: Iterable[memoryview | bytes]) -> Span:
        """Keep bytes; give where they are."""
        start = self._size
        self._file.seek(start)
        for view in views:
            self._size += self._file.write(view)
        return Span(start, self._size)

    def get(self, span: Span) -> Iterator[bytes]:
        """Give bytes that were kept."""
        position = span.start
        while position < span.stop:
            self._file.seek(position)
            data = self._file.read(min(_BLOCK, span.stop - position))
            position += len(data)
            yield data

    def clear(self) -> None:
        """Forget everything, so that the file does not grow for ever."""
        self._file.truncate(0)
        self._size = 0


def extract(
    reading: Reading, extractor: Extractor, sink: Sink, *, fill: int | None = None
) -> Extraction:
    """Write what ``extractor`` finds in an input whose frames keep their extents.

    At the first hole writing stops, unless ``fill`` is the byte to put there; a hole of unknown
    length is left out then.

    Raises:
        CaptureError: there is nothing of what is wanted.
        OSError: ``sink`` cannot be written.
    """
    writer = _Writer(sink, fill)
    wanted = extractor.migration
    others = False
    for frame in reading.frames():
        if frame.channel.migration == wanted:
            writer.write(extractor.add(frame))
        else:
            others = True
    migrations = reading.decoder.migrations
    writer.write(extractor.finish(migrations[wanted] if wanted < len(migrations) else None))
    check_found(extractor, reading)
    notes = list(extractor.remarks.notes)
    if others:
        notes.append(f"this is migration {wanted} of {len(migrations)}, see --migration")
    return Extraction(
        written=writer.written,
        filled=writer.filled,
        holes=tuple(writer.holes),
        problems=tuple(extractor.remarks.problems),
        notes=tuple(notes),
    )


def check_found(extractor: Extractor, reading: Reading) -> None:
    """Check that an input, read to its end, has something of what was wanted.

    Raises:
        CaptureError: it has migrations, but nothing of that.
    """
    migrations, wanted = reading.decoder.migrations, extractor.migration
    if not migrations or extractor.found:
        return
    reason = extractor.wanted()
    if wanted >= len(migrations):
        reason = f"no migration {wanted}; there are {len(migrations)}, the first is 0"
    raise CaptureError(reason, path=reading.input.capture or "")


class _Writer:
    """Writes pieces up to the first hole, or over all holes if there is filler."""

    def __init__(self, sink: Sink, fill: int | None) -> None:
        self._sink = sink
        self._fill = None if fill is None else bytes([fill]) * _BLOCK
        self._stopped = False
        self._omitted = 0
        self.written = 0
        self.filled = 0
        self.holes: list[str] = []

    def write(self, pieces: Pieces) -> None:
        for piece in pieces:
            if isinstance(piece, Hole):
                self._hole(piece)
            elif not self._stopped:
                self._sink.write(piece)
                self.written += len(piece)

    def _hole(self, hole: Hole) -> None:
        length = hole.length
        fillable = self._fill is not None and length is not None and length <= FILL_LIMIT
        if self._fill is None:
            done = "" if self._stopped else f"; writing stopped there, after {self.written} bytes"
            self._stopped = True
        elif fillable:
            done = f"; filled at output offset {self.written}"
        else:
            done = f"; length unknown, not filled at output offset {self.written}"
        self._tell(f"{hole.what}{done}")
        if fillable:
            self._write_filler(length or 0)

    def _write_filler(self, length: int) -> None:
        assert self._fill is not None
        self.filled += length
        self.written += length
        while length:
            length -= self._sink.write(self._fill[:length])

    def _tell(self, text: str) -> None:
        if len(self.holes) < _HOLES_LISTED:
            self.holes.append(text)
        else:
            self._omitted += 1
            self.holes[-1] = f"{self._omitted + 1} more holes"
