# SPDX-License-Identifier: GPL-2.0-or-later
"""Fields and lists that the layers are made of."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.packet import Padding, Raw

from dissectors.fields import (
    MAX_ITEMS,
    DissectionError,
    TruncatedError,
    shorten,
    take,
    take_padding,
)
from dissectors.main_stream import (
    Command,
    Configuration,
    DiscardRange,
    FileHeader,
    PostcopyRamDiscard,
    SectionFooter,
    SectionStart,
)
from dissectors.multifd import (
    MultiFDChannel,
    MultiFDInit,
    MultiFDPacket,
    MultiFDPacketDeviceState,
    MultiFDSync,
)
from dissectors.ram import MappedRamHeader, MemSizeEntry, RamRecord
from dissectors.vfio import VFIODeviceData, VFIOMarkerRecord


def test_fixed_bytes_are_padded_and_never_cut() -> None:
    packet = MultiFDPacketDeviceState(idstr="vfio")
    assert bytes(packet)[12:268] == b"vfio".ljust(256, b"\0")
    packet.idstr = b"x" * 257
    with pytest.raises(ValueError, match="idstr: 257 bytes do not fit in 256"):
        bytes(packet)


def test_counted_bytes_are_counted() -> None:
    data = bytes(SectionStart(idstr="ram"))
    assert data[5:9] == b"\x03ram"
    with pytest.raises(TruncatedError, match="idstr: 1 bytes more wanted"):
        SectionStart(data[:8])
    with pytest.raises(ValueError, match="idstr_len"):
        bytes(SectionStart(idstr=b"x" * 256))


def test_integers_are_not_cut_off() -> None:
    with pytest.raises(TruncatedError, match=r"SectionFooter: .*4 bytes"):
        SectionFooter(b"\x7e\0\0\0")


def test_address() -> None:
    record = RamRecord(addr=0xFFFFFFFFFFFFFC00, flags="EOS+CONTINUE")
    assert bytes(record) == bytes.fromhex("fffffffffffffc30")
    assert RamRecord(bytes(record)).addr == 0xFFFFFFFFFFFFFC00
    assert "addr      = 0xfffffffffffffc00" in str(record.show(dump=True))


@pytest.mark.parametrize("addr", [1, 0x3FF, 1 << 64, -1024])
def test_address_that_is_none(addr: int) -> None:
    with pytest.raises(ValueError, match="is not an address without its low bits"):
        bytes(RamRecord(addr=addr))


def test_offsets_are_as_many_as_fit() -> None:
    packet = MultiFDPacket(offset=[0x1000, 0x3000], page_size=65536)
    data = bytes(packet)
    assert len(data) == 320 + 8 * 8
    again = MultiFDPacket(data, page_size=65536)
    assert again.offset == [0x1000, 0x3000, 0, 0, 0, 0, 0, 0]
    assert "offset    = [0x1000, 0x3000, 6 times 0]" in str(again.show(dump=True))
    packet.offset = [0] * 9
    with pytest.raises(ValueError, match="offset: 9 do not fit in 8"):
        bytes(packet)


def test_full_offsets_are_shown() -> None:
    packet = MultiFDPacket(offset=[4096] * 8, page_size=65536)
    assert str(packet.show(dump=True)).count("0x1000") == 8
    assert "times" not in str(packet.show(dump=True))


@pytest.mark.parametrize("kind", [MultiFDPacket, MultiFDSync])
def test_copies_keep_the_page_size(kind: Any) -> None:
    packet = kind(page_size=65536)
    assert len(packet.copy()) == len(next(iter(packet))) == len(packet) == 384
    assert (packet.copy().page_size, packet.page_count) == (65536, 8)


def test_payload_size_does_not_count_padding() -> None:
    packet = MultiFDPacketDeviceState() / Raw(b"1234") / Padding(b"behind")
    assert MultiFDPacketDeviceState(bytes(packet)).next_packet_size == 4
    assert bytes(packet).endswith(b"1234behind")


def test_bodies() -> None:
    assert Command(b"\x08\0\x02\0\x04\0\0\0\x07").body.value == 7
    assert Command(b"\x08\0\x02\0\x02\0\0").body == Raw(b"\0\0")
    assert Command(b"\x08\0\x63\0\x02ab").body == Raw(b"ab")
    assert Command(b"\x08\0\x01\0\0").body is None


def test_data_is_shown_in_part() -> None:
    assert shorten(b"abcdefgh") == "61626364 65666768"
    assert shorten(bytes(33)).endswith("00000000 ... (33 bytes)")
    shown = str(VFIODeviceData(data=bytes(5000)).show(dump=True))
    assert "... (5000 bytes)" in shown


def test_unknown_values_are_shown_in_hex() -> None:
    assert "marker    = 0xab" in str(VFIOMarkerRecord(marker=0xAB).show(dump=True))


def test_one_layer_in_another() -> None:
    header = MappedRamHeader(page_size=4096, bitmap_offset=100, pages_offset=1 << 20)
    data = bytes(MemSizeEntry(idstr="pc.ram", used_length=4096, mapped_ram=header))
    again = MemSizeEntry(data, parts=("mapped_ram",))
    assert again.mapped_ram == header
    assert bytes(again) == data
    for length in range(15, len(data)):
        with pytest.raises(TruncatedError):
            MemSizeEntry(data[:length], parts=("mapped_ram",))


def test_take() -> None:
    packet = MultiFDPacketDeviceState() / Raw(bytes(3000))
    data = b"before" + bytes(packet) + b"behind"
    assert take(MultiFDPacketDeviceState, data, 6) == (packet.__class__(bytes(packet)), 3276)
    footer, used = take(SectionFooter, b"\x7e\0\0\0\x07", 0)
    assert (footer.section_id, used) == (7, 5)
    with pytest.raises(TruncatedError, match="nothing left"):
        take(FileHeader, data, len(data))
    with pytest.raises(TruncatedError):
        take(FileHeader, b"QEVM", 0)


def test_take_padding() -> None:
    packet = SectionFooter(b"\x7e\0\0\0\x07rest")
    assert take_padding(packet) == b"rest"
    assert take_padding(packet) == b""


def test_lists_are_bounded() -> None:
    ranges = [DiscardRange()] * MAX_ITEMS
    most = bytes(PostcopyRamDiscard(ranges=ranges))
    assert len(PostcopyRamDiscard(most).ranges) == MAX_ITEMS
    with pytest.raises(DissectionError, match=f"ranges: more than {MAX_ITEMS}"):
        PostcopyRamDiscard(most + bytes(16))


def test_streams_are_bounded() -> None:
    one = bytes(MultiFDPacketDeviceState() / b"data")
    channel = MultiFDChannel(one * (MAX_ITEMS + 3))
    assert len(channel.packets) == MAX_ITEMS
    assert bytes(channel.payload) == 3 * one


def test_a_large_stream_is_cut_in_linear_time() -> None:
    # Copying the rest with every field of every packet would be hundreds of gigabytes.
    one = bytes(MultiFDPacketDeviceState() / bytes(65536))
    channel = MultiFDChannel(bytes(MultiFDInit()) + one * 400)
    assert len(channel.packets) == 401
    assert not channel.payload


def test_unknown_subsections_are_refused() -> None:
    section = Configuration(machine_type="pc", subsections=[])
    data = bytes(section) + b"\x05\x10configuration/xx\0\0\0\x01"
    with pytest.raises(DissectionError, match="subsection b'configuration/xx' is not known"):
        Configuration(data)
