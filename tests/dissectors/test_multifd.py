# SPDX-License-Identifier: GPL-2.0-or-later
"""Multifd layers on packets as QEMU writes them."""

from __future__ import annotations

import random
from uuid import UUID

import pytest
from scapy.packet import Packet, Padding, Raw

from dissectors.fields import TruncatedError
from dissectors.multifd import (
    MultiFDChannel,
    MultiFDInit,
    MultiFDPacket,
    MultiFDPacketDeviceState,
    MultiFDPacketHdr,
    MultiFDSync,
    is_handshake,
)
from dissectors.vfio import VFIOConfigState, VFIODeviceStatePacket

MAGIC = bytes.fromhex("11223344 00000001")
UUID_BYTES = bytes.fromhex("00112233445566778899aabbccddeeff")
HANDSHAKE = MAGIC + UUID_BYTES + b"\x01" + bytes(39)
RAM = (
    MAGIC
    + bytes.fromhex("00000000 00000080 00000002 00002000 0000000000000007 00000001")
    + bytes(28)
    + b"pc.ram".ljust(256, b"\0")
    + bytes.fromhex("0000000000001000 0000000000003000 0000000000005000")
    + bytes(125 * 8)
)
SYNC = MAGIC + bytes.fromhex("00000001") + bytes(12) + (8).to_bytes(8) + bytes(1312)
DATA = (
    MAGIC
    + bytes.fromhex("00000040")
    + b"0000:00:05.0/vfio".ljust(256, b"\0")
    + bytes.fromhex("00000000 00000010 00000000 00000000 00000000 deadbeef")
)
CONFIG_STREAM = bytes.fromhex("ffffffffef100002") + bytes(325) + bytes.fromhex("ffffffffef100001")
CONFIG = DATA[:268] + bytes.fromhex("00000000 00000161 00000000 00000001 00000001") + CONFIG_STREAM


def dissect(data: bytes) -> Packet:
    """Dissect a packet of any kind."""
    return MultiFDPacketHdr(data)


def test_handshake() -> None:
    packet = MultiFDInit(HANDSHAKE)
    assert packet.uuid == UUID("00112233-4455-6677-8899-aabbccddeeff")
    assert (packet.magic, packet.version, packet.id) == (0x11223344, 1, 1)
    built = MultiFDInit(uuid="00112233-4455-6677-8899-aabbccddeeff", id=1)
    assert bytes(built) == bytes(packet) == HANDSHAKE


def test_ram_packet() -> None:
    packet = dissect(RAM + b"a" * 4096 + b"b" * 4096 + b"next")
    assert type(packet) is MultiFDPacket
    assert (packet.pages_alloc, packet.normal_pages, packet.zero_pages) == (128, 2, 1)
    assert (packet.next_packet_size, packet.packet_num) == (8192, 7)
    assert packet.ramblock.rstrip(b"\0") == b"pc.ram"
    assert packet.offset[:4] == [0x1000, 0x3000, 0x5000, 0]
    assert packet[Raw].load == b"a" * 4096 + b"b" * 4096
    assert packet[Padding].load == b"next"
    built = MultiFDPacket(
        pages_alloc=128,
        normal_pages=2,
        zero_pages=1,
        packet_num=7,
        ramblock="pc.ram",
        offset=[0x1000, 0x3000, 0x5000],
    ) / Raw(bytes(8192))
    assert bytes(built) == RAM + bytes(8192)


def test_sync_packet() -> None:
    packet = dissect(SYNC)
    assert type(packet) is MultiFDSync
    assert packet.packet_num == 8
    assert str(packet.flags) == "SYNC"
    assert bytes(MultiFDSync(packet_num=8)) == SYNC
    assert not packet.payload


def test_device_state_packet() -> None:
    packet = dissect(DATA)
    assert type(packet) is MultiFDPacketDeviceState
    assert str(packet.flags) == "DEVICE_STATE"
    assert packet.idstr.rstrip(b"\0") == b"0000:00:05.0/vfio"
    assert packet[VFIODeviceStatePacket].idx == 0
    assert packet[Raw].load == bytes.fromhex("deadbeef")
    built = MultiFDPacketDeviceState(idstr="0000:00:05.0/vfio") / VFIODeviceStatePacket()
    assert bytes(built / bytes.fromhex("deadbeef")) == DATA


def test_config_packet() -> None:
    packet = dissect(CONFIG)
    header, config = packet[VFIODeviceStatePacket], packet[VFIOConfigState]
    assert (header.idx, str(header.flags)) == (1, "CONFIG_STATE")
    assert config.config == bytes(325)
    assert packet.lastlayer() is config
    shown = str(packet.show(dump=True))
    assert "marker    = DEV_CONFIG_STATE" in shown
    assert "end       = END_OF_STATE" in shown
    assert "... (325 bytes)" in shown
    built = (
        MultiFDPacketDeviceState(idstr="0000:00:05.0/vfio")
        / VFIODeviceStatePacket(idx=1, flags="CONFIG_STATE")
        / VFIOConfigState(config=bytes(325))
    )
    assert bytes(built) == CONFIG


@pytest.mark.parametrize(
    "payload", [b"", CONFIG_STREAM[:8], CONFIG_STREAM[:-1], bytes(8) + CONFIG_STREAM[8:]]
)
def test_config_that_is_none_stays_raw(payload: bytes) -> None:
    built = MultiFDPacketDeviceState() / VFIODeviceStatePacket(flags=1)
    packet = MultiFDPacketDeviceState(bytes(built / Raw(payload)))
    assert bytes(packet[VFIODeviceStatePacket].payload) == payload
    assert not packet.haslayer(VFIOConfigState)


def test_config_needs_room_for_two_markers() -> None:
    with pytest.raises(TruncatedError, match="1 bytes more wanted"):
        VFIOConfigState(bytes(15))


def test_payload_without_room_for_a_header_stays_raw() -> None:
    packet = MultiFDPacketDeviceState(bytes(MultiFDPacketDeviceState() / Raw(bytes(11))))
    assert packet.payload == Raw(bytes(11))


def test_editing() -> None:
    packet = dissect(DATA)
    packet.idx = 5
    packet[Raw].load = b"longer than before"
    assert dissect(bytes(packet)).next_packet_size == 16
    del packet.next_packet_size
    again = dissect(bytes(packet))
    assert (again.idx, again.next_packet_size) == (5, 12 + 18)


def test_headers_alone() -> None:
    assert bytes(MultiFDPacketHdr(flags="SYNC+ZSTD")) == MAGIC + b"\0\0\0\x05"
    header = MultiFDPacketHdr(MAGIC + b"\0\0\1\0")
    assert type(header) is MultiFDPacketHdr
    assert str(header.flags) == "bit_8"


@pytest.mark.parametrize("page_size", [4096, 65536])
def test_channel(page_size: int) -> None:
    packets = [
        MultiFDInit(id=3),
        MultiFDSync(page_size=page_size),
        MultiFDPacket(normal_pages=1, page_size=page_size) / Raw(bytes(page_size)),
        MultiFDPacketDeviceState(idstr="ram") / VFIODeviceStatePacket() / Raw(b"data"),
    ]
    data = bytes(MultiFDChannel(packets=packets))
    channel = MultiFDChannel(data + b"\x11\x22", page_size=page_size)
    assert list(map(type, channel.packets)) == list(map(type, packets))
    assert list(map(bytes, channel.packets)) == list(map(bytes, packets))
    assert channel.payload == Raw(b"\x11\x22")


@pytest.mark.parametrize("packet", [RAM, SYNC, DATA, CONFIG, bytes(MultiFDSync())])
def test_a_packet_is_not_a_handshake(packet: bytes) -> None:
    assert not is_handshake(packet)
    assert list(map(type, MultiFDChannel(packet).packets)) == [type(dissect(packet))]


@pytest.mark.parametrize("behind", [b"", b"\x11", MAGIC, RAM, SYNC])
def test_a_handshake_is_one(behind: bytes) -> None:
    assert is_handshake(HANDSHAKE + behind)
    assert type(MultiFDChannel(HANDSHAKE + behind).packets[0]) is MultiFDInit


def test_a_second_handshake_is_a_packet() -> None:
    channel = MultiFDChannel(HANDSHAKE + HANDSHAKE)
    assert list(map(type, channel.packets)) == [MultiFDInit]
    assert bytes(channel.payload) == HANDSHAKE


@pytest.mark.parametrize("data", [b"\x11", b"GET / HTTP/1.1\r\n\r\n", MAGIC, bytes(100), RAM[:700]])
def test_what_is_no_packet_stays_raw(data: bytes) -> None:
    channel = MultiFDChannel(data)
    assert channel.packets == []
    assert channel.payload == Raw(data)


def test_hostile_bytes() -> None:
    rng = random.Random(1)
    stream = HANDSHAKE + SYNC + RAM + bytes(8192) + DATA + CONFIG
    for _ in range(300):
        data = bytearray(stream[: rng.randrange(1, len(stream))])
        for _ in range(rng.randrange(6)):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 0x40, 0x7F, 0xFF])
        channel = MultiFDChannel(bytes(data))
        assert bytes(channel) == data
        assert len(str(channel.show(dump=True))) > 20
