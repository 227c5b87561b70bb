# SPDX-License-Identifier: GPL-2.0-or-later
"""Multifd handshake and packets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from random import Random

import pytest

from mfdtool.errors import TruncatedError, WireError
from mfdtool.wire.codec import Layout, Message
from mfdtool.wire.constants import (
    MULTIFD_DEVICE_STATE_SIZE,
    MULTIFD_HEADER_SIZE,
    MULTIFD_INIT_SIZE,
    MULTIFD_RAM_FIXED_SIZE,
)
from mfdtool.wire.multifd import (
    DEVICE_STATE_LAYOUT,
    HEADER_LAYOUT,
    INIT_LAYOUT,
    RAM_COUNTS_LAYOUT,
    RAM_LAYOUT,
    X86_PAGE_COUNT,
    MultiFDInit,
    MultiFDPacket,
    MultiFDPacketDeviceState,
    MultiFDPacketHdr,
    page_count_for,
    page_size_for,
    ram_packet_size,
)

CheckMessage = Callable[..., None]

# A handshake of channel 1, and packets of a guest with 4 KiB pages.
INIT = bytes.fromhex("11223344 00000001 00112233445566778899aabbccddeeff 01") + bytes(7) + bytes(32)
RAM = (
    bytes.fromhex("11223344 00000001 00000000 00000080 00000002 00002000 0000000000000007")
    + bytes.fromhex("00000001 00000000")
    + bytes(24)
    + b"pc.ram".ljust(256, b"\0")
    + bytes.fromhex("0000000000001000 0000000000003000 0000000000005000")
    + bytes(8 * 125)
)
SYNC = bytes.fromhex("11223344 00000001 00000001") + bytes(19) + b"\x08" + bytes(1312)
DEVICE = (
    bytes.fromhex("11223344 00000001 00000040")
    + b"0000:00:05.0/vfio".ljust(256, b"\0")
    + bytes.fromhex("00000000 00000010")
)


def test_handshake(check_message: CheckMessage) -> None:
    uuid = bytes.fromhex("00112233445566778899aabbccddeeff")
    init = MultiFDInit(uuid=uuid, id=1)
    assert init.uuid_text == "00112233-4455-6677-8899-aabbccddeeff"
    check_message(init, INIT)


def test_header(check_message: CheckMessage) -> None:
    check_message(MultiFDPacketHdr(flags=0x40), DEVICE[:12])


@pytest.mark.parametrize(
    ("flags", "sync", "device_state", "compression"),
    [
        (0x00, 0, 0, 0),
        (0x01, 1, 0, 0),
        (0x40, 0, 1, 0),
        (0x25, 1, 0, 0x24),
        (0xFFFFFF80, 0, 0, 0),
    ],
)
def test_flags(flags: int, sync: int, device_state: int, compression: int) -> None:
    header = MultiFDPacketHdr(flags=flags)
    assert header.is_sync is bool(sync)
    assert header.is_device_state is bool(device_state)
    assert header.compression == compression


def test_ram_packet(check_message: CheckMessage) -> None:
    packet = MultiFDPacket(
        flags=0,
        pages_alloc=128,
        normal_pages=2,
        next_packet_size=8192,
        packet_num=7,
        zero_pages=1,
        ramblock=b"pc.ram".ljust(256, b"\0"),
        offset=(0x1000, 0x3000, 0x5000) + (0,) * 125,
    )
    assert packet.ramblock_text == "pc.ram"
    assert packet.normal_offsets == (0x1000, 0x3000)
    assert packet.zero_offsets == (0x5000,)
    check_message(packet, RAM, page_count=128)
    assert MultiFDPacket.parse(RAM) == packet
    assert MultiFDPacket.parse_prefix(RAM + bytes(8192)) == (packet, 1344)
    for name in (info.name for info in fields(RAM_LAYOUT.message)):
        assert getattr(RAM_LAYOUT.parse(RAM), name) == getattr(packet, name)


def test_sync_packet(check_message: CheckMessage) -> None:
    packet = MultiFDPacket(flags=1, packet_num=8)
    assert packet.is_sync
    assert packet.ramblock_text == ""
    check_message(packet, SYNC, page_count=128)


def test_device_state_packet(check_message: CheckMessage) -> None:
    packet = MultiFDPacketDeviceState(
        idstr=b"0000:00:05.0/vfio".ljust(256, b"\0"), next_packet_size=16
    )
    assert packet.idstr_text == "0000:00:05.0/vfio"
    assert packet.is_idstr_terminated
    check_message(packet, DEVICE)


def test_names_without_a_nul() -> None:
    packet = MultiFDPacketDeviceState(idstr=b"x" * 256, next_packet_size=1)
    assert not packet.is_idstr_terminated
    assert packet.idstr_text == "x" * 256
    assert MultiFDPacket(flags=0, ramblock=b"y" * 256).ramblock_text == "y" * 255


@pytest.mark.parametrize(
    ("page_size", "page_count", "packet_size"),
    [(4096, 128, 1344), (8192, 64, 832), (16384, 32, 576), (65536, 8, 384)],
)
def test_ram_packet_size_follows_the_page_size(
    page_size: int, page_count: int, packet_size: int
) -> None:
    assert page_count_for(page_size) == page_count
    assert page_size_for(page_count) == page_size
    assert ram_packet_size(page_count) == packet_size
    packet = MultiFDPacket(flags=0, packet_num=3, offset=tuple(range(page_count)))
    assert len(packet.build()) == packet_size
    assert MultiFDPacket.parse(packet.build()) == packet


def test_length_that_is_no_ram_packet() -> None:
    with pytest.raises(WireError, match=r"1343 bytes are not 320 \+ 8 \* pages") as caught:
        MultiFDPacket.parse(RAM[:-1], channel="multifd-0", offset=64)
    assert (caught.value.channel, caught.value.offset) == ("multifd-0", 64)


def test_page_count_beyond_the_buffer_is_truncation() -> None:
    with pytest.raises(TruncatedError) as caught:
        MultiFDPacket.parse_prefix(RAM, page_count=1 << 60)
    assert caught.value.missing == (8 << 60) - 8 * 128
    assert caught.value.path == "offset"


@pytest.mark.parametrize("length", range(0, 320, 7))
def test_short_ram_packet_without_page_count(length: int) -> None:
    with pytest.raises(TruncatedError):
        MultiFDPacket.parse(RAM[:length])


def test_sizes() -> None:
    assert INIT_LAYOUT.size == MULTIFD_INIT_SIZE
    assert HEADER_LAYOUT.size == MULTIFD_HEADER_SIZE
    assert RAM_LAYOUT.size == MULTIFD_RAM_FIXED_SIZE
    assert DEVICE_STATE_LAYOUT.size == MULTIFD_DEVICE_STATE_SIZE
    assert X86_PAGE_COUNT == 128


@pytest.mark.parametrize(
    "layout",
    [INIT_LAYOUT, HEADER_LAYOUT, RAM_COUNTS_LAYOUT, RAM_LAYOUT, DEVICE_STATE_LAYOUT],
    ids=repr,
)
def test_layout_and_construct_agree(layout: Layout[Message]) -> None:
    random = Random(layout.size)
    for _ in range(20):
        data = random.randbytes(layout.size)
        value = layout.parse(b"x" + data, 1)
        assert value == layout.message.parse(data)
        assert value.build() == data


def test_random_ram_packets_survive() -> None:
    random = Random(2)
    for _ in range(20):
        data = random.randbytes(ram_packet_size(random.randrange(200)))
        assert MultiFDPacket.parse(data).build() == data


def test_offset_that_does_not_fit() -> None:
    with pytest.raises(WireError) as caught:
        MultiFDPacket(flags=0, offset=(1 << 64,)).build()
    assert caught.value.path == "offset"
