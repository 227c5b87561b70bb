# SPDX-License-Identifier: GPL-2.0-or-later
"""The last content of a page."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from random import Random

import pytest

from mfdtool.stream.extraction import Hole
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.pages import PageExtractor
from mfdtool.stream.span import Span
from mfdtool.wire.constants import MultiFDFlag, RamFlag
from tests.stream.test_decompress import METHODS, Compress
from tests.stream.test_device_data import take
from tests.support.made_frames import Maker

PAGE = 4096
ONE, TWO = Random(1).randbytes(PAGE), Random(2).randbytes(PAGE)


def last(frames: list[Frame], offset: int = 0x1000) -> tuple[list[bytes | Hole], list[str]]:
    extractor = PageExtractor(0, "pc.ram", offset)
    return take(extractor, frames), extractor.remarks.notes + extractor.remarks.problems


def test_last_transfer_counts() -> None:
    make = Maker()
    frames = [
        make.pages([0x1000, 0x3000], [0x5000], content=ONE + TWO),
        make.pages([0x9000, 0x1000], content=ONE + TWO, channel="multifd-1"),
        make.pages([0x1000], content=ONE, block="pc.bios"),
        make.pages(),
    ]
    assert last(frames) == (
        [TWO],
        ["pc.ram:0x1000 is from multifd-1 #0, normal, the last of 2 transfers"],
    )
    assert last(frames, 0x3000) == ([TWO], ["pc.ram:0x3000 is from multifd-0 #0, normal"])
    assert last(frames, 0x5000)[0] == [bytes(PAGE)]


def test_not_transferred() -> None:
    extractor = PageExtractor(0, "pc.ram", 0x10)
    # The offset's bytes do occur, but across two entries of the table.
    frames = [Maker().pages([0x1000 << 32, 0x10], content=ONE + TWO), Maker().switchover()]
    assert take(extractor, frames[:1])[0] == TWO
    extractor = PageExtractor(0, "pc.ram", 0x1000)
    assert take(extractor, [Maker().pages([0x10, 0x1000 << 32], content=ONE + TWO)]) == []
    assert not extractor.found
    assert extractor.wanted() == (
        "page pc.ram:0x1000 was not transferred; pages of these RAM blocks were: pc.ram"
    )


def test_missing_bytes() -> None:
    make = Maker()
    frame = make.pages([0x1000], content=ONE, hole=Span(1344 + 100, 1344 + 114))
    pieces, _ = last([frame])
    assert pieces == [ONE[:100], Hole("multifd-0 #0: bytes 100-113", 14), ONE[114:]]
    frame = make.pages([0x1000], content=ONE, hole=Span(320, 328))
    pieces, remarks = last([frame])
    assert pieces == []
    assert remarks == ["multifd-0 #1: its header is not whole, the page may be in it"]


@pytest.mark.parametrize(("flags", "stream"), METHODS)
def test_compressed(flags: int, stream: Callable[[], Compress]) -> None:
    make, compress = Maker(), stream()
    frames = [
        make.pages([0x8000, 0x9000], content=compress(TWO + ONE), flags=flags),
        make.pages([0x8000, 0x1000], [0x2000], content=compress(TWO + ONE), flags=flags),
        make.pages([0x8000], content=compress(TWO), flags=flags, block="pc.bios"),
        make.pages([], [0x7000], flags=flags),
        make.pages([0x3000], content=compress(ONE), flags=flags),
    ]
    assert last(frames)[0] == [ONE]
    assert last(frames, 0x2000)[0] == [bytes(PAGE)]
    assert last(frames, 0x7000)[0] == [bytes(PAGE)]
    assert last(frames, 0x3000)[0] == [ONE]


@pytest.mark.parametrize(("flags", "stream"), METHODS)
def test_compressed_behind_a_loss(flags: int, stream: Callable[[], Compress]) -> None:
    make, compress = Maker(), stream()
    first = make.pages([0x8000], content=compress(ONE), flags=flags, hole=Span(1350, 1360))
    frames = [first, make.pages([0x1000], content=compress(ONE), flags=flags)]
    pieces, _ = last(frames)
    assert pieces == [
        Hole(
            "pc.ram:0x1000 in multifd-0 #1: an earlier packet of the channel is not usable:"
            " multifd-0 #0 is not complete",
            PAGE,
        )
    ]


def test_compressed_behind_undecoded_bytes() -> None:
    make = Maker()
    chunk = zlib.compress(ONE)
    frames = [
        make.pages([0x8000], content=chunk, flags=MultiFDFlag.ZLIB),
        make.frame(Kind.UNDECODED, b"??", channel="multifd-0"),
        make.pages([0x1000], content=chunk, flags=MultiFDFlag.ZLIB),
    ]
    (hole,) = last(frames)[0]
    assert isinstance(hole, Hole)
    assert hole.what.endswith("not usable: multifd-0 #1")


def test_unsupported_method() -> None:
    frame = Maker().pages([0x1000], content=b"....", flags=MultiFDFlag.QPL)
    (hole,) = last([frame])[0]
    assert isinstance(hole, Hole)
    assert "compressed with QPL cannot be decompressed" in hole.what


def test_main_stream_records() -> None:
    make = Maker()
    page = make.record_of(RamFlag.PAGE, 0x1000, ONE)
    zero = make.record_of(RamFlag.ZERO, 0x1000, fill=0)
    filled = make.record_of(RamFlag.ZERO, 0x1000, fill=7)
    deflated = make.record_of(RamFlag.COMPRESS_PAGE, 0x1000, zlib.compress(TWO))
    elsewhere = make.record_of(RamFlag.PAGE, 0x2000, TWO)
    nothing = make.record_of(RamFlag.PAGE, 0x1000)
    assert last([page, elsewhere, nothing])[0] == [ONE]
    assert last([page, zero])[0] == [bytes(PAGE)]
    assert last([filled])[0] == [b"\x07" * PAGE]
    assert last([page, deflated])[0] == [TWO]


@pytest.mark.parametrize(
    ("flags", "data", "what"),
    [
        (RamFlag.COMPRESS_PAGE, b"nonsense", "incorrect header check"),
        (RamFlag.COMPRESS_PAGE, zlib.compress(bytes(1 << 20)), "not 4096 bytes"),
        (RamFlag.XBZRLE, b"\0\1x", "an XBZRLE difference, not supported"),
    ],
)
def test_records_that_cannot_be_read(flags: int, data: bytes, what: str) -> None:
    (hole,) = last([Maker().record_of(flags, 0x1000, data)])[0]
    assert isinstance(hole, Hole)
    assert what in hole.what


def test_page_size_is_learnt() -> None:
    zero = Maker().record_of(RamFlag.ZERO, 0, fill=0)
    extractor = PageExtractor(0, "pc.ram", 0, page_size=65536)
    assert take(extractor, [zero]) == [bytes(65536)]
