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
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from mfdtool.capture.compression import PIECE_SIZE, codec_of, decompress
from mfdtool.errors import CaptureError
from mfdtool.packets.info import Format
from mfdtool.packets.pcap import is_pcap
from mfdtool.packets.pcapng import is_pcapng
from mfdtool.packets.qcow2 import is_qcow2
from mfdtool.packets.save_image import is_save_image
from mfdtool.wire.constants import QEMU_VM_FILE_MAGIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import Self

DEFAULT_LIMIT: Final = 64 << 30
"""Bytes that a temporary copy may have, unless the caller says otherwise."""

STANDARD_INPUT: Final = "-"

_MAGIC_SIZE: Final = 16
_SHOWN: Final = 4
_COPY_SIZE: Final = 1 << 20

_MAIN_STREAM: Final = QEMU_VM_FILE_MAGIC.to_bytes(4)
_HINTS: Final = {
    _MAIN_STREAM: "a raw main stream: use --main FILE",
    b"\x11\x22\x33\x44": "a raw multifd channel: use --multifd FILE",
    b"\x7fELF": "an ELF file",
    b"QFI\xfb": "a qcow2 disk image",
    b"snoo": "a snoop capture: convert it with editcap -F pcapng",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"BZh": "bzip2 data: decompress it first",
    b"\xfd7zX": "xz data: decompress it first",
    b"\x04\x22\x4d\x18": "lz4 data: decompress it first",
    b"\x28\xb5\x2f\xfd": "zstd data inside compressed data: decompress it first",
    b"\x1f\x8b": "gzip data inside compressed data: decompress it first",
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


def open_input(path: str | os.PathLike[str], *, limit: int = DEFAULT_LIMIT) -> Source:
    """Open what a user may name: a capture, or a file that holds main streams.

    Raises:
        CaptureError: the file cannot be read, is empty, is nothing of that, or its copy would
            have more than ``limit`` bytes.
    """
    return _open(path, limit=limit, recognise=_recognise_input)


def open_main(path: str | os.PathLike[str], *, limit: int = DEFAULT_LIMIT) -> Source:
    """Open a file that holds main streams, or whose bytes are to be taken for one.

    Raises:
        CaptureError: the file cannot be read, is empty, or its copy would have more than
            ``limit`` bytes.
    """
    return _open(path, limit=limit, recognise=lambda start, path: _container(start) or Format.RAW)


def open_copy(
    pieces: Iterable[bytes], path: str, *, problems: list[CaptureError], limit: int = DEFAULT_LIMIT
) -> Source:
    """Keep pieces of a stream in a temporary file; ``problems`` may grow with them.

    Raises:
        CaptureError: there is none, they have more than ``limit`` bytes, or there is no room.
    """
    try:
        mapping = _map_copy(pieces, path, limit)
    except OSError as error:
        raise CaptureError(error.strerror or str(error), path=path) from error
    return Source(mapping, path=path, kind=Format.RAW, problems=tuple(problems))


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
            codec = codec_of(start)
            if codec is not None:
                pieces = decompress(_read(start, file, PIECE_SIZE), codec, name, problems)
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


def _container(start: bytes) -> Format | None:
    """Tell what holds main streams."""
    if is_save_image(start):
        return Format.LIBVIRT
    return Format.QCOW2 if is_qcow2(start) else None


def _recognise_input(start: bytes, path: str) -> Format:
    if start.startswith(_MAIN_STREAM):
        return Format.RAW
    return _container(start) or _recognise(start, path)


def _recognise(start: bytes, path: str) -> Format:
    if is_pcap(start):
        return Format.PCAP
    if is_pcapng(start):
        return Format.PCAPNG
    hint = next((f" ({hint})" for magic, hint in _HINTS.items() if start.startswith(magic)), "")
    raise CaptureError(
        f"not a capture, it begins with {start[:_SHOWN].hex()}{hint}", path=path, offset=0
    )


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
