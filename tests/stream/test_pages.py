# SPDX-License-Identifier: GPL-2.0-or-later
"""The last content of a page."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from mfdtool.stream.extraction import Hole
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.pages import PageExtractor
from mfdtool.stream.span import Span
from mfdtool.stream.values import RamRecord
from mfdtool.wire.constants import MultiFDFlag, RamFlag
from mfdtool.wire.ram import MappedRamHeader, MemSizeEntry
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


def test_offset_inside_a_page() -> None:
    extractor = PageExtractor(0, "pc.ram", 0x1234)
    assert take(extractor, [Maker().pages([0x1000], content=ONE)]) == []
    assert not extractor.found
    assert extractor.wanted() == (
        "no page begins at pc.ram:0x1234; the one that has it begins at pc.ram:0x1000"
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
        (RamFlag.XBZRLE, b"\0\1x", "an XBZRLE difference to a copy that is not there"),
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


def difference(at: int, new: bytes) -> bytes:
    """Encode one changed stretch as XBZRLE."""
    return bytes((at & 0x7F | 0x80, at >> 7, len(new))) + new


def test_xbzrle_applies_to_the_copy_before() -> None:
    make = Maker()
    page = make.record_of(RamFlag.PAGE, 0x1000, ONE)
    zero = make.record_of(RamFlag.ZERO, 0x1000, fill=0)
    first = make.record_of(RamFlag.XBZRLE, 0x1000, difference(0x80, b"abc"))
    second = make.record_of(RamFlag.XBZRLE, 0x1000, difference(0x81, b"XY"))
    elsewhere = make.record_of(RamFlag.XBZRLE, 0x2000, difference(0x80, b"no"))
    content, remarks = last([page, elsewhere, first, second])
    assert content == [ONE[:0x80] + b"aXY" + ONE[0x83:]]
    assert remarks == [
        f"pc.ram:0x1000 is from main #{second.number}, XBZRLE, the last of 3 transfers"
    ]
    assert last([page, first, zero, second])[0] == [bytes(0x81) + b"XY" + bytes(PAGE - 0x83)]


def test_xbzrle_that_cannot_be_applied() -> None:
    make = Maker()
    page = make.record_of(RamFlag.PAGE, 0x1000, ONE)
    bad = make.record_of(RamFlag.XBZRLE, 0x1000, b"\0\0")
    good = make.record_of(RamFlag.XBZRLE, 0x1000, difference(0x80, b"abc"))
    cut = replace(good, missing=1)
    for frames, what in (
        ([page, bad], "an XBZRLE run of new bytes is empty"),
        ([page, bad, good], "an XBZRLE difference to a copy that is not whole"),
        ([page, cut], "an XBZRLE difference that is not whole"),
    ):
        (hole,) = last(frames)[0]
        assert isinstance(hole, Hole)
        assert hole.what.endswith(what)
        assert hole.length == PAGE


@pytest.mark.parametrize("kind", [Kind.GAP, Kind.UNDECODED])
def test_xbzrle_behind_a_loss_is_a_problem(kind: Kind) -> None:
    make = Maker()
    page = make.record_of(RamFlag.PAGE, 0x1000, ONE)
    lost = make.frame(kind, b"???")
    changed = make.record_of(RamFlag.XBZRLE, 0x1000, difference(0, b"abc"))
    content, remarks = last([page, lost, changed])
    assert content == [b"abc" + ONE[3:]]
    assert remarks[-1].endswith(f"may have been lost at main, offset {lost.offset}")
    assert len(last([lost, page, changed])[1]) == 1


def mapped(bits: int, *, size: int = 3 * PAGE, hole: Span | None = None, version: int = 1) -> Frame:
    """Make the record of a mapped-ram file with one block whose pages are ONE, TWO, ONE."""
    header = MappedRamHeader(version=version, page_size=PAGE, bitmap_offset=150, pages_offset=200)
    entry = MemSizeEntry(idstr="pc.ram", used_length=size, mapped_ram=header)
    data = bytes(50) + bits.to_bytes(8, "little") + bytes(42) + ONE + TWO + ONE
    frame = Maker().frame(Kind.RAM_RECORD, data, header=len(data), hole=hole)
    return replace(frame, value=RamRecord(RamFlag.MEM_SIZE, size, "", (entry,), None, (2,), 100))


def test_mapped_pages() -> None:
    frame = mapped(0b10)
    # The record begins at byte 100 of the file, and the stream too.
    assert last([frame], 0x1000) == ([TWO], ["pc.ram:0x1000 is from main #0, mapped"])
    assert last([frame], 0x2000) == (
        [bytes(PAGE)],
        ["pc.ram:0x2000 is from main #0, not in the bitmap: a zero page"],
    )
    assert last([frame], 0x3000) == ([], [])
    assert last([frame], 0x800) == ([], [])


def test_mapped_page_that_is_not_captured() -> None:
    (hole,) = last([mapped(0b10, hole=Span(50, 58))], 0x1000)[0]
    assert hole == Hole("pc.ram:0x1000 in main #0: the bitmap's byte for it", None)
    pieces, _ = last([mapped(0b10, hole=Span(100 + PAGE, 100 + PAGE + 96))], 0x1000)
    assert pieces == [Hole("main #0: bytes 0-95", 96), TWO[96:]]
    assert last([mapped(0b10, version=2)], 0x1000) == ([], [])
