# SPDX-License-Identifier: GPL-2.0-or-later
"""RAM records of every kind, in a main stream and on a postcopy preempt channel."""

from __future__ import annotations

import pytest

from mfdtool.stream import ram as ram_framer
from mfdtool.stream.frames import ChannelId, Frame, Kind
from mfdtool.stream.main import MainFramer
from mfdtool.stream.ram import FLAG_BITS, PreemptFramer, is_plausible_word
from mfdtool.stream.reader import Reader
from mfdtool.stream.span import run_of
from mfdtool.stream.values import RamRecord
from mfdtool.wire.constants import Command, RamFlag
from mfdtool.wire.main_stream import (
    Capabilities,
    Configuration,
    ConfigurationSubsection,
    PostcopyAdvise,
)
from mfdtool.wire.ram import CompressedPageHeader, MappedRamHeader, MemSizeEntry, XbzrleHeader
from tests.support.framing import Hole, assert_accounts, check, cut, run, stretches
from tests.support.streams import (
    EOF,
    RAM_EOS,
    command,
    counted,
    main_start,
    mem_size,
    part,
    start,
    word,
)

MAIN = ChannelId(0, "main")
PREEMPT = ChannelId(0, "preempt")

# The worked example of a RAM section's start: two blocks, a flush.
RAM_START = bytes.fromhex(
    "01 00000002 03 72616d 00000000 00000004 0000000008040004"
    "06 70632e72616d 0000000008000000 07 70632e62696f73 0000000000040000"
    "0000000000000200 0000000000000010 7e 00000002"
)
ZERO = word(RamFlag.ZERO, 0x2000) + counted("pc.ram") + b"\0"
ZERO_AGAIN = bytes.fromhex("0000000000003022 00")


def make(reader: Reader) -> MainFramer:
    return MainFramer(reader, MAIN)


def make_preempt(reader: Reader) -> PreemptFramer:
    return PreemptFramer(reader, PREEMPT)


def make_small(reader: Reader) -> PreemptFramer:
    return PreemptFramer(reader, PREEMPT, page_size=16)


def records(frames: list[Frame]) -> list[RamRecord]:
    """Give the RAM records."""
    return [frame.value for frame in frames if isinstance(frame.value, RamRecord)]


def with_capability(capability: str) -> bytes:
    """Give the start of a stream that lists a capability."""
    body = Capabilities((capability,))
    subsection = ConfigurationSubsection(name="configuration/capabilities", body=body)
    return main_start(Configuration(name="pc", subsections=(subsection,)))


def ram(records: bytes) -> bytes:
    """Give a RAM section's START."""
    return start(2, "ram", records + RAM_EOS, version=4)


def test_start_section() -> None:
    frames = check(make, main_start() + RAM_START + EOF)
    assert records(frames) == [
        RamRecord(
            flags=RamFlag.MEM_SIZE,
            addr=0x8040000,
            entries=(
                MemSizeEntry(idstr="pc.ram", used_length=128 << 20),
                MemSizeEntry(idstr="pc.bios", used_length=256 << 10),
            ),
        ),
        RamRecord(flags=RamFlag.MULTIFD_FLUSH, addr=0),
        RamRecord(flags=RamFlag.EOS, addr=0),
    ]
    assert frames[3].section is not None
    assert frames[3].section.version_id == 4


def test_zero_pages_and_continue() -> None:
    frames = check(make_preempt, ZERO + ZERO_AGAIN + RAM_EOS)
    assert records(frames) == [
        RamRecord(flags=RamFlag.ZERO, addr=0x2000, ramblock="pc.ram", fill=0),
        RamRecord(flags=RamFlag.ZERO | RamFlag.CONTINUE, addr=0x3000, ramblock="pc.ram", fill=0),
        RamRecord(flags=RamFlag.EOS, addr=0),
    ]
    assert [frame.length for frame in frames] == [16, 9, 8]


def test_pages_of_known_size() -> None:
    page = word(RamFlag.PAGE, 0x1000) + counted("pc.ram") + b"0123456789abcdef"
    more = word(RamFlag.PAGE | RamFlag.CONTINUE, 0x2000) + b"fedcba9876543210"
    frames = check(make_small, page + more + RAM_EOS)
    assert [record.ramblock for record in records(frames)] == ["pc.ram", "pc.ram", ""]
    assert [frame.data(frame.payload) for frame in frames if frame.payload is not None] == [
        b"0123456789abcdef",
        b"fedcba9876543210",
    ]


def test_xbzrle_and_compressed_pages() -> None:
    data = word(RamFlag.XBZRLE, 0x1000) + counted("a") + XbzrleHeader(len=3).build() + b"xyz"
    data += word(RamFlag.COMPRESS_PAGE | RamFlag.CONTINUE, 0x2000)
    data += CompressedPageHeader(len=4).build() + b"zlib"
    frames = check(make, main_start() + ram(data) + EOF)
    assert [frame.data(frame.payload) for frame in frames[3:5]] == [b"xyz", b"zlib"]
    assert [record.ramblock for record in records(frames)] == ["a", "a", ""]


@pytest.mark.parametrize("page_size", [1024, 2048, 4096, 8192, 16384, 32768, 65536])
def test_page_size_is_learnt(page_size: int) -> None:
    first = word(RamFlag.PAGE) + counted("r") + b"\xee" * page_size
    again = word(RamFlag.PAGE | RamFlag.CONTINUE, 1 << 16) + b"\xdd" * page_size
    data = main_start() + ram(first + again) + EOF
    frames = cut(make, data)
    assert frames[3].payload is not None
    assert frames[3].payload.size == page_size
    assert [record.addr for record in records(frames)] == [0, 1 << 16, 0]
    hole = Hole(len(main_start()) + 60, len(main_start()) + 70)
    assert_accounts(run(make, stretches(data, holes=[hole])), data, holes=[hole])


def test_learning_holds_other_channels_back() -> None:
    reader = Reader()
    framer = make_preempt(reader)
    generator = framer.frames()
    reader.feed(run_of(word(RamFlag.PAGE) + counted("r") + bytes(4096), record=7))
    assert next(generator) is None
    assert framer.waiting_since == 7
    reader.feed(run_of(RAM_EOS, start=reader.fed, record=9))
    page = next(generator)
    assert page is not None
    assert (page.record, page.length) == (7, 8 + 2 + 4096)
    assert framer.waiting_since is None


def test_page_size_that_cannot_be_learnt_is_the_usual_one() -> None:
    (frame,) = cut(make_preempt, word(RamFlag.PAGE) + counted("r") + bytes(100))
    assert (frame.length, frame.missing) == (8 + 2 + 4096, 3996)


def test_block_list_with_a_postcopy_page_size() -> None:
    advise = PostcopyAdvise(page_size_summary=0x201000, page_size=4096)
    huge = (2 << 20).to_bytes(8, "big")
    blocks = mem_size(("huge", 4 << 20, huge), ("pc.bios", 1 << 18, b""))
    data = main_start() + command(Command.POSTCOPY_ADVISE, advise.build()) + ram(blocks) + EOF
    (listed, _) = records(check(make, data))
    assert listed.entries == (
        MemSizeEntry(idstr="huge", used_length=4 << 20, page_size=2 << 20),
        MemSizeEntry(idstr="pc.bios", used_length=1 << 18),
    )


def test_block_list_with_addresses() -> None:
    blocks = mem_size(
        ("pc.ram", 1 << 20, (0x100000).to_bytes(8, "big")), ("pc.bios", 1 << 18, bytes(8))
    )
    (listed, _) = records(check(make, with_capability("x-ignore-shared") + ram(blocks) + EOF))
    assert [entry.address for entry in listed.entries] == [0x100000, 0]


def mapped_ram() -> tuple[bytes, MappedRamHeader]:
    """Give a mapped-ram stream of one block of 1024 bytes."""
    header = MappedRamHeader(page_size=4096, bitmap_offset=256, pages_offset=264)
    opening = with_capability("mapped-ram")
    record = mem_size(("r", 1024, header.build()))
    body = opening + ram(record)[: -len(RAM_EOS) - 5]
    return body.ljust(1288, b"\xbb") + ram(record)[-len(RAM_EOS) - 5 :] + EOF, header


def test_block_list_of_mapped_ram() -> None:
    data, header = mapped_ram()
    frames = check(make, data)
    (listed, _) = records(frames)
    assert listed.entries == (MemSizeEntry(idstr="r", used_length=1024, mapped_ram=header),)
    assert frames[3].end == 1288


def test_mapped_ram_whose_pages_lie_before_the_cursor() -> None:
    header = MappedRamHeader(page_size=4096, bitmap_offset=0, pages_offset=1)
    record = mem_size(("r", 1024, header.build()))
    before = start(5, "something long", bytes(2000))
    frames = check(make, with_capability("mapped-ram") + before + ram(record) + EOF)
    assert not records(frames)
    assert [frame.kind for frame in frames[6:]] == [
        Kind.UNDECODED,
        Kind.MAIN_OPAQUE,
        Kind.MAIN_SECTION_FOOTER,
        Kind.MAIN_EOF,
    ]


def test_block_list_that_adds_up_to_more() -> None:
    blocks = word(RamFlag.MEM_SIZE, 0x400) + counted("r") + (0x401).to_bytes(8, "big") + bytes(8)
    frames = check(make, main_start() + ram(blocks) + EOF)
    assert not records(frames)
    assert frames[3].reason == "not a record of the section"


def test_empty_block_list() -> None:
    (listed, _) = records(check(make, main_start() + ram(mem_size()) + EOF))
    assert listed.entries == ()


def test_block_list_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of length 0 never add up to the total; no source has so many."""
    entry = counted("") + bytes(8)
    monkeypatch.setattr(ram_framer, "_MAX_ENTRIES", 100)
    data = word(RamFlag.MEM_SIZE, 0x400) + entry * 200
    frames = check(make_preempt, data)
    assert [frame.kind for frame in frames] == [Kind.UNDECODED]
    assert frames[0].length == len(data)


@pytest.mark.parametrize("flags", [0, RamFlag.FULL, RamFlag.HOOK, RamFlag.ZERO | RamFlag.PAGE])
def test_implausible_words(flags: int) -> None:
    assert not is_plausible_word(0x1000 << 12 | flags)
    frames = check(make_preempt, ZERO + word(flags, 0x1000) + b"and more")
    assert [frame.kind for frame in frames] == [Kind.RAM_RECORD, Kind.UNDECODED]
    assert frames[1].reason == "not a RAM record"


def test_plausible_words() -> None:
    for flag in RamFlag.ZERO, RamFlag.EOS, RamFlag.PAGE | RamFlag.CONTINUE:
        assert is_plausible_word(0x7000 << 12 | flag)
    assert sum(RamFlag) == FLAG_BITS


def test_records_that_stop_making_sense_in_a_section() -> None:
    data = main_start() + RAM_START + part(2, ZERO + b"?" * 20) + part(2, RAM_EOS) + EOF
    frames = check(make, data)
    assert [frame.kind for frame in frames[7:]] == [
        Kind.MAIN_SECTION_PART,
        Kind.RAM_RECORD,
        Kind.MAIN_OPAQUE,
        Kind.MAIN_SECTION_FOOTER,
        Kind.MAIN_SECTION_PART,
        Kind.RAM_RECORD,
        Kind.MAIN_SECTION_FOOTER,
        Kind.MAIN_EOF,
    ]


def test_preempt_channel_goes_on_behind_its_end() -> None:
    frames = check(make_preempt, ZERO + RAM_EOS + ZERO_AGAIN)
    assert [record.flags for record in records(frames)] == [0x02, 0x10, 0x22]


@pytest.mark.parametrize("length", [8, 12, 15])
def test_preempt_channel_that_ends_inside_a_record(length: int) -> None:
    frames = cut(make_preempt, ZERO_AGAIN + ZERO[:length])
    assert [(frame.kind, frame.length) for frame in frames[1:]] == [(Kind.UNDECODED, length)]
    assert frames[1].reason == "the channel ends inside a record"
