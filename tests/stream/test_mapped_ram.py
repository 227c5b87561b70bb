# SPDX-License-Identifier: GPL-2.0-or-later
"""Places of pages in mapped-ram files."""

from __future__ import annotations

import pytest

from mfdtool.errors import UnsupportedError, WireError
from mfdtool.stream.frames import ChannelId, Frame, Kind
from mfdtool.stream.main import MainFramer
from mfdtool.stream.mapped_ram import MappedBlock, mapped_block
from mfdtool.stream.reader import Reader
from mfdtool.stream.span import Span
from mfdtool.stream.values import RamRecord
from mfdtool.wire.constants import RamFlag
from mfdtool.wire.main_stream import Capabilities, Configuration, ConfigurationSubsection
from mfdtool.wire.ram import MappedRamHeader, MemSizeEntry
from tests.support.framing import check, cut
from tests.support.streams import EOF, RAM_EOS, main_start, start, word

PAGE = 1024
COUNT = 70
FAR = 1 << 63


def entry(*, size: int = COUNT * PAGE, bitmap: int, pages: int, page: int = PAGE) -> MemSizeEntry:
    """Make an entry."""
    header = MappedRamHeader(page_size=page, bitmap_offset=bitmap, pages_offset=pages)
    return MemSizeEntry(idstr="r", used_length=size, mapped_ram=header)


def test_places() -> None:
    block = mapped_block(entry(bitmap=1000, pages=1100), origin=100)
    assert block == MappedBlock(
        idstr="r", page_size=PAGE, bitmap=Span(900, 916), pages=Span(1000, 1000 + COUNT * PAGE)
    )
    assert block.page_count == COUNT
    assert block.bit_of(0) == (900, 1)
    assert block.bit_of(9 * PAGE) == (901, 2)
    assert block.bit_of(69 * PAGE) == (908, 32)
    assert block.bit_of(COUNT * PAGE) is None
    assert block.bit_of(5) is None
    assert block.page_at(PAGE) == Span(2024, 3048)
    assert mapped_block(MemSizeEntry(idstr="r", used_length=16)) is None


def test_a_hostile_size_is_only_a_number() -> None:
    block = mapped_block(entry(size=FAR, bitmap=0, pages=FAR, page=1 << 16))
    assert block is not None
    assert block.size == FAR
    assert block.page_count == 1 << 47


@pytest.mark.parametrize(
    ("bad", "origin", "reason"),
    [
        (entry(bitmap=1000, pages=1015), 0, "the bitmap reaches into the pages"),
        (entry(bitmap=1000, pages=1016), 1001, "the bitmap is before the stream"),
        (entry(bitmap=0, pages=100, page=0), 0, "pages of 0 bytes"),
        (entry(bitmap=0, pages=100, page=24), 0, "pages of 24 bytes"),
        (entry(bitmap=0, pages=100, page=1 << 40), 0, "pages of 1099511627776 bytes"),
    ],
)
def test_impossible_places(bad: MemSizeEntry, origin: int, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        mapped_block(bad, origin=origin)


def test_unknown_version() -> None:
    header = MappedRamHeader(version=2, page_size=PAGE, bitmap_offset=0, pages_offset=100)
    with pytest.raises(UnsupportedError, match="mapped-ram version 2"):
        mapped_block(MemSizeEntry(idstr="r", used_length=16, mapped_ram=header))


def stream(*, bits: int = 0b101, shift: int = 0, version: int = 1) -> bytes:
    """Give a whole mapped-ram stream of two blocks; places count from ``shift`` before it."""
    body = Capabilities(("mapped-ram",))
    subsection = ConfigurationSubsection(name="configuration/capabilities", body=body)
    head = main_start(Configuration(name="pc", subsections=(subsection,)))
    head += start(2, "ram", b"", version=4)[:-5]
    head += word(RamFlag.MEM_SIZE, 4096)
    for name, size, gap in (("a", 3072, 3), ("b", 1024, 0)):
        made = MemSizeEntry(idstr=name, used_length=size).build()
        bitmap = len(head) + len(made) + 28
        header = MappedRamHeader(
            version=version,
            page_size=1024,
            bitmap_offset=bitmap + shift,
            pages_offset=bitmap + 8 + gap + shift,
        )
        head += made + header.build() + bits.to_bytes(8, "little") + bytes(gap) + bytes(size)
    return head + RAM_EOS + b"\x7e" + bytes((0, 0, 0, 2)) + EOF


def make(reader: Reader) -> MainFramer:
    return MainFramer(reader, ChannelId(0, "main"))


def mapped(frames: list[Frame]) -> list[tuple[tuple[int, ...], int]]:
    """Give what MEM_SIZE records tell of pages."""
    values = [frame.value for frame in frames if isinstance(frame.value, RamRecord)]
    return [(value.mapped, value.origin) for value in values if value.entries]


def test_stream_at_every_split_and_cut() -> None:
    frames = check(make, stream())
    # Bits behind a block's last page count for nothing.
    assert mapped(frames) == [((2, 1), 0)]
    assert [frame.kind for frame in frames] == [
        Kind.MAIN_HEADER,
        Kind.MAIN_CONFIGURATION,
        Kind.MAIN_SECTION_START,
        Kind.RAM_RECORD,
        Kind.RAM_RECORD,
        Kind.MAIN_SECTION_FOOTER,
        Kind.MAIN_EOF,
    ]


def test_stream_inside_a_file() -> None:
    def make_behind(reader: Reader) -> MainFramer:
        framer = MainFramer(reader, ChannelId(0, "main"))
        framer.origin = 155
        return framer

    assert mapped(check(make_behind, stream(shift=155))) == [((2, 1), 155)]
    assert mapped(cut(make, stream(shift=155))) == []


def test_unknown_version_is_not_followed() -> None:
    frames = cut(make, stream(version=2))
    assert mapped(frames) == []
    assert Kind.UNDECODED in {frame.kind for frame in frames} or Kind.MAIN_OPAQUE in {
        frame.kind for frame in frames
    }
