# SPDX-License-Identifier: GPL-2.0-or-later
"""VFIO packets, markers and configs."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from mfdtool.errors import TruncatedError, WireError
from mfdtool.wire.codec import Layout, Message
from mfdtool.wire.constants import VFIO_PACKET_HEADER_SIZE, VFIOMarker
from mfdtool.wire.multifd import MultiFDPacketDeviceState
from mfdtool.wire.vfio import (
    DEVICE_DATA_LAYOUT,
    DEVICE_STATE_HEADER_LAYOUT,
    MARKER_LAYOUT,
    VFIO_PACKET_LAYOUT,
    ConfigBounds,
    DeviceData,
    DeviceStateHeader,
    Marker,
    VFIODeviceStatePacket,
    locate_config,
    wrap_config,
)

CheckMessage = Callable[..., None]

MULTIFD_HEADER = bytes.fromhex("11223344 00000001 00000040") + b"0000:00:05.0/vfio".ljust(
    256, b"\0"
)
DATA_PACKET = MULTIFD_HEADER + bytes.fromhex(
    "00000000 00000010 00000000 00000000 00000000 deadbeef"
)

# A conventional PCI device with three MSI-X vectors, in its second and last packet.
PCI_CONFIG = (
    bytes.fromhex("00000002 b3151e10 06041000")
    + bytes(264)
    + bytes.fromhex("0010e0fe 00000000 20400000 00000000")
    + bytes.fromhex("0010e0fe 00000000 21400000 00000000")
    + bytes.fromhex("0010e0fe 00000000 22400000 00000000 00")
)
CONFIG_PACKET = (
    MULTIFD_HEADER
    + bytes.fromhex("00000000 00000161 00000000 00000001 00000001 ffffffffef100002")
    + PCI_CONFIG
    + bytes.fromhex("ffffffffef100001")
)


def test_data_packet(check_message: CheckMessage) -> None:
    check_message(VFIODeviceStatePacket(idx=0), DATA_PACKET[276:288])
    header = DeviceStateHeader(
        idstr=b"0000:00:05.0/vfio".ljust(256, b"\0"), next_packet_size=16, idx=0
    )
    assert not header.is_config
    assert header.idstr_text == "0000:00:05.0/vfio"
    check_message(header, DATA_PACKET[:288])


def test_config_packet(check_message: CheckMessage) -> None:
    assert len(CONFIG_PACKET) == 629
    packet = VFIODeviceStatePacket(idx=1, flags=1)
    assert packet.is_config
    check_message(packet, CONFIG_PACKET[276:288])
    header = DEVICE_STATE_HEADER_LAYOUT.parse(CONFIG_PACKET)
    assert header.is_config
    assert (header.idx, header.next_packet_size) == (1, 353)
    config = CONFIG_PACKET[288:]
    bounds = locate_config(config)
    assert bounds == ConfigBounds(start=8, stop=333)
    assert config[bounds.start : bounds.stop] == PCI_CONFIG
    assert wrap_config(PCI_CONFIG) == config


def test_header_is_both_headers_in_one() -> None:
    random = Random(3)
    for _ in range(20):
        data = random.randbytes(288)
        both = DEVICE_STATE_HEADER_LAYOUT.parse(data)
        multifd = MultiFDPacketDeviceState.parse(data[:276])
        vfio = VFIODeviceStatePacket.parse(data[276:])
        assert both == DeviceStateHeader(
            magic=multifd.magic,
            packet_version=multifd.version,
            packet_flags=multifd.flags,
            idstr=multifd.idstr,
            instance_id=multifd.instance_id,
            next_packet_size=multifd.next_packet_size,
            version=vfio.version,
            idx=vfio.idx,
            flags=vfio.flags,
        )


@pytest.mark.parametrize(
    ("value", "marker", "ends_body"),
    [
        (0xFFFFFFFFEF100001, VFIOMarker.END_OF_STATE, True),
        (0xFFFFFFFFEF100002, VFIOMarker.DEV_CONFIG_STATE, False),
        (0xFFFFFFFFEF100003, VFIOMarker.DEV_SETUP_STATE, False),
        (0xFFFFFFFFEF100004, VFIOMarker.DEV_DATA_STATE, False),
        (0xFFFFFFFFEF100005, VFIOMarker.DEV_INIT_DATA_SENT, True),
        (0xFFFFFFFFEF100006, VFIOMarker.DEV_CONFIG_LOAD_READY, True),
        (0xFFFFFFFFEF100007, None, False),
        (0, None, False),
    ],
)
def test_marker(
    check_message: CheckMessage, value: int, marker: VFIOMarker | None, *, ends_body: bool
) -> None:
    message = Marker(value)
    assert message.marker is marker
    assert message.ends_body is ends_body
    check_message(message, value.to_bytes(8, "big"))


def test_device_data(check_message: CheckMessage) -> None:
    check_message(DeviceData(size=4), bytes.fromhex("ffffffffef100004 0000000000000004"))


def test_config_of_known_size_may_have_more_behind_it() -> None:
    data = wrap_config(b"abc") + b"xy"
    assert locate_config(data, size=3) == ConfigBounds(start=8, stop=11, trailing=2)
    with pytest.raises(WireError, match="is not END_OF_STATE") as caught:
        locate_config(data, channel="multifd-0", offset=288)
    assert (caught.value.channel, caught.value.offset) == ("multifd-0", 288 + 13)


def test_config_without_its_first_marker() -> None:
    data = Marker(VFIOMarker.END_OF_STATE).build() * 2
    with pytest.raises(WireError, match="0xffffffffef100001 is not DEV_CONFIG_STATE") as caught:
        locate_config(data, offset=5)
    assert caught.value.offset == 5


def test_empty_config() -> None:
    assert locate_config(wrap_config(b"")) == ConfigBounds(start=8, stop=8)


@pytest.mark.parametrize("length", range(19))
def test_truncated_config(length: int) -> None:
    data = wrap_config(b"abc")[:length]
    with pytest.raises(TruncatedError) as caught:
        locate_config(data, size=3)
    assert caught.value.missing == 19 - length
    with pytest.raises(WireError):
        locate_config(data)


def test_sizes() -> None:
    assert VFIO_PACKET_LAYOUT.size == VFIO_PACKET_HEADER_SIZE
    assert DEVICE_STATE_HEADER_LAYOUT.size == 288
    assert DEVICE_STATE_HEADER_LAYOUT["idx"].offset == 0x118


@pytest.mark.parametrize(
    "layout",
    [VFIO_PACKET_LAYOUT, DEVICE_STATE_HEADER_LAYOUT, MARKER_LAYOUT, DEVICE_DATA_LAYOUT],
    ids=repr,
)
def test_layout_and_construct_agree(layout: Layout[Message]) -> None:
    random = Random(layout.size)
    for _ in range(20):
        data = random.randbytes(layout.size)
        value = layout.parse(data)
        assert value == layout.message.parse(data)
        assert value.build() == data
