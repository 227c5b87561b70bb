# SPDX-License-Identifier: GPL-2.0-or-later
"""Input files: opened, decompressed where needed, mapped into memory.

A plain file is mapped as it is. Compressed files, pipes and standard input are copied to an
unlinked temporary file first, because streams refer to the capture by offset; the copy is
limited, since a small compressed file can hold any number of bytes.
"""

from __future__ import annotations

import mmap
import os
import stat
import sys
import zlib
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, Protocol

from mfdtool.errors import CaptureError
from mfdtool.packets.info import Format
from mfdtool.packets.pcap import is_pcap
from mfdtool.packets.pcapng import is_pcapng

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self

DEFAULT_LIMIT: Final = 64 << 30
"""Bytes that a temporary copy may have, unless the caller says otherwise."""

STANDARD_INPUT: Final = "-"

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"
"""Bytes 1 to 3 of a frame without data, as parallel compressors put in front."""
_MAGIC_SIZE: Final = 4

_COPY_SIZE: Final = 1 << 20
_PIECE_SIZE: Final = 512
"""Compressed bytes that are decompressed at a time: what bounds the memory (zstd makes at most
128 KiB of 4 bytes) and what is lost before damage (an error discards its piece's output)."""

_HINTS: Final = {
    b"QEVM": "a raw main stream: use --main FILE",
    b"\x11\x22\x33\x44": "a raw multifd channel: use --multifd FILE",
    b"\x7fELF": "an ELF file",
    b"QFI\xfb": "a qcow2 disk image",
    b"snoo": "a snoop capture: convert it with editcap -F pcapng",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"BZh": "bzip2 data: decompress it first",
    b"\xfd7zX": "xz data: decompress it first",
    b"\x04\x22\x4d\x18": "lz4 data: decompress it first",
    _ZSTD: "zstd data inside compressed data: decompress it first",
    _GZIP: "gzip data inside compressed data: decompress it first",
    b"\x16\x03": "a raw TLS stream",
    b"\0\0\0\0": "zeros, as of a file that was never written",
}


class Source:
    """A mapped input file; a context manager that unmaps it.

    Attributes:
        view: the content; it must not be used after the source is closed.
        path: the file as the user named it.
        kind: its format.
        problems: what is wrong with the compression around it; the content goes up to there.
    """

    def __init__(
        self,
        mapping: mmap.mmap,
        *,
        path: str,
        kind: Format,
        problems: tuple[CaptureError, ...] = (),
    ) -> None:
        self.view = memoryview(mapping)
        self.path = path
        self.kind = kind
        self.problems = problems
        self._mapping = mapping

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the file; doing it twice is allowed."""
        self.view.release()
        # Slices that somebody still holds keep the mapping alive; it goes with the last one.
        with suppress(BufferError):
            self._mapping.close()

    def drop_pages(self, start: int, stop: int) -> None:
        """Let go of the memory of ``view[start:stop]``, which was read; it can be read again."""
        start -= start % mmap.PAGESIZE
        stop = min(stop, len(self.view))
        if stop < len(self.view):
            stop -= stop % mmap.PAGESIZE
        if start < stop:
            self._mapping.madvise(mmap.MADV_DONTNEED, start, stop - start)


def open_capture(path: str | os.PathLike[str], *, limit: int = DEFAULT_LIMIT) -> Source:
    """Open a pcap or pcapng file, plain or compressed, or standard input (``-``).

    Raises:
        CaptureError: the file cannot be read, is empty, is not a capture, or its copy would
            have more than ``limit`` bytes.
    """
    return _open(path, limit=limit, recognise=_recognise)


def open_raw(path: str | os.PathLike[str], *, limit: int = DEFAULT_LIMIT) -> Source:
    """Open a file that holds the bytes of one stream, plain or compressed.

    Raises:
        CaptureError: the file cannot be read, is empty, or its copy would have more than
            ``limit`` bytes.
    """
    return _open(path, limit=limit, recognise=lambda start, path: Format.RAW)


def _open(
    path: str | os.PathLike[str], *, limit: int, recognise: Callable[[bytes, str], Format]
) -> Source:
    name = os.fspath(path)
    problems: list[CaptureError] = []
    try:
        with _open_file(name) as file:
            start = file.read(_MAGIC_SIZE)
            codec = _codec_of(start)
            if codec is not None:
                pieces = _decompress(_read(start, file, _PIECE_SIZE), codec, name, problems)
                mapping = _map_copy(pieces, name, limit)
            elif name == STANDARD_INPUT or not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                mapping = _map_copy(_read(start, file, _COPY_SIZE), name, limit)
            else:
                mapping = _map(file, name)
    except OSError as error:
        raise CaptureError(error.strerror or str(error), path=name) from error
    try:
        kind = recognise(mapping[:_MAGIC_SIZE], name)
    except CaptureError:
        mapping.close()
        raise
    return Source(mapping, path=name, kind=kind, problems=tuple(problems))


def _open_file(name: str) -> AbstractContextManager[BinaryIO]:
    if name != STANDARD_INPUT:
        return Path(name).open("rb")
    if sys.stdin is None:
        raise CaptureError("there is no standard input", path=name)
    return nullcontext(sys.stdin.buffer)


def _recognise(start: bytes, path: str) -> Format:
    if is_pcap(start):
        return Format.PCAP
    if is_pcapng(start):
        return Format.PCAPNG
    hint = next((f" ({hint})" for magic, hint in _HINTS.items() if start.startswith(magic)), "")
    raise CaptureError(f"not a capture, it begins with {start.hex()}{hint}", path=path, offset=0)


def _map(file: BinaryIO, path: str) -> mmap.mmap:
    if os.fstat(file.fileno()).st_size == 0:
        raise CaptureError("is empty", path=path)
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _map_copy(pieces: Iterable[bytes], path: str, limit: int) -> mmap.mmap:
    """Map a temporary file that holds the pieces; it has no name, so it cannot be left over."""
    # Most captures need no copy, and this import takes as long as reading a small one.
    from tempfile import TemporaryFile

    size = 0
    with TemporaryFile() as copy:
        for piece in pieces:
            size += len(piece)
            if size > limit:
                reason = f"its content is longer than the limit of {limit} bytes"
                raise CaptureError(reason, path=path)
            copy.write(piece)
        copy.flush()
        return _map(copy, path)


def _read(start: bytes, file: BinaryIO, size: int) -> Iterator[bytes]:
    """Give a file whose first bytes have been read already, in pieces."""
    piece = start
    while piece:
        yield piece
        piece = file.read(size)


class _Decompressor(Protocol):
    """What zlib and zstandard have in common: one object decompresses one member or frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Codec(NamedTuple):
    """A way of compression: what decompresses one member or frame, and how it says "damaged"."""

    new: Callable[[], _Decompressor]
    error: type[Exception]


def _codec_of(start: bytes) -> _Codec | None:
    """Choose by the first bytes of a file; None: it is not compressed."""
    if start.startswith(_GZIP):
        return _Codec(lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 16), zlib.error)
    if start.startswith(_ZSTD) or start[1:] == _ZSTD_SKIPPABLE:
        # Imported when wanted, as above.
        import zstandard

        return _Codec(zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError)
    return None


class _Members:
    """Decompresses what was compressed in several parts, one after the other."""

    def __init__(self, new: Callable[[], _Decompressor]) -> None:
        self._new = new
        self._current = new()

    @property
    def complete(self) -> bool:
        """Whether the last part is all there."""
        return self._current.eof

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Give the content of the next piece of input."""
        while piece:
            if self._current.eof:
                # Zeros pad an archive to the blocks of a tape.
                piece = piece.lstrip(b"\0")
                if not piece:
                    return
                self._current = self._new()
            yield self._current.decompress(piece)
            piece = self._current.unused_data if self._current.eof else b""


def _decompress(
    pieces: Iterable[bytes],
    codec: _Codec,
    path: str,
    problems: list[CaptureError],
) -> Iterator[bytes]:
    """Decompress up to the end or to damage, which is put down in ``problems``.

    Raises:
        CaptureError: damage comes before any content.
    """
    members = _Members(codec.new)
    position = size = 0
    reason = "the compressed data ends early"
    try:
        for piece in pieces:
            for content in members.feed(piece):
                size += len(content)
                yield content
            position += len(piece)
    except codec.error as error:
        reason = f"the compressed data is damaged: {error}"
    else:
        if members.complete:
            return
    problem = CaptureError(reason, path=path, offset=position)
    if not size:
        raise problem
    problems.append(problem)
