# SPDX-License-Identifier: GPL-2.0-or-later
"""Builders of pcapng blocks; the counterpart of `mfdtool.packets.pcapng`.

Each function gives one whole block. A section header comes first, then an interface
description for each interface, then packets.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Final

from mfdtool.packets.info import ByteOrder, Interface, Statistics
from mfdtool.packets.pcapng import (
    BINARY_RESOLUTION,
    BLOCK_OVERHEAD,
    BYTE_ORDER_MAGIC,
    BlockType,
    InterfaceOption,
    Option,
    PacketOption,
    SectionOption,
    StatisticsOption,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    Options = Iterable[tuple[int, bytes]]

MAX_OPTION: Final = 0xFFFF
"""The longest value an option can have."""

_UNKNOWN_LENGTH: Final = -1


def block(block_type: int, body: bytes, *, byte_order: ByteOrder = ByteOrder.LITTLE) -> bytes:
    """Build a block of any type; the body is padded to a multiple of 4 bytes."""
    body = _padded(body)
    length = len(body) + BLOCK_OVERHEAD
    head = Struct(f"{byte_order}II").pack(block_type, length)
    return head + body + Struct(f"{byte_order}I").pack(length)


def section_header(
    *,
    hardware: str = "",
    os: str = "",
    application: str = "",
    comments: Iterable[str] = (),
    byte_order: ByteOrder = ByteOrder.LITTLE,
) -> bytes:
    """Build a section header block; the section's length is left open."""
    texts = {
        SectionOption.HARDWARE: hardware,
        SectionOption.OS: os,
        SectionOption.APPLICATION: application,
    }
    body = Struct(f"{byte_order}IHHq").pack(BYTE_ORDER_MAGIC, 1, 0, _UNKNOWN_LENGTH)
    tail = _options([*_comments(comments), *_texts(texts)], byte_order)
    return block(BlockType.SECTION_HEADER, body + tail, byte_order=byte_order)


def interface_description(
    interface: Interface,
    *,
    comments: Iterable[str] = (),
    byte_order: ByteOrder = ByteOrder.LITTLE,
) -> bytes:
    """Build an interface description block; ``interface.index`` is not written.

    Raises:
        ValueError: the ticks of a second are neither a power of 10 nor one of 2.
    """
    texts = {
        InterfaceOption.NAME: interface.name,
        InterfaceOption.DESCRIPTION: interface.description,
        InterfaceOption.FILTER: interface.filter and "\0" + interface.filter,
        InterfaceOption.OS: interface.os,
        InterfaceOption.HARDWARE: interface.hardware,
    }
    options = [*_comments(comments), *_texts(texts)]
    resolution = _resolution(interface.ticks_per_second)
    options.append((InterfaceOption.RESOLUTION, bytes([resolution])))
    if interface.offset_seconds:
        offset = Struct(f"{byte_order}q").pack(interface.offset_seconds)
        options.append((InterfaceOption.OFFSET, offset))
    body = Struct(f"{byte_order}H2xI").pack(interface.linktype, interface.snaplen)
    tail = _options(options, byte_order)
    return block(BlockType.INTERFACE_DESCRIPTION, body + tail, byte_order=byte_order)


def enhanced_packet(
    frame: bytes | memoryview,
    *,
    ticks: int,
    interface: int = 0,
    original: int | None = None,
    comments: Iterable[str] = (),
    flags: int | None = None,
    drops: int | None = None,
    byte_order: ByteOrder = ByteOrder.LITTLE,
) -> bytes:
    """Build an enhanced packet block.

    Args:
        frame: what was captured.
        ticks: when, in ticks of the interface: nanoseconds if it has the default resolution.
        interface: number of the interface in its section.
        original: the frame's length on the wire if it was cut.
        comments: texts that Wireshark shows with the packet.
        flags: direction and others, epb_flags.
        drops: frames lost since the last one on this interface.
        byte_order: that of the section.
    """
    head, tail = enhanced_packet_ends(
        ticks=ticks,
        captured=len(frame),
        original=len(frame) if original is None else original,
        interface=interface,
        comments=comments,
        flags=flags,
        drops=drops,
        byte_order=byte_order,
    )
    return b"".join((head, frame, tail))


def enhanced_packet_ends(
    *,
    ticks: int,
    captured: int,
    original: int,
    interface: int = 0,
    comments: Iterable[str] = (),
    flags: int | None = None,
    drops: int | None = None,
    byte_order: ByteOrder = ByteOrder.LITTLE,
) -> tuple[bytes, bytes]:
    """Build what goes before and behind a frame, for a writer that has the frame elsewhere."""
    options = list(_comments(comments))
    if flags is not None:
        options.append((PacketOption.FLAGS, Struct(f"{byte_order}I").pack(flags)))
    if drops is not None:
        options.append((PacketOption.DROP_COUNT, Struct(f"{byte_order}Q").pack(drops)))
    tail = bytes(-captured % 4) + _options(options, byte_order)
    length = BLOCK_OVERHEAD + 20 + captured + len(tail)
    head = Struct(f"{byte_order}7I").pack(
        BlockType.ENHANCED_PACKET,
        length,
        interface,
        ticks >> 32,
        ticks & 0xFFFF_FFFF,
        captured,
        original,
    )
    return head, tail + Struct(f"{byte_order}I").pack(length)


def interface_statistics(
    statistics: Statistics,
    *,
    ticks: int,
    comments: Iterable[str] = (),
    byte_order: ByteOrder = ByteOrder.LITTLE,
) -> bytes:
    """Build an interface statistics block: ``interface`` is the number in its section here."""
    counts = {
        StatisticsOption.RECEIVED: statistics.received,
        StatisticsOption.DROPPED_BY_INTERFACE: statistics.dropped_by_interface,
        StatisticsOption.ACCEPTED_BY_FILTER: statistics.accepted_by_filter,
        StatisticsOption.DROPPED_BY_OS: statistics.dropped_by_os,
        StatisticsOption.DELIVERED: statistics.delivered,
    }
    pack_count = Struct(f"{byte_order}Q").pack
    options = [(code, pack_count(count)) for code, count in counts.items() if count is not None]
    body = Struct(f"{byte_order}3I").pack(statistics.interface, ticks >> 32, ticks & 0xFFFF_FFFF)
    tail = _options([*_comments(comments), *options], byte_order)
    return block(BlockType.INTERFACE_STATISTICS, body + tail, byte_order=byte_order)


def _resolution(ticks_per_second: int) -> int:
    """Encode if_tsresol."""
    for exponent in range(BINARY_RESOLUTION):
        if ticks_per_second == 10**exponent:
            return exponent
        if ticks_per_second == 1 << exponent:
            return BINARY_RESOLUTION | exponent
    raise ValueError(f"{ticks_per_second} ticks per second are no power of 10 or 2")


def _comments(comments: Iterable[str]) -> list[tuple[int, bytes]]:
    return [(Option.COMMENT, comment.encode()) for comment in comments]


def _texts(texts: dict[SectionOption, str] | dict[InterfaceOption, str]) -> list[tuple[int, bytes]]:
    return [(code, text.encode()) for code, text in texts.items() if text]


def _options(options: Options, byte_order: ByteOrder) -> bytes:
    """Build the list of options, nothing at all if there are none."""
    pack = Struct(f"{byte_order}HH").pack
    parts = []
    for code, value in options:
        if len(value) > MAX_OPTION:
            raise ValueError(f"an option holds at most {MAX_OPTION} bytes, not {len(value)}")
        parts.append(pack(code, len(value)) + _padded(value))
    if parts:
        parts.append(pack(Option.END, 0))
    return b"".join(parts)


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)
