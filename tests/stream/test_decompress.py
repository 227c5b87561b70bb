# SPDX-License-Identifier: GPL-2.0-or-later
"""Compressed pages, compressed here the way QEMU compresses them."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from random import Random

import pytest
import zstandard

from mfdtool.errors import UnsupportedError, WireError
from mfdtool.stream.decompress import PageDecompressor
from mfdtool.wire.constants import MultiFDFlag

PAGE = 4096
ZLIB, ZSTD = MultiFDFlag.ZLIB.value, MultiFDFlag.ZSTD.value

Compress = Callable[[bytes], bytes]


def zlib_stream() -> Compress:
    stream = zlib.compressobj(1)
    return lambda pages: stream.compress(pages) + stream.flush(zlib.Z_SYNC_FLUSH)


def zstd_stream() -> Compress:
    stream = zstandard.ZstdCompressor(level=1).compressobj()
    flush = zstandard.COMPRESSOBJ_FLUSH_BLOCK
    return lambda pages: stream.compress(pages) + stream.flush(flush)


METHODS = [pytest.param(ZLIB, zlib_stream, id="zlib"), pytest.param(ZSTD, zstd_stream, id="zstd")]


def packets(seed: int) -> list[bytes]:
    random = Random(seed)
    return [
        b"".join(
            random.randbytes(PAGE) if random.random() < 0.3 else bytes([random.randrange(9)]) * PAGE
            for _ in range(random.choice((1, 2, 128)))
        )
        for _ in range(6)
    ]


@pytest.mark.parametrize(("flags", "stream"), METHODS)
def test_packets_of_a_channel(flags: int, stream: Callable[[], Compress]) -> None:
    compress, decompressor = stream(), PageDecompressor(flags)
    for pages in packets(1):
        chunk = memoryview(compress(pages))
        assert decompressor.feed(chunk, flags=flags, size=len(pages)) == pages


@pytest.mark.parametrize(("flags", "stream"), METHODS)
@pytest.mark.parametrize("wrong", [-PAGE, PAGE])
def test_wrong_size(flags: int, stream: Callable[[], Compress], wrong: int) -> None:
    decompressor = PageDecompressor(flags)
    chunk = stream()(bytes(2 * PAGE))
    with pytest.raises(WireError, match="compressed pages give"):
        decompressor.feed(chunk, flags=flags, size=2 * PAGE + wrong)
    with pytest.raises(WireError, match="an earlier packet of the channel is not usable"):
        decompressor.feed(chunk, flags=flags, size=2 * PAGE)


@pytest.mark.parametrize(("flags", "stream"), METHODS)
def test_bomb(flags: int, stream: Callable[[], Compress]) -> None:
    bomb = stream()(bytes(200 << 20))
    assert len(bomb) < 1 << 20
    with pytest.raises(WireError, match="more than 4096 bytes"):
        PageDecompressor(flags).feed(bomb, flags=flags, size=PAGE)


@pytest.mark.parametrize(("flags", "stream"), METHODS)
def test_truncated_chunk(flags: int, stream: Callable[[], Compress]) -> None:
    pages = packets(2)[0][:PAGE]
    chunk = stream()(pages)
    for length in range(0, len(chunk) - 8, 97):
        with pytest.raises(WireError, match="compressed pages"):
            PageDecompressor(flags).feed(chunk[:length], flags=flags, size=len(pages))


@pytest.mark.parametrize("flags", [ZLIB, ZSTD])
def test_damage(flags: int) -> None:
    with pytest.raises(WireError, match="are damaged"):
        PageDecompressor(flags).feed(b"nonsense" * 8, flags=flags, size=PAGE)


def test_lost_packet() -> None:
    compress, decompressor = zlib_stream(), PageDecompressor(ZLIB)
    decompressor.lose("#3 is not complete")
    decompressor.lose("#4 is not complete")
    with pytest.raises(WireError, match="not usable: #3 is not complete"):
        decompressor.feed(compress(bytes(PAGE)), flags=ZLIB, size=PAGE)


def test_other_methods() -> None:
    with pytest.raises(UnsupportedError, match="QPL"):
        PageDecompressor(MultiFDFlag.QPL.value)
    with pytest.raises(WireError, match="method changed"):
        PageDecompressor(ZLIB).feed(b"", flags=ZSTD, size=PAGE)


@pytest.mark.parametrize(("length", "size"), [((1 << 20) + 1, PAGE), (10, 1 << 20)])
def test_limits(length: int, size: int) -> None:
    with pytest.raises(WireError, match="too many"):
        PageDecompressor(ZLIB).feed(bytes(length), flags=ZLIB, size=size)
