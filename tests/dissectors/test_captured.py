# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets of recorded migrations, and what is missing of them."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from scapy.packet import Packet, Raw

import dissectors
from dissectors.captured import ChannelFrame, Missing, Undecoded, packet_of
from dissectors.multifd import MultiFDInit, MultiFDPacket, MultiFDPacketDeviceState
from dissectors.ram import MemSizeEntry, RamMemSize, RamPage
from dissectors.vfio import VFIODeviceData, VFIODeviceStatePacket
from mfdtool.errors import CaptureError
from mfdtool.stream.frames import ChannelId, Frame, Kind, Section
from mfdtool.stream.reader import Extent
from mfdtool.stream.span import Span
from mfdtool.stream.values import RamRecord, Value
from mfdtool.wire import ram
from mfdtool.wire.constants import RamFlag

CAPTURES = Path(__file__).parents[2] / "captures"
CLEAN = CAPTURES / "mtty-4ch-clean.pcap.gz"
LIMIT = 1 << 20


def frame_of(
    kind: Kind,
    data: bytes,
    *,
    holes: tuple[tuple[int, int], ...] = (),
    header: int = 0,
    length: int | None = None,
    value: Value | None = None,
) -> Frame:
    """Make a frame at offset 1000 that lacks the bytes of some ranges of ``data``."""
    edges = [0, *(edge for hole in holes for edge in hole), len(data)]
    there = [(low, high) for low, high in zip(edges[::2], edges[1::2], strict=True) if low < high]
    length = length or len(data)
    return Frame(
        kind,
        ChannelId(2, "multifd-1"),
        7,
        1000,
        length,
        1_500_000_000,
        2_000_000_001,
        33,
        missing=length - sum(high - low for low, high in there),
        value=value,
        payload=Span(1000 + header, 1000 + length) if header else None,
        reason="not captured",
        extents=tuple(Extent(1000 + low, memoryview(data)[low:high]) for low, high in there),
    )


def layers(packet: Packet) -> list[object]:
    """List the layers behind the first: bytes of raw ones, lengths of missing ones, classes."""
    return [
        bytes(layer.load)
        if isinstance(layer, Raw)
        else layer.length
        if isinstance(layer, Missing)
        else type(layer)
        for layer in packet.payload.iterpayloads()
    ]


DEVICE = bytes(MultiFDPacketDeviceState() / VFIODeviceStatePacket(idx=4) / b"0123456789")


def test_read() -> None:
    packets = list(dissectors.read(CLEAN))
    data = [packet for packet in packets if packet.haslayer(VFIODeviceStatePacket)]
    assert sorted(packet.idx for packet in data) == [0, 1, 2, 3, 4, 5]
    assert sum(len(packet[Raw].load) for packet in data if packet.haslayer(Raw)) == 72
    assert {packet.channel for packet in data} <= {f"multifd-{number}" for number in range(4)}
    first = packets[0]
    assert isinstance(first, ChannelFrame)
    assert (first.migration, first.number, first.offset, first.record) == (0, 0, 0, 16)
    assert first.summary() == f"{first.channel}#0 / MultiFDInit"
    assert [packet.time for packet in packets] == sorted(packet.time for packet in packets)
    section = next(packet for packet in packets if packet.haslayer(VFIODeviceData))
    assert section.section == "0000:00:05.0/vfio"


def test_time_and_place() -> None:
    packet = packet_of(frame_of(Kind.MULTIFD_INIT, bytes(MultiFDInit(id=5))), limit=LIMIT)
    assert packet.time == Decimal("2.000000001")
    assert packet.copy().time == packet.time
    assert packet.id == 5
    assert packet.fields == {
        "migration": 2,
        "channel": "multifd-1",
        "number": 7,
        "offset": 1000,
        "record": 33,
        "section": "",
    }
    assert "channel   = multifd-1" in str(packet.show(dump=True))


@pytest.mark.parametrize(
    ("holes", "expected"),
    [
        ((), [b"0123456789"]),
        (((290, 292),), [b"01", 2, b"456789"]),
        (((290, 292), (294, 298)), [b"01", 2, b"45", 4]),
        (((289, 290), (292, 295)), [b"0", 1, b"23", 3, b"789"]),
        (((288, 298),), [10]),
    ],
)
def test_holes_in_data(holes: tuple[tuple[int, int], ...], expected: list[object]) -> None:
    frame = frame_of(Kind.MULTIFD_DEVICE_STATE, DEVICE, holes=holes, header=276)
    packet = packet_of(frame, limit=LIMIT)
    assert layers(packet) == [MultiFDPacketDeviceState, VFIODeviceStatePacket, *expected]
    assert packet.idx == 4
    if holes:
        with pytest.raises(ValueError, match="bytes are missing: not captured"):
            bytes(packet)
        assert "reason    = not captured" in str(packet.show(dump=True))
        assert "bytes (not captured)" in packet.summary()
    else:
        assert bytes(packet) == DEVICE


def test_pieces_that_touch_are_one() -> None:
    frame = frame_of(Kind.MULTIFD_DEVICE_STATE, DEVICE, holes=((100, 100), (290, 290)), header=276)
    assert len(frame.extents) == 3
    assert bytes(packet_of(frame, limit=LIMIT)) == DEVICE


def test_a_header_that_is_incomplete_stays_raw() -> None:
    frame = frame_of(Kind.MULTIFD_DEVICE_STATE, DEVICE, holes=((3, 200),), header=276)
    assert layers(packet_of(frame, limit=LIMIT)) == [DEVICE[:3], 197, DEVICE[200:]]
    frame = frame_of(Kind.MULTIFD_DEVICE_STATE, DEVICE, holes=((0, 200),), header=276)
    assert layers(packet_of(frame, limit=LIMIT)) == [200, DEVICE[200:]]


def test_limit() -> None:
    frame = frame_of(Kind.MULTIFD_DEVICE_STATE, DEVICE, header=276)
    packet = packet_of(frame, limit=14)
    assert layers(packet) == [MultiFDPacketDeviceState, VFIODeviceStatePacket, b"01", 8]
    assert packet[Missing].reason == "beyond the limit of 14 bytes"


def test_a_claim_allocates_nothing() -> None:
    claim = 276 + 0xFFFFFFFF
    frame = frame_of(Kind.MULTIFD_DEVICE_STATE, DEVICE, header=276, length=claim)
    packet = packet_of(frame, limit=LIMIT)
    assert layers(packet)[2:] == [b"0123456789", LIMIT - 22, 0xFFFFFFFF - LIMIT]


def test_too_many_holes() -> None:
    holes = tuple((at, at + 1) for at in range(300, 900, 2))
    frame = frame_of(Kind.MULTIFD_DEVICE_STATE, DEVICE + bytes(1000), holes=holes, header=276)
    packet = packet_of(frame, limit=LIMIT)
    found = layers(packet)
    assert len(found) < 70
    assert packet.lastlayer().reason == "too many holes"
    assert sum(item for item in found if isinstance(item, int)) + 32 + 300 == len(DEVICE) + 1000


def test_gap() -> None:
    packet = packet_of(frame_of(Kind.GAP, b"", length=14), limit=LIMIT)
    assert layers(packet) == [14]
    gap = Frame(Kind.GAP, ChannelId(0, "main"), None, 5, 14, -1, -1, 0, missing=14, reason="lost")
    assert packet_of(gap, limit=LIMIT).summary() == "main / Missing 14 bytes (lost)"
    assert packet_of(gap, limit=LIMIT).time == 0


def test_bytes_that_are_no_packet() -> None:
    packet = packet_of(frame_of(Kind.UNDECODED, b"garbage", header=0), limit=LIMIT)
    assert packet[Undecoded].fields == {"reason": "not captured"}
    assert packet[Raw].load == b"garbage"
    assert bytes(packet) == b"garbage"
    opaque = packet_of(frame_of(Kind.MAIN_OPAQUE, b"state"), limit=LIMIT)
    assert layers(opaque) == [b"state"]


def test_what_a_layer_leaves_over_is_raw() -> None:
    data = bytes(VFIODeviceData(data=b"abc")) + b"more"
    assert layers(packet_of(frame_of(Kind.VFIO_MARKER, data), limit=LIMIT)) == [
        VFIODeviceData,
        b"more",
    ]


def test_page_size_follows_from_the_frame() -> None:
    data = bytes(MultiFDPacket(page_size=65536, offset=[65536])) + bytes(65536)
    packet = packet_of(frame_of(Kind.MULTIFD_RAM, data, header=384), limit=LIMIT)
    assert packet[MultiFDPacket].offset == [65536, 0, 0, 0, 0, 0, 0, 0]
    page = bytes(RamPage(addr=0x2000, flags="PAGE+CONTINUE", data=b"p" * 8192))
    record = RamRecord(RamFlag.PAGE | RamFlag.CONTINUE, 0x2000, "pc.ram")
    frame = frame_of(Kind.RAM_RECORD, page, header=8, value=record)
    assert len(packet_of(frame, limit=LIMIT).data) == 8192


def block_list(*parts: dict[str, Any]) -> Packet:
    """Read back a list of RAM blocks with these optional fields."""
    theirs = [MemSizeEntry(idstr="pc.ram", used_length=0x2000, **some) for some in parts]
    ours = [ram.MemSizeEntry(idstr="pc.ram", used_length=0x2000, **some) for some in parts]
    data = bytes(RamMemSize(addr=0x2000 * len(parts), entries=theirs))
    value = RamRecord(RamFlag.MEM_SIZE, 0x2000, entries=tuple(ours))
    return packet_of(frame_of(Kind.RAM_RECORD, data, value=value), limit=LIMIT)


def test_optional_parts_of_a_block_list() -> None:
    first, second, third = block_list({"address": 0x1000}, {}, {"page_size": 0x200000}).entries
    assert (first.page_size, first.address) == (None, 0x1000)
    assert (second.page_size, second.address) == (None, None)
    assert (third.page_size, third.address) == (0x200000, None)


def test_mapped_ram_has_pages_between_the_entries() -> None:
    header = ram.MappedRamHeader(page_size=4096, bitmap_offset=100, pages_offset=1 << 20)
    entry = ram.MemSizeEntry(idstr="pc.ram", used_length=0x2000, mapped_ram=header)
    value = RamRecord(RamFlag.MEM_SIZE, 0x4000, entries=(entry, entry))
    data = bytes.fromhex("0000000000004004") + entry.build() + bytes(100) + entry.build()
    packet = packet_of(frame_of(Kind.RAM_RECORD, data, value=value), limit=LIMIT)
    assert layers(packet) == [data]


def test_notes_have_no_bytes() -> None:
    packet = ChannelFrame(b"payload")
    assert packet.payload == Raw(b"payload")
    assert bytes(packet / Undecoded(reason="because")) == b"payload"


def test_section_name() -> None:
    section = Section(3, "0000:00:05.0/vfio", 0, 1)
    frame = Frame(Kind.MAIN_EOF, ChannelId(0, "main"), 1, 0, 0, 0, 0, 1, section=section)
    assert packet_of(frame, limit=LIMIT).section == "0000:00:05.0/vfio"


def test_damage_is_told_after_what_comes_before_it(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes(gzip.decompress(CLEAN.read_bytes())[:100_000])
    packets = dissectors.read(path)
    assert next(packets).haslayer(MultiFDInit)
    with pytest.raises(CaptureError):
        list(packets)


def test_a_file_that_is_no_capture(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.write_bytes(b"")
    with pytest.raises(CaptureError):
        list(dissectors.read(path))
