# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of RAM sections."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mfdtool.errors import TruncatedError
from mfdtool.wire.constants import RamFlag
from mfdtool.wire.ram import (
    BlockId,
    CompressedPageHeader,
    MappedRamHeader,
    MemSizeEntry,
    RamRecordHeader,
    XbzrleHeader,
    ZeroFill,
)

CheckMessage = Callable[..., None]

# RAM section's start: two blocks, a flush of the multifd channels, end.
SETUP = (
    bytes.fromhex("0000000008040004")
    + b"\x06pc.ram"
    + bytes.fromhex("0000000008000000")
    + b"\x07pc.bios"
    + bytes.fromhex("0000000000040000 0000000000000200 0000000000000010")
)


def test_page_record(check_message: CheckMessage) -> None:
    header = RamRecordHeader(addr=0x1000, flags=RamFlag.PAGE.value)
    assert header.has_block_id
    check_message(header, bytes.fromhex("0000000000001008"), page_size=4096)
    check_message(BlockId("pc.ram"), b"\x06pc.ram")


def test_zero_record_of_the_same_block(check_message: CheckMessage) -> None:
    header = RamRecordHeader.parse(bytes.fromhex("0000000000002022"))
    assert header == RamRecordHeader(addr=0x2000, flags=RamFlag.ZERO | RamFlag.CONTINUE)
    assert not header.has_block_id
    check_message(ZeroFill(), b"\0")


@pytest.mark.parametrize("flag", [RamFlag.EOS, RamFlag.MEM_SIZE, RamFlag.MULTIFD_FLUSH])
def test_records_without_block(flag: RamFlag) -> None:
    assert not RamRecordHeader(flags=flag.value).has_block_id


@pytest.mark.parametrize(
    ("page_size", "addr", "flags"),
    [
        (1024, 0x1234567890ABCC00, 0x1EF),
        (4096, 0x1234567890ABC000, 0xDEF),
        (65536, 0x1234567890AB0000, 0xCDEF),
    ],
)
def test_word_is_split_at_the_page_size(page_size: int, addr: int, flags: int) -> None:
    word = (addr | flags).to_bytes(8, "big")
    header = RamRecordHeader.parse(word, page_size=page_size)
    assert header == RamRecordHeader(addr=addr, flags=flags)
    assert header.build() == word


def test_setup_section() -> None:
    header, used = RamRecordHeader.parse_prefix(SETUP)
    assert header == RamRecordHeader(addr=0x8040000, flags=RamFlag.MEM_SIZE)
    for expected in (
        MemSizeEntry(idstr="pc.ram", used_length=128 << 20),
        MemSizeEntry(idstr="pc.bios", used_length=256 << 10),
    ):
        entry, size = MemSizeEntry.parse_prefix(SETUP[used:])
        assert entry == expected
        used += size
    flush, size = RamRecordHeader.parse_prefix(SETUP[used:])
    assert flush == RamRecordHeader(flags=RamFlag.MULTIFD_FLUSH)
    assert RamRecordHeader.parse(SETUP[used + size :]) == RamRecordHeader(flags=RamFlag.EOS)


@pytest.mark.parametrize("length", range(15))
def test_truncated_entry(length: int) -> None:
    with pytest.raises(TruncatedError) as caught:
        MemSizeEntry.parse_prefix(SETUP[8 : 8 + length], channel="main", offset=8)
    assert 1 <= caught.value.missing <= 15 - length
    assert 8 <= caught.value.offset <= 8 + length


def test_entry_variants(check_message: CheckMessage) -> None:
    mapped = MappedRamHeader(page_size=4096, bitmap_offset=0x1000, pages_offset=0x100000)
    plain = bytes.fromhex("01 61 0000000000001000")
    huge = bytes.fromhex("0000000000200000")
    address = bytes.fromhex("00000000fffc0000")
    check_message(MemSizeEntry(idstr="a", used_length=4096), plain)
    check_message(
        MemSizeEntry(idstr="a", used_length=4096, page_size=2 << 20),
        plain + huge,
        with_page_size=True,
    )
    check_message(
        MemSizeEntry(idstr="a", used_length=4096, address=0xFFFC0000),
        plain + address,
        with_address=True,
    )
    check_message(
        MemSizeEntry(
            idstr="a", used_length=4096, page_size=2 << 20, address=0xFFFC0000, mapped_ram=mapped
        ),
        plain + huge + address + mapped.build(),
        with_page_size=True,
        with_address=True,
        with_mapped_ram=True,
    )


def test_mapped_ram_header(check_message: CheckMessage) -> None:
    data = bytes.fromhex("00000001 0000000000001000 0000000000000123 0000000000100000")
    header = MappedRamHeader(page_size=4096, bitmap_offset=0x123, pages_offset=1 << 20)
    check_message(header, data)


def test_encoded_pages(check_message: CheckMessage) -> None:
    check_message(XbzrleHeader(len=0x123), bytes.fromhex("01 0123"))
    check_message(CompressedPageHeader(0x1234), bytes.fromhex("00001234"))
