# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressed RAM pages: one stream per multifd channel, one chunk of it per packet.

The stream's state is kept from packet to packet, so every packet of a channel must be fed, in
order, and after one that is lost nothing can be decompressed any more. A packet's chunk gives
exactly its normal pages (multifd-zlib.c:multifd_zlib_recv, multifd-zstd.c:multifd_zstd_recv):
the output is bounded by what the packet's header says, and that by 512 KiB.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, Protocol

import zstandard

from mfdtool.errors import UnsupportedError, WireError
from mfdtool.wire.constants import (
    MULTIFD_COMPRESSION_MASK,
    MULTIFD_FLAGS,
    MULTIFD_PACKET_SIZE,
    MULTIFD_ZLIB_BUFFER_SIZE,
    MultiFDFlag,
    flag_names,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mfdtool.wire.codec import Buffer

_PIECE: Final = 512
"""Compressed bytes that are fed to zstd at a time, which cannot be told to stop: a block of 128
KiB takes no fewer than four."""


class _Inflater(Protocol):
    """Decompresses a chunk; gives more than ``size`` bytes if there is more, but not all of it."""

    def inflate(self, chunk: bytes, size: int) -> bytes: ...


class _Zlib:
    """Zlib with sync flushes (multifd-zlib.c)."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj()

    def inflate(self, chunk: bytes, size: int) -> bytes:
        return self._stream.decompress(chunk, size + 1)


class _Zstd:
    """One zstd frame for the whole channel (multifd-zstd.c)."""

    def __init__(self) -> None:
        self._stream = zstandard.ZstdDecompressor().decompressobj()

    def inflate(self, chunk: bytes, size: int) -> bytes:
        output = bytearray()
        for start in range(0, len(chunk), _PIECE):
            output += self._stream.decompress(chunk[start : start + _PIECE])
            if len(output) > size:
                break
        return bytes(output)


_METHODS: Final[Mapping[int, Callable[[], _Inflater]]] = {
    MultiFDFlag.ZLIB.value: _Zlib,
    MultiFDFlag.ZSTD.value: _Zstd,
}


class PageDecompressor:
    """Decompresses the RAM packets of one channel."""

    def __init__(self, flags: int) -> None:
        """Set up for the method that a packet's ``flags`` name.

        Raises:
            UnsupportedError: the method is none of zlib and zstd.
        """
        method = flags & MULTIFD_COMPRESSION_MASK
        if method not in _METHODS:
            name = flag_names(method, MULTIFD_FLAGS)
            raise UnsupportedError(f"pages compressed with {name} cannot be decompressed")
        self.method = method
        self._inflater = _METHODS[method]()
        self._broken = ""

    def lose(self, reason: str) -> None:
        """Note that a packet is missing: nothing behind it can be decompressed."""
        self._broken = self._broken or reason

    def feed(self, chunk: Buffer, *, flags: int, size: int) -> bytes:
        """Give the ``size`` bytes of a packet's pages; ``chunk`` is all that follows its header.

        Raises:
            WireError: a packet before was lost or damaged, the method has changed, the chunk is
                damaged, or gives more or fewer bytes.
        """
        try:
            return self._feed(bytes(chunk), flags=flags, size=size)
        except WireError as error:
            self.lose(error.reason)
            raise

    def _feed(self, chunk: bytes, *, flags: int, size: int) -> bytes:
        if self._broken:
            raise WireError(f"an earlier packet of the channel is not usable: {self._broken}")
        if flags & MULTIFD_COMPRESSION_MASK != self.method:
            raise WireError(f"the compression method changed, flags {flags:#x}")
        if size > MULTIFD_PACKET_SIZE or len(chunk) > MULTIFD_ZLIB_BUFFER_SIZE:
            raise WireError(f"{len(chunk)} bytes for pages of {size} bytes are too many")
        try:
            output = self._inflater.inflate(chunk, size)
        except (zlib.error, zstandard.ZstdError) as error:
            raise WireError(f"compressed pages are damaged: {error}") from error
        if len(output) != size:
            more = "more than " if len(output) > size else f"{len(output)} bytes, not "
            raise WireError(f"compressed pages give {more}{size} bytes")
        return output
