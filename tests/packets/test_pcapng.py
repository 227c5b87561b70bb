# SPDX-License-Identifier: GPL-2.0-or-later
"""The pcapng reader against its builders, editcap's output, and every way to break a file."""

from __future__ import annotations

import struct
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from mfdtool.errors import CaptureError
from mfdtool.packets import info as info_module
from mfdtool.packets import pcap, pcapng
from mfdtool.packets.info import (
    MAX_COMMENT_TEXT,
    MAX_COMMENTS,
    MAX_INTERFACES,
    NANOSECONDS,
    ByteOrder,
    CaptureInfo,
    Comment,
    Format,
    Interface,
    Statistics,
)
from mfdtool.packets.link import LinkType
from mfdtool.packets.pcapng_build import (
    block,
    enhanced_packet,
    enhanced_packet_ends,
    interface_description,
    interface_statistics,
    section_header,
)
from mfdtool.packets.values import NO_TIME, Record

if TYPE_CHECKING:
    from collections.abc import Callable

TIME = 1_795_424_183_724_486_123
ETHERNET = Interface(index=0, linktype=LinkType.ETHERNET)
START = section_header() + interface_description(ETHERNET)

EDITCAP = bytes.fromhex(
    # editcap 4.0.17 -F pcapng -a 1:first -a "2:zweites ü" --capture-comment "whole file"
    #   mtty-4ch-clean.pcap small.pcapng -r 1-3
    "0a0d0d0a7c0000004d3c2b1a01000000ffffffffffffffff01000a0077686f6c652066696c65000004004500"
    "45646974636170202857697265736861726b2920342e302e313720284769742076342e302e3137207061636b"
    "6167656420617320342e302e31372d302b6465623132753329000000000000007c0000000100000014000000"
    "010000000000040014000000060000007c00000000000000ed6006007ae4e9f84a0000004a00000000000000"
    "000000000000000008004500003c8a1340004006b2a67f0000017f000001e4e4115cf625279100000000a002"
    "fdc0fe3000000204fdc00402080a1c78400900000000010303070000010005006669727374000000000000"
    "007c000000060000008000000000000000ed6006001053eaf84a0000004a0000000000000000000000000000"
    "0008004500003c0000400040063cba7f0000017f000001115ce4e46f989e8df6252792a012fdb4fe30000002"
    "04fdc00402080a92dcc9861c78400901030307000001000a007a77656974657320c3bc000000000000800000"
    "00060000006400000000000000ed600600e6aaeaf842000000420000000000000000000000000000000800"
    "450000348a1440004006b2ad7f0000017f000001e4e4115cf62527926f989e8e801001fcfe2800000101080a"
    "1c78405392dcc986000064000000"
)


def collect(
    data: bytes | bytearray, info: CaptureInfo | None = None
) -> tuple[list[Record], CaptureError | None]:
    """Read all records, and the error that ended them."""
    records: list[Record] = []
    try:
        for record in pcapng.read(memoryview(bytes(data)), path="x.pcapng", info=info):
            records.append(record)
    except CaptureError as error:
        return records, error
    return records, None


def read_info(data: bytes) -> CaptureInfo:
    """Read an undamaged file; give what it says about itself."""
    info = CaptureInfo()
    _, error = collect(data, info)
    assert error is None
    return info


def damage(data: bytes) -> CaptureError:
    """Read a damaged file; give the error."""
    _, error = collect(data)
    assert error is not None
    return error


def option(code: int, value: bytes) -> bytes:
    """Build a little-endian option."""
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def rich_sample(order: ByteOrder) -> bytes:
    """Build one section with every kind of block, 5 records."""
    second = replace(ETHERNET, linktype=LinkType.RAW, snaplen=6, ticks_per_second=1 << 20)
    pack = struct.Struct
    return b"".join(
        [
            section_header(
                hardware="x86", os="Linux", application="qemu", comments=["a"], byte_order=order
            ),
            interface_description(replace(ETHERNET, snaplen=4), comments=["i"], byte_order=order),
            interface_description(second, byte_order=order),
            enhanced_packet(b"abc", ticks=TIME, comments=["p", "q"], byte_order=order),
            enhanced_packet(
                b"defgh", ticks=3 << 19, interface=1, original=70, drops=7, byte_order=order
            ),
            block(3, pack(f"{order}I").pack(9) + b"simp", byte_order=order),
            block(
                2,
                pack(f"{order}HH4I").pack(1, 5, 0, 1 << 20, 3, 3) + b"old\0",
                byte_order=order,
            ),
            block(0xBAD, b"custom", byte_order=order),
            interface_statistics(
                Statistics(1, received=10, dropped_by_os=3), ticks=0, byte_order=order
            ),
            enhanced_packet(b"", ticks=1, flags=2, byte_order=order),
        ]
    )


@pytest.mark.parametrize("order", ByteOrder)
def test_every_block_in_both_byte_orders(order: ByteOrder) -> None:
    info = CaptureInfo()
    data = rich_sample(order)
    records, error = collect(data, info)
    assert error is None
    assert [replace(record, offset=0) for record in records] == [
        Record(1, TIME, 1, 0, 3, 3, 0),
        Record(2, 1_500_000_000, 101, 0, 5, 70, 1),
        Record(3, NO_TIME, 1, 0, 4, 9, 0),
        Record(4, NANOSECONDS, 101, 0, 3, 3, 1),
        Record(5, 1, 1, 0, 0, 0, 0),
    ]
    frames = [data[record.offset : record.offset + record.captured] for record in records]
    assert frames == [b"abc", b"defgh", b"simp", b"old", b""]
    assert (info.format, info.byte_order, info.sections) == (Format.PCAPNG, order, 1)
    assert (info.hardware, info.os, info.application) == ("x86", "Linux", "qemu")
    assert [(comment.text, comment.record) for comment in info.comments] == [
        ("a", 0),
        ("i", 0),
        ("p", 1),
        ("q", 1),
    ]
    assert info.dropped_before_records == 12
    assert info.statistics == {1: Statistics(1, received=10, dropped_by_os=3)}
    assert info.dropped == 12
    assert info.snaplen == 6
    assert info.damaged_options == 0


def test_editcap_file() -> None:
    info = CaptureInfo()
    records, error = collect(EDITCAP, info)
    assert error is None
    # 1795425059.857530 and so on, as tshark shows them.
    assert records == [
        Record(1, 1_795_425_059_857_530_000, 1, 172, 74, 74),
        Record(2, 1_795_425_059_885_840_000, 1, 296, 74, 74),
        Record(3, 1_795_425_059_908_326_000, 1, 424, 66, 66),
    ]
    assert [(comment.text, comment.record) for comment in info.comments] == [
        ("whole file", 0),
        ("first", 1),
        ("zweites ü", 2),
    ]
    assert info.interfaces == [
        Interface(index=0, linktype=1, snaplen=262_144, ticks_per_second=1_000_000)
    ]
    assert info.application.startswith("Editcap (Wireshark) 4.0.17")


def test_real_capture_rewritten(real_capture: Callable[[str], memoryview]) -> None:
    source = real_capture("mtty-2dev-2ch-holes")
    before = list(pcap.read(source))
    data = START + b"".join(
        enhanced_packet(
            source[record.offset : record.offset + record.captured],
            ticks=record.time_ns,
            original=record.original,
        )
        for record in before
    )
    after, error = collect(data)
    assert error is None
    assert [replace(record, offset=0) for record in after] == [
        replace(record, offset=0) for record in before
    ]
    assert all(
        data[new.offset : new.offset + new.captured]
        == source[old.offset : old.offset + old.captured]
        for new, old in zip(after, before, strict=True)
    )


@pytest.mark.parametrize("order", ByteOrder)
def test_every_truncation_gives_the_whole_blocks(order: ByteOrder) -> None:
    data = rich_sample(order)
    whole, _ = collect(data)
    ends = [0]
    while ends[-1] < len(data):
        (length,) = struct.unpack_from(f"{order}I", data, ends[-1] + 4)
        ends.append(ends[-1] + length)
    for size in range(len(data)):
        records, error = collect(data[:size])
        start_of_block = max(end for end in ends if end <= size)
        expected = [record for record in whole if record.offset < start_of_block]
        assert records == expected
        if size in ends[1:]:
            assert error is None
            continue
        assert error is not None
        assert error.offset == start_of_block
        assert error.record == len(records) + 1


def test_sections_have_their_own_byte_order_and_interfaces() -> None:
    raw = replace(ETHERNET, linktype=LinkType.RAW, name="second")
    data = (
        START
        + enhanced_packet(b"a", ticks=1)
        + section_header(os="other", byte_order=ByteOrder.BIG)
        + interface_description(raw, byte_order=ByteOrder.BIG)
        + enhanced_packet(b"b", ticks=2, byte_order=ByteOrder.BIG)
        + interface_statistics(Statistics(0, received=5), ticks=2, byte_order=ByteOrder.BIG)
    )
    info = CaptureInfo()
    records, error = collect(data, info)
    assert error is None
    assert [(record.linktype, record.interface, record.time_ns) for record in records] == [
        (1, 0, 1),
        (101, 1, 2),
    ]
    assert info.sections == 2
    assert info.byte_order is ByteOrder.LITTLE
    assert [interface.name for interface in info.interfaces] == ["", "second"]
    assert info.statistics == {1: Statistics(1, received=5)}
    assert info.os == "other"


def test_interfaces_of_another_section_are_not_visible() -> None:
    data = START + section_header() + enhanced_packet(b"a", ticks=1)
    assert damage(data).reason == "the file is damaged: interface 0 is not described"


@pytest.mark.parametrize(
    ("ticks_per_second", "offset", "ticks", "time_ns"),
    [
        (1_000_000, 0, 1_500_000, 1_500_000_000),
        (NANOSECONDS, 0, TIME, TIME),
        (10**10, 0, TIME * 10 + 9, TIME),
        (1, 0, 1_795_424_183, 1_795_424_183_000_000_000),
        (1 << 32, 0, (5 << 32) + (1 << 31), 5_500_000_000),
        (1 << 127, 0, 1, 0),
        (10**127, 0, 1, 0),
        (NANOSECONDS, 100, 5, 100_000_000_005),
        (NANOSECONDS, -100, 5, NO_TIME),
        (1, 0, 1 << 63, NO_TIME),
        (NANOSECONDS, 0, (1 << 63) - 1, (1 << 63) - 1),
        (NANOSECONDS, 0, 1 << 63, NO_TIME),
    ],
)
def test_time_resolutions(ticks_per_second: int, offset: int, ticks: int, time_ns: int) -> None:
    interface = replace(ETHERNET, ticks_per_second=ticks_per_second, offset_seconds=offset)
    data = section_header() + interface_description(interface) + enhanced_packet(b"", ticks=ticks)
    info = CaptureInfo()
    assert [record.time_ns for record in collect(data, info)[0]] == [time_ns]
    assert info.interfaces == [interface]


def test_resolution_is_microseconds_when_nothing_is_said() -> None:
    data = section_header() + block(1, struct.pack("<HHI", 1, 0, 0))
    assert read_info(data).interfaces[0].ticks_per_second == 1_000_000


def test_interface_options_survive() -> None:
    interface = Interface(
        index=0,
        linktype=LinkType.LINUX_SLL2,
        snaplen=128,
        ticks_per_second=1_000_000,
        offset_seconds=-3,
        name="enp5s0",
        description="migration network",
        hardware="virtio",
        os="Linux 6.12",
        filter="tcp port 4444",
    )
    assert read_info(section_header() + interface_description(interface)).interfaces == [interface]


def test_long_names_are_cut() -> None:
    long = replace(ETHERNET, name="n" * 5000)
    info = read_info(section_header() + interface_description(long))
    assert info.interfaces[0].name == "n" * pcapng.MAX_TEXT


def test_text_that_is_no_utf8_is_shown() -> None:
    body = struct.pack("<IHHq", pcapng.BYTE_ORDER_MAGIC, 1, 0, -1) + option(3, b"Lin\xffux\0\0")
    assert read_info(block(0x0A0D0D0A, body)).os == "Lin\ufffdux"


def test_comments_of_blocks_that_are_stepped_over() -> None:
    names = struct.pack("<HH", 1, 9) + bytes([127, 0, 0, 1]) + b"host\0" + bytes(3) + bytes(4)
    secrets = struct.pack("<II", 0x544C534B, 5) + b"CLIEN\0\0\0"
    data = (
        START
        + block(4, names + option(1, b"names"))
        + block(4, names[:-4])
        + block(4, b"\1\0\xff\xff")
        + block(4, b"")
        + block(10, secrets + option(1, b"secrets"))
        + block(10, struct.pack("<II", 1, 0xFFFF_FFFF))
        + enhanced_packet(b"x", ticks=1)
    )
    info = read_info(data)
    assert [comment.text for comment in info.comments] == ["names", "secrets"]
    assert info.damaged_options == 0


def test_obsolete_packet_block_may_not_know_its_drops() -> None:
    body = struct.pack("<HH4I", 0, 0xFFFF, 0, 1, 0, 0)
    assert read_info(START + block(2, body)).dropped_before_records == 0


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b"\x01\0\xff\0", id="value beyond the block"),
        pytest.param(option(1, b"good") + b"\x01\0\x05\0abcd", id="value one byte too long"),
    ],
)
def test_damaged_options_do_not_cost_the_record(tail: bytes) -> None:
    head, _ = enhanced_packet_ends(ticks=1, captured=4, original=4)
    data = START + block(6, head[8:] + b"abcd" + tail)
    info = CaptureInfo()
    records, error = collect(data, info)
    assert error is None
    assert [record.captured for record in records] == [4]
    assert info.damaged_options == 1


def test_options_of_odd_length_are_ignored() -> None:
    data = section_header() + block(
        1,
        struct.pack("<HHI", 1, 0, 0)
        + option(9, b"")
        + option(14, b"1234")
        + option(5000, b"who knows")
        + option(0, b"")
        + b"junk",
    )
    data += block(5, struct.pack("<3I", 0, 0, 0) + option(4, b"12"))
    info = read_info(data)
    assert info.interfaces == [replace(ETHERNET, ticks_per_second=1_000_000)]
    assert info.statistics == {0: Statistics(0)}
    assert info.dropped == 0


def resized(data: bytes, length: int) -> bytes:
    """Write another total length into both ends of a block."""
    new = struct.pack("<I", length)
    return data[:4] + new + data[8:-4] + new


PACKET = enhanced_packet(b"abcd", ticks=1)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (resized(PACKET, 0), "the file is damaged: a block cannot be 0 bytes long"),
        (resized(PACKET, 8), "the file is damaged: a block cannot be 8 bytes long"),
        (resized(PACKET, 35), "the file is damaged: a block cannot be 35 bytes long"),
        (
            resized(PACKET, 0xFFFF_FFFC),
            "the file ends inside a block, 4294967220 bytes are missing",
        ),
        (
            PACKET[:-4] + struct.pack("<I", 40),
            "the file is damaged: a block of 36 bytes ends as one of 40",
        ),
        (block(6, bytes(16)), "the file is damaged: block type 6 is too short"),
        (block(1, bytes(4)), "the file is damaged: block type 1 is too short"),
        (block(5, bytes(8)), "the file is damaged: block type 5 is too short"),
        (block(6, struct.pack("<5I", 0, 0, 0, 5, 5) + b"abcd"), "cannot hold 5 bytes"),
        (block(3, struct.pack("<I", 5) + b"abcd"), "cannot hold 5 bytes"),
        (enhanced_packet(b"", ticks=0, interface=1), "interface 1 is not described"),
        (interface_statistics(Statistics(7), ticks=0), "interface 7 is not described"),
        (block(0x0A0D0D0A, b"\x4d\x3c\x2b\x1b" + bytes(12)), "byte order magic 4d3c2b1b"),
        (
            block(0x0A0D0D0A, struct.pack("<IHHq", pcapng.BYTE_ORDER_MAGIC, 2, 0, -1)),
            "pcapng version 2.0 is not supported",
        ),
        (bytes(40), "the file is damaged: a block cannot be 0 bytes long"),
    ],
)
def test_damage_ends_the_records(bad: bytes, reason: str) -> None:
    records, error = collect(START + PACKET + bad + PACKET)
    assert len(records) == 1
    assert error is not None
    assert error.reason.endswith(reason)
    assert (error.path, error.record, error.offset) == (
        "x.pcapng",
        2,
        len(START) + len(PACKET),
    )


@pytest.mark.parametrize("data", [b"", b"\x0a\x0d\x0d", b"QEVM" + bytes(40)])
def test_not_pcapng_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(CaptureError, match="not a pcapng file"):
        pcapng.read(memoryview(data))


def test_damaged_first_block_is_refused_at_once() -> None:
    with pytest.raises(CaptureError, match="ends inside a block"):
        pcapng.read(memoryview(section_header()[:20]))


def test_too_many_interfaces_are_damage() -> None:
    one = interface_description(ETHERNET)
    assert len(read_info(section_header() + one * MAX_INTERFACES).interfaces) == MAX_INTERFACES
    error = damage(section_header() + one * (MAX_INTERFACES + 1))
    assert error.reason == f"the file is damaged: more than {MAX_INTERFACES} interfaces"


def test_comments_are_limited_and_counted() -> None:
    info = CaptureInfo()
    for number in range(MAX_COMMENTS + 3):
        info.add_comment(Comment("c", offset=number))
    assert (len(info.comments), info.comments_omitted) == (MAX_COMMENTS, 3)

    info = CaptureInfo()
    for size in (MAX_COMMENT_TEXT - 1, 2, 1, 1):
        info.add_comment(Comment("c" * size, offset=0))
    assert ([len(comment.text) for comment in info.comments], info.comments_omitted) == (
        [MAX_COMMENT_TEXT - 1, 1],
        2,
    )


def test_drops_of_statistics_and_records_are_not_added_up() -> None:
    info = CaptureInfo(
        statistics={
            0: Statistics(0, dropped_by_interface=2, dropped_by_os=3),
            1: Statistics(1, dropped_by_os=4),
        },
        dropped_before_records=8,
    )
    assert info.dropped == 9
    info.dropped_before_records = 10
    assert info.dropped == 10


def test_snaplen_is_unlimited_when_one_interface_is() -> None:
    assert CaptureInfo().snaplen == 0
    assert CaptureInfo(interfaces=[ETHERNET, replace(ETHERNET, snaplen=9)]).snaplen == 0


def test_ticks_are_the_inverse_of_times() -> None:
    for ticks_per_second in (1_000_000, NANOSECONDS, 10**12):
        interface = replace(ETHERNET, ticks_per_second=ticks_per_second, offset_seconds=1000)
        time_ns = TIME - TIME % 1000
        assert interface.time_ns(interface.ticks(time_ns)) == time_ns
    assert ETHERNET.ticks(NO_TIME) == 0
    assert info_module.MAX_TIME_NS == 2**63 - 1


def test_reader_can_be_moved_by_a_bulk_reader() -> None:
    reader = pcapng.Reader(memoryview(START + PACKET * 3))
    assert reader.read_block() is None
    assert [interface.linktype for interface in reader.interfaces] == [1]
    assert reader.offset == len(START)
    reader.offset += 2 * len(PACKET)
    reader.records = 2
    assert [record.number for record in reader] == [3]
    assert reader.offset == len(START) + 3 * len(PACKET)


def test_builders_refuse_what_does_not_fit() -> None:
    for ticks_per_second in (0, 3, 1000_001, 1 << 128):
        with pytest.raises(ValueError, match="no power of 10 or 2"):
            interface_description(replace(ETHERNET, ticks_per_second=ticks_per_second))
    with pytest.raises(ValueError, match="at most 65535 bytes, not 65536"):
        section_header(comments=["x" * 65_536])


def test_ends_of_a_packet_whose_frame_is_elsewhere() -> None:
    for size in range(6):
        frame = bytes(range(size))
        head, tail = enhanced_packet_ends(
            ticks=TIME, captured=size, original=99, comments=["c"], flags=1
        )
        assert head + frame + tail == enhanced_packet(
            frame, ticks=TIME, original=99, comments=["c"], flags=1
        )
        assert len(head + frame + tail) % 4 == 0


def test_enhanced_packet_bytes() -> None:
    data = enhanced_packet(
        b"abcde", ticks=0x1122334455667788, interface=2, original=9, comments=["hey"], flags=1
    )
    assert data.hex(" ", -4) == (
        "06000000 40000000 02000000 44332211 88776655 05000000 09000000 61626364 65000000 "
        "01000300 68657900 02000400 01000000 00000000 40000000"
    ).replace("40000000", f"{len(data):02x}000000")


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bits_give_records_or_a_capture_error(seed: int) -> None:
    rng = Random(seed)
    data = bytearray(rng.choice([EDITCAP, rich_sample(rng.choice(list(ByteOrder)))]))
    for _ in range(rng.randrange(1, 12)):
        data[rng.randrange(rng.choice((40, len(data))))] ^= 1 << rng.randrange(8)
    info = CaptureInfo()
    records, error = collect(data, info)
    assert all(record.offset + record.captured <= len(data) for record in records)
    assert [record.number for record in records] == list(range(1, len(records) + 1))
    assert error is not None or len(records) <= 5
    assert all(record.interface < len(info.interfaces) for record in records)
