# SPDX-License-Identifier: GPL-2.0-or-later
"""Pieces of streams, put together by the wire package's own classes."""

from __future__ import annotations

from typing import Final

from mfdtool.wire.constants import MultiFDFlag, RamFlag, SectionType, VFIOMarker
from mfdtool.wire.main_stream import (
    CommandHeader,
    Configuration,
    FileHeader,
    SectionFooter,
    SectionPart,
    SectionStart,
)
from mfdtool.wire.multifd import (
    MultiFDInit,
    MultiFDPacket,
    MultiFDPacketDeviceState,
    page_count_for,
)
from mfdtool.wire.vfio import VFIODeviceStatePacket

DEVICE: Final = "0000:00:05.0/vfio"
EOF: Final = bytes([SectionType.EOF])


def name(text: str) -> bytes:
    """Give a fixed-size name field."""
    return text.encode().ljust(256, b"\0")


def counted(text: str) -> bytes:
    """Give a counted string."""
    return bytes([len(text)]) + text.encode()


# Multifd channels


def handshake(channel: int = 0, *, uuid: bytes = bytes(16)) -> bytes:
    """Give a channel's first 64 bytes."""
    return MultiFDInit(id=channel, uuid=uuid).build()


def ram_packet(
    *,
    normal: int = 0,
    zero: int = 0,
    page_size: int = 4096,
    flags: int = 0,
    size: int | None = None,
    alloc: int | None = None,
    number: int = 7,
) -> bytes:
    """Give a RAM packet without its payload."""
    count = page_count_for(page_size)
    return MultiFDPacket(
        flags=flags,
        pages_alloc=count if alloc is None else alloc,
        normal_pages=normal,
        zero_pages=zero,
        next_packet_size=normal * page_size if size is None else size,
        packet_num=number,
        ramblock=name("pc.ram"),
        offset=tuple(range(0, page_size * (normal + zero), page_size))
        + (0,) * (count - normal - zero),
    ).build()


def sync_packet(number: int = 8, *, page_size: int = 4096) -> bytes:
    """Give a SYNC packet as QEMU 9.0 and later write it."""
    return MultiFDPacket(
        flags=MultiFDFlag.SYNC.value,
        packet_num=number,
        offset=(0,) * page_count_for(page_size),
    ).build()


def device_packet(
    idx: int = 0,
    data: bytes = b"\xde\xad\xbe\xef",
    *,
    flags: int = 0,
    idstr: bytes = name(DEVICE),
    size: int | None = None,
) -> bytes:
    """Give a device state packet with its payload; ``size`` if it claims another one."""
    payload = VFIODeviceStatePacket(idx=idx, flags=flags).build() + data
    return short_device_packet(payload, idstr=idstr, size=size)


def short_device_packet(
    payload: bytes, *, idstr: bytes = name(DEVICE), size: int | None = None
) -> bytes:
    """Give a device state packet with any payload."""
    claimed = len(payload) if size is None else size
    return MultiFDPacketDeviceState(idstr=idstr, next_packet_size=claimed).build() + payload


# Main streams


def main_start(configuration: Configuration | None = None) -> bytes:
    """Give a main stream's header and configuration."""
    return FileHeader().build() + (configuration or Configuration(name="pc")).build()


def footer(section_id: int) -> bytes:
    """Give a section's footer."""
    return SectionFooter(section_id=section_id).build()


def start(section_id: int, idstr: str, body: bytes, *, version: int = 1) -> bytes:
    """Give a START section."""
    header = SectionStart(
        type=SectionType.START, section_id=section_id, idstr=idstr, version_id=version
    )
    return header.build() + body + footer(section_id)


def full(section_id: int, idstr: str, body: bytes, *, instance: int = 0) -> bytes:
    """Give a FULL section."""
    header = SectionStart(
        type=SectionType.FULL,
        section_id=section_id,
        idstr=idstr,
        instance_id=instance,
        version_id=1,
    )
    return header.build() + body + footer(section_id)


def part(section_id: int, body: bytes, *, end: bool = False) -> bytes:
    """Give a PART or END section."""
    kind = SectionType.END if end else SectionType.PART
    return SectionPart(type=kind, section_id=section_id).build() + body + footer(section_id)


def command(number: int, payload: bytes = b"") -> bytes:
    """Give a command."""
    return CommandHeader(cmd=number, len=len(payload)).build() + payload


def marker(value: VFIOMarker | int, rest: bytes = b"") -> bytes:
    """Give a VFIO marker and what follows it."""
    return int(value).to_bytes(8, "big") + rest


def device_data(data: bytes) -> bytes:
    """Give a record of device bytes."""
    return marker(VFIOMarker.DEV_DATA_STATE, len(data).to_bytes(8, "big") + data)


END_OF_STATE: Final = marker(VFIOMarker.END_OF_STATE)
SETUP: Final = marker(VFIOMarker.DEV_SETUP_STATE) + END_OF_STATE


def word(flags: int, addr: int = 0) -> bytes:
    """Give a RAM record's first word."""
    return (addr | flags).to_bytes(8, "big")


RAM_EOS: Final = word(RamFlag.EOS)


def mem_size(*blocks: tuple[str, int, bytes]) -> bytes:
    """Give a MEM_SIZE record of blocks, each a name, a length and its optional parts."""
    total = sum(length for _, length, _ in blocks)
    return word(RamFlag.MEM_SIZE, total) + b"".join(
        counted(block) + length.to_bytes(8, "big") + extra for block, length, extra in blocks
    )
