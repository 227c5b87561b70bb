# SPDX-License-Identifier: GPL-2.0-or-later
"""Decompression of whole files, piece by piece, with bounded memory.

A small compressed file can hold any number of bytes, so what comes out is limited by whoever
takes it, and no step makes much at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, Protocol

from mfdtool.errors import CaptureError

PIECE_SIZE: Final = 512
"""Compressed bytes that are decompressed at a time: what bounds the memory (zstd makes at most
128 KiB of 4 bytes) and what is lost before damage (an error discards its piece's output)."""

_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"
"""Bytes 1 to 3 of a frame without data, as parallel compressors put in front."""

_OUTPUT_SIZE: Final = 1 << 20
_XZ_MEMORY: Final = 256 << 20
"""Bytes that xz may take: its strongest preset wants 65 MiB."""


class Decompressor(Protocol):
    """What zlib and zstandard have in common: one object decompresses one member or frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class PortionedDecompressor(Protocol):
    """What bz2 and lzma have in common: they make no more than they are asked for."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class Portions:
    """Makes a decompressor of the second kind like those of the first, but for `portions`."""

    def __init__(self, inner: PortionedDecompressor) -> None:
        self._inner = inner

    @property
    def eof(self) -> bool:
        """Whether the member is over."""
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        """What follows it."""
        return self._inner.unused_data

    def portions(self, data: bytes) -> Iterator[bytes]:
        """Give the content of the next piece of input."""
        yield self._inner.decompress(data, _OUTPUT_SIZE)
        while not self._inner.eof and not self._inner.needs_input:
            yield self._inner.decompress(b"", _OUTPUT_SIZE)


class Codec(NamedTuple):
    """A way of compression: what decompresses one member or frame, and how it says "damaged"."""

    new: Callable[[], Decompressor | Portions]
    error: type[Exception]


def gzip_codec() -> Codec:
    """Give the codec for gzip."""
    return Codec(lambda: zlib.decompressobj(wbits=zlib.MAX_WBITS | 16), zlib.error)


def zstd_codec() -> Codec:
    """Give the codec for zstd."""
    # Imported when wanted: most captures need no decompression, and a small one is read in the
    # time that this takes.
    import zstandard

    return Codec(zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError)


def bzip2_codec() -> Codec:
    """Give the codec for bzip2."""
    import bz2

    return Codec(lambda: Portions(bz2.BZ2Decompressor()), OSError)


def xz_codec() -> Codec:
    """Give the codec for xz."""
    import lzma

    def new() -> Portions:
        return Portions(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))

    return Codec(new, lzma.LZMAError)


def codec_of(start: bytes) -> Codec | None:
    """Choose by the first bytes of a file; None: it is not compressed, or in no usual way."""
    if start.startswith(_GZIP):
        return gzip_codec()
    if start.startswith(_ZSTD) or start[1:4] == _ZSTD_SKIPPABLE:
        return zstd_codec()
    return None


class _Members:
    """Decompresses what was compressed in several parts, one after the other."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._current = codec.new()

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
                self._current = self._codec.new()
            yield from self._decompress(piece)
            piece = self._current.unused_data if self._current.eof else b""

    def _decompress(self, piece: bytes) -> Iterator[bytes]:
        if isinstance(self._current, Portions):
            yield from self._current.portions(piece)
        else:
            yield self._current.decompress(piece)


def decompress(
    pieces: Iterable[bytes],
    codec: Codec,
    path: str,
    problems: list[CaptureError],
) -> Iterator[bytes]:
    """Decompress up to the end or to damage, which is put down in ``problems``.

    Raises:
        CaptureError: damage comes before any content.
    """
    members = _Members(codec)
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
