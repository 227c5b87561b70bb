# SPDX-License-Identifier: GPL-2.0-or-later
"""Multifd channels, cut: every page size, every kind of packet, and what is none."""

from __future__ import annotations

import pytest

from mfdtool.stream.frames import ChannelId, Kind
from mfdtool.stream.multifd import (
    MultiFDFramer,
    find_packet,
    is_plausible_packet,
)
from mfdtool.stream.reader import Reader
from mfdtool.stream.span import End, EndReason, Gap, Span, run_of
from mfdtool.wire.constants import PAGE_SIZES, MultiFDFlag
from mfdtool.wire.multifd import (
    MultiFDInit,
    MultiFDPacketCounts,
    MultiFDPacketDeviceState,
    MultiFDPacketFixed,
)
from mfdtool.wire.vfio import DeviceStateHeader
from tests.support.framing import Hole, assert_accounts, check, cut, run, stretches
from tests.support.streams import (
    device_packet,
    handshake,
    name,
    ram_packet,
    short_device_packet,
    sync_packet,
)

CHANNEL = ChannelId(0, "multifd-0")

# The worked example of a device state packet: idx 0, four data bytes.
DATA_PACKET = bytes.fromhex("11223344 00000001 00000040 303030303a30303a30352e302f7666696f").ljust(
    268, b"\0"
) + bytes.fromhex("00000000 00000010 00000000 00000000 00000000 deadbeef")


def make(reader: Reader) -> MultiFDFramer:
    return MultiFDFramer(reader, CHANNEL)


def make_middle(reader: Reader) -> MultiFDFramer:
    return MultiFDFramer(reader, CHANNEL, from_start=False)


def test_handshake() -> None:
    uuid = bytes.fromhex("00112233445566778899aabbccddeeff")
    (frame,) = check(make, handshake(1, uuid=uuid))
    assert (frame.kind, frame.offset, frame.length) == (Kind.MULTIFD_INIT, 0, 64)
    assert isinstance(frame.value, MultiFDInit)
    assert frame.value.uuid_text == "00112233-4455-6677-8899-aabbccddeeff"
    assert frame.value.id == 1


def test_name_is_asked_once_with_the_handshake() -> None:
    asked: list[MultiFDInit | None] = []

    def name_it(init: MultiFDInit | None) -> ChannelId:
        asked.append(init)
        return ChannelId(3, "multifd-5")

    def make_named(reader: Reader) -> MultiFDFramer:
        return MultiFDFramer(reader, CHANNEL, name=name_it)

    frames = cut(make_named, handshake(5) + device_packet())
    assert asked == [MultiFDInit(id=5)]
    assert {frame.channel for frame in frames} == {ChannelId(3, "multifd-5")}
    asked.clear()
    run(make_named, stretches(handshake(5) + device_packet(), holes=[Hole(3, 4)]))
    assert asked == [None]


def test_device_state_packet() -> None:
    assert device_packet() == DATA_PACKET
    frames = check(make, handshake() + DATA_PACKET + device_packet(1, b"", flags=1))
    assert [frame.kind for frame in frames[1:]] == [Kind.MULTIFD_DEVICE_STATE] * 2
    data, config = frames[1:]
    assert isinstance(data.value, DeviceStateHeader)
    assert (data.value.idstr_text, data.value.idx) == ("0000:00:05.0/vfio", 0)
    assert data.payload == Span(64 + 276, 64 + 292)
    assert data.payload is not None
    assert data.data(data.payload) == bytes(12) + b"\xde\xad\xbe\xef"
    assert isinstance(config.value, DeviceStateHeader)
    assert config.value.is_config
    assert config.length == 288


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_page_size_is_learnt_from_a_packet_with_pages(page_size: int) -> None:
    data = handshake() + ram_packet(zero=2, page_size=page_size) + device_packet()
    framers: list[MultiFDFramer] = []

    def make_noted(reader: Reader) -> MultiFDFramer:
        framers.append(make(reader))
        return framers[-1]

    frames = check(make_noted, data)
    assert [frame.kind for frame in frames] == [
        Kind.MULTIFD_INIT,
        Kind.MULTIFD_RAM,
        Kind.MULTIFD_DEVICE_STATE,
    ]
    assert framers[0].page_size == page_size
    assert frames[1].length == 320 + 8 * (524288 // page_size)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_page_size_is_learnt_from_a_sync_packet(page_size: int) -> None:
    data = handshake() + sync_packet(3, page_size=page_size) + device_packet()
    # Smaller pages than x86's are told only by what is there together with the packet: nobody
    # waits for the next one where the packet is complete by x86's measure.
    frames = check(make, data) if page_size >= 4096 else cut(make, data)
    assert [frame.kind for frame in frames[1:]] == [Kind.MULTIFD_SYNC, Kind.MULTIFD_DEVICE_STATE]
    assert isinstance(frames[1].value, MultiFDPacketFixed)
    assert frames[1].value.packet_num == 3


def test_sync_packet_alone_has_the_usual_page_size() -> None:
    framer = make(Reader())
    assert framer.page_size == 0
    frames = cut(make, handshake() + sync_packet())
    assert frames[1].length == 1344


def test_page_size_may_be_given() -> None:
    def make_given(reader: Reader) -> MultiFDFramer:
        return MultiFDFramer(reader, CHANNEL, page_size=65536)

    assert make_given(Reader()).page_size == 65536
    frames = check(make_given, handshake() + sync_packet(page_size=65536) * 2)
    assert [frame.length for frame in frames] == [64, 384, 384]


def test_a_frame_that_waits_for_the_next_header_says_so() -> None:
    reader = Reader()
    framer = make(reader)
    generator = framer.frames()
    data = handshake() + sync_packet(page_size=2048)
    reader.feed(run_of(data, record=17))
    assert next(generator) is not None
    assert next(generator) is None
    assert framer.waiting_since == 17
    reader.feed(run_of(device_packet(), start=len(data), record=20))
    sync = next(generator)
    assert sync is not None
    assert (sync.kind, sync.record) == (Kind.MULTIFD_SYNC, 17)
    assert framer.waiting_since is None


@pytest.mark.parametrize("flags", [0, MultiFDFlag.SYNC.value])
def test_pages_follow(flags: int) -> None:
    """Before 9.0, a SYNC packet may have pages, too."""
    pages = b"\x55" * 4096 + b"\xaa" * 4096
    data = handshake() + ram_packet(normal=2, flags=flags) + pages + sync_packet()
    frames = check(make, data)
    kind = Kind.MULTIFD_SYNC if flags else Kind.MULTIFD_RAM
    assert [frame.kind for frame in frames[1:]] == [kind, Kind.MULTIFD_SYNC]
    assert frames[1].payload == Span(64 + 1344, 64 + 1344 + 8192)
    assert frames[1].data(frames[1].payload) == pages


@pytest.mark.parametrize("flag", [MultiFDFlag.ZLIB, MultiFDFlag.ZSTD, MultiFDFlag.QATZIP])
def test_compressed_pages_are_as_long_as_the_packet_says(flag: MultiFDFlag) -> None:
    data = ram_packet(normal=100, flags=flag.value, size=77) + bytes(77) + sync_packet()
    frames = check(make, handshake() + data)
    assert [frame.length for frame in frames[1:]] == [1344 + 77, 1344]


def test_uncompressed_pages_are_not() -> None:
    """The destination ignores next_packet_size there (multifd-nocomp.c:multifd_nocomp_recv)."""
    frames = cut(make, handshake() + ram_packet(normal=1, size=7) + bytes(4096) + sync_packet())
    assert [frame.length for frame in frames[1:]] == [1344 + 4096, 1344]


@pytest.mark.parametrize(
    ("alloc", "normal", "zero"),
    [(129, 1, 0), (128, 129, 0), (128, 1, 128), (128, 0, 129), (0, 1, 0)],
)
def test_counts_above_the_limit_have_no_payload(alloc: int, normal: int, zero: int) -> None:
    head = bytearray(ram_packet())
    for at, value in ((12, alloc), (16, normal), (20, 4096), (32, zero)):
        head[at : at + 4] = value.to_bytes(4, "big")
    frames = cut(make, handshake() + sync_packet() + bytes(head) + sync_packet())
    assert [frame.length for frame in frames[1:]] == [1344] * 3


def test_no_pages_means_no_payload_whatever_the_size_says() -> None:
    frames = cut(make, handshake() + ram_packet(size=4096) + sync_packet())
    assert [frame.length for frame in frames[1:]] == [1344] * 2


@pytest.mark.parametrize("length", range(1, 12))
def test_device_packet_too_short_for_its_header(length: int) -> None:
    frames = cut(make, handshake() + short_device_packet(bytes(length)) + device_packet())
    assert [frame.length for frame in frames[1:]] == [276 + length, 292]
    assert isinstance(frames[1].value, MultiFDPacketDeviceState)
    assert frames[1].value.next_packet_size == length
    assert isinstance(frames[2].value, DeviceStateHeader)


def test_short_device_packets_at_every_cut() -> None:
    frames = check(make, handshake() + short_device_packet(b"") + short_device_packet(b"12345"))
    assert [frame.length for frame in frames[1:]] == [276, 281]


def test_gap_over_the_header_in_the_payload() -> None:
    data = handshake() + device_packet(0) + device_packet(1)
    hole = Hole(64 + 276 + 4, 64 + 292)
    frames = run(make, stretches(data, holes=[hole]))
    assert_accounts(frames, data, holes=[hole])
    damaged = frames[1]
    assert isinstance(damaged.value, MultiFDPacketDeviceState)
    assert (damaged.missing, damaged.reason) == (12, "not captured")
    assert damaged.payload is not None
    assert damaged.data(damaged.payload) == bytes(4)
    assert [frame.kind for frame in frames[2:]] == [Kind.GAP, Kind.MULTIFD_DEVICE_STATE]


def test_gap_over_a_block_name_leaves_the_counts() -> None:
    data = handshake() + ram_packet(normal=1) + bytes(4096) + sync_packet()
    hole = Hole(64 + 60, 64 + 70)
    frames = run(make, stretches(data, holes=[hole]))
    assert_accounts(frames, data, holes=[hole])
    assert type(frames[1].value) is MultiFDPacketCounts
    assert (frames[1].length, frames[1].missing) == (1344 + 4096, 10)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (EndReason.CAPTURE, "the capture ends inside it"),
        (EndReason.FIN, "the channel ends inside it"),
    ],
)
def test_payload_that_claims_4_gib(reason: EndReason, said: str) -> None:
    data = handshake() + device_packet(size=0xFFFF_FFFF)
    frames = cut(make, data, reason=reason)
    assert frames[1].length == 276 + 0xFFFF_FFFF
    assert frames[1].missing == 0xFFFF_FFFF - 16
    assert frames[1].reason == said


def test_capture_ends_inside_the_block_name() -> None:
    data = handshake() + ram_packet(normal=1)[:100]
    frames = cut(make, data, reason=EndReason.CAPTURE)
    assert type(frames[1].value) is MultiFDPacketCounts
    assert (frames[1].length, frames[1].missing) == (1344 + 4096, 1344 + 4096 - 100)


@pytest.mark.parametrize(
    ("length", "said"),
    [
        (20, "the capture ends inside the handshake"),
        (64 + 5, "the capture ends inside a packet header"),
        (64 + 30, "the capture ends inside a device state packet's header"),
    ],
)
def test_capture_ends_inside_a_header(length: int, said: str) -> None:
    frames = cut(make, (handshake() + device_packet())[:length], reason=EndReason.CAPTURE)
    assert (frames[-1].kind, frames[-1].reason) == (Kind.UNDECODED, said)


def test_capture_ends_inside_the_counts() -> None:
    frames = cut(make, (handshake() + sync_packet())[: 64 + 20], reason=EndReason.FIN)
    assert frames[-1].reason == "the channel ends inside a RAM packet's header"


def test_bad_magic_is_given_up_until_the_next_packet() -> None:
    junk = b"\x11\x22\x33\x44 almost a packet"
    data = handshake() + device_packet() + junk + device_packet(1)
    frames = check(make, data)
    assert [(frame.kind, frame.length) for frame in frames[1:]] == [
        (Kind.MULTIFD_DEVICE_STATE, 292),
        (Kind.UNDECODED, len(junk)),
        (Kind.MULTIFD_DEVICE_STATE, 292),
    ]
    assert frames[2].reason == "not a packet header"


def test_wrong_version_is_no_packet() -> None:
    wrong = bytearray(device_packet())
    wrong[7] = 2
    frames = cut(make, handshake() + bytes(wrong) + device_packet())
    assert [frame.kind for frame in frames[1:]] == [Kind.UNDECODED, Kind.MULTIFD_DEVICE_STATE]


def test_first_bytes_that_are_no_handshake() -> None:
    frames = check(make, b"x" * 70 + device_packet())
    assert [(frame.kind, frame.length) for frame in frames] == [
        (Kind.UNDECODED, 70),
        (Kind.MULTIFD_DEVICE_STATE, 292),
    ]


def test_capture_that_begins_with_a_packet() -> None:
    frames = check(make_middle, device_packet() + device_packet(1))
    assert [frame.kind for frame in frames] == [Kind.MULTIFD_DEVICE_STATE] * 2


def test_capture_that_begins_inside_a_packet() -> None:
    frames = check(make_middle, device_packet()[100:] + device_packet(1))
    assert [frame.kind for frame in frames] == [Kind.UNDECODED, Kind.MULTIFD_DEVICE_STATE]
    assert frames[1].value == DeviceStateHeader(
        idstr=name("0000:00:05.0/vfio"), idx=1, next_packet_size=16
    )


def test_unterminated_idstr_is_cut_all_the_same() -> None:
    frames = cut(make, handshake() + device_packet(idstr=b"x" * 256) + device_packet())
    assert isinstance(frames[1].value, DeviceStateHeader)
    assert frames[1].value.idstr_text == "x" * 256
    assert len(frames) == 3


@pytest.mark.parametrize(
    "header",
    [
        b"",
        bytes(276),
        device_packet()[:275],
        device_packet(idstr=name("")),
        device_packet(idstr=b"a\0b".ljust(256, b"\0")),
        device_packet(idstr=b"\xff".ljust(256, b"\0")),
        device_packet(idstr=b"a\n".ljust(256, b"\0")),
        short_device_packet(b""),
        ram_packet(alloc=77),
        ram_packet(normal=100, zero=28, flags=0x80),
        ram_packet(alloc=8, normal=5, zero=4),
    ],
)
def test_implausible_packets(header: bytes) -> None:
    assert not is_plausible_packet(header[:276])


def test_plausible_packets() -> None:
    for packet in (device_packet(), ram_packet(normal=3), sync_packet(), ram_packet(zero=128)):
        assert is_plausible_packet(packet[:276])


def test_find_packet_waits_for_a_whole_header() -> None:
    reader = Reader()
    junk = b"junk" + device_packet(idstr=name(""))
    reader.feed(run_of(junk + device_packet()[:200]))
    assert find_packet(reader, 0) == (None, len(junk))
    rest = device_packet()[200:]
    reader.feed(run_of(rest, start=reader.fed))
    assert find_packet(reader, 0) == (len(junk), len(junk))


def test_find_packet_behind_a_gap_and_at_the_end() -> None:
    reader = Reader()
    reader.feed(run_of(device_packet()[:50]))
    reader.feed(Gap(50, 60, "not captured"))
    assert find_packet(reader, 0) == (None, 53)
    reader.feed(run_of(b"x" * 20 + device_packet()[:90], start=60))
    assert find_packet(reader, 0)[0] is None
    reader.feed(End(reader.fed, EndReason.FIN, 1, 1))
    assert find_packet(reader, 0)[0] is None
