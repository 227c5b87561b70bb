# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames of a multifd channel as the items that a receive thread reads."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from mfdtool.loader.blob import EMPTY
from mfdtool.loader.events import (
    BadHeader,
    DevicePacket,
    End,
    Handshake,
    Lost,
    MultiFDItem,
    RamPacket,
    Unknown,
)
from mfdtool.schedule.bytes_of import blob_of_frame
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.span import EndReason, Span
from mfdtool.wire.constants import (
    MULTIFD_HEADER_SIZE,
    MULTIFD_INIT_SIZE,
    MULTIFD_MAGIC,
    MULTIFD_RAM_FIXED_SIZE,
    MULTIFD_VERSION,
    VFIO_PACKET_HEADER_SIZE,
)
from mfdtool.wire.multifd import (
    HEADER_LAYOUT,
    MultiFDInit,
    MultiFDPacketCounts,
    MultiFDPacketDeviceState,
    MultiFDPacketFixed,
)
from mfdtool.wire.text import until_nul
from mfdtool.wire.vfio import DeviceStateHeader

if TYPE_CHECKING:
    from mfdtool.stream.channel import Channel

_OFFSET_SIZE: Final = 8
_MAX_PAGES: Final = 4096


class Observed(NamedTuple):
    """A frame with what it is to the destination.

    ``since`` is the frame with which it becomes that: another one only for a bad header, of which
    the last bytes can be the first of what follows.
    """

    frame: Frame
    item: Handshake | Unknown | MultiFDItem
    since: Frame


def multifd_items(channel: Channel, frames: list[Frame]) -> Iterator[Observed]:
    """Give each frame with what it is to the destination; the first is what it connects with.

    A frame that the end of the channel cuts off gives nothing, unless the destination acts on its
    first bytes: the end comes next.
    """
    length = channel.stream.length
    first, *rest = frames
    if isinstance(first.value, MultiFDInit):
        init = first.value
        reserved = any(init.unused1 + init.unused2)
        handshake = Handshake(init.id, init.magic, init.version, init.uuid, reserved)
        yield Observed(first, handshake, first)
    elif length < MULTIFD_INIT_SIZE:
        # While more may come the destination waits for it, and so does not know the channel.
        if multifd_end(channel, frames).reason is not EndReason.CAPTURE:
            yield Observed(first, Unknown(first.data(limit=MULTIFD_INIT_SIZE)), first)
        return
    else:
        yield Observed(first, Unknown(), first)
        rest = frames
    behind_gap = False
    end = multifd_end(channel, frames)
    for place, frame in enumerate(rest):
        if end.reason is not EndReason.FIN and _is_cut(frame, length):
            return
        bad = None if behind_gap else _bad_header(rest, place)
        if bad is not None:
            yield bad
        elif (item := _item(frame, length)) is not None:
            yield Observed(frame, item, frame)
        behind_gap = frame.kind is Kind.GAP or (behind_gap and frame.kind is Kind.UNDECODED)


def multifd_end(channel: Channel, frames: list[Frame]) -> End:
    """Tell how a channel ends."""
    end = channel.stream.end
    reason = end.reason if end is not None else EndReason.CAPTURE
    last = frames[-1] if frames else None
    if last is None or not _is_cut(last, channel.stream.length):
        return End(reason)
    return End(reason, inside=True, after_header=channel.stream.length - last.offset == 12)


def _is_cut(frame: Frame, length: int) -> bool:
    """Whether the end of the channel cuts a frame off."""
    if frame.kind is Kind.UNDECODED:
        return frame.end == length and not _is_bad(frame.data(limit=MULTIFD_HEADER_SIZE))
    return frame.end > length


def _is_bad(head: bytes) -> bool:
    """Whether bytes where a packet header must be are none."""
    if len(head) < MULTIFD_HEADER_SIZE:
        return False
    magic, version, _ = HEADER_LAYOUT.unpack(head)
    return bool(magic != MULTIFD_MAGIC or version != MULTIFD_VERSION)


def _bad_header(frames: Sequence[Frame], place: int) -> Observed | None:
    """Read bytes that no packet begins with as a header, as the destination does.

    If they are fewer than a header has, what follows them is taken for the rest of it.
    """
    frame = since = frames[place]
    if frame.kind is not Kind.UNDECODED:
        return None
    head = b""
    for since in frames[place : place + MULTIFD_HEADER_SIZE]:
        if since.offset != frame.offset + len(head):
            return None
        head += since.data(limit=MULTIFD_HEADER_SIZE - len(head))
        if len(head) == MULTIFD_HEADER_SIZE:
            break
    if not _is_bad(head):
        return None
    magic, version, _ = HEADER_LAYOUT.unpack(head)
    return Observed(frame, BadHeader(magic, version), since)


def _item(frame: Frame, length: int) -> MultiFDItem | None:
    value = frame.value
    if isinstance(value, DeviceStateHeader | MultiFDPacketDeviceState):
        return _device_packet(frame, is_cut=_is_cut(frame, length))
    if isinstance(value, MultiFDPacketCounts):
        return None if _is_cut(frame, length) else _ram_packet(frame, value)
    return None if _is_cut(frame, length) else Lost(frame.length)


def _ram_packet(frame: Frame, packet: MultiFDPacketCounts) -> RamPacket:
    return RamPacket(
        flags=packet.flags,
        pages_alloc=packet.pages_alloc,
        normal_pages=packet.normal_pages,
        zero_pages=packet.zero_pages,
        next_packet_size=packet.next_packet_size,
        packet_num=packet.packet_num,
        ramblock=packet.ramblock_text if isinstance(packet, MultiFDPacketFixed) else None,
        offset=_greatest_offset(frame, packet.normal_pages + packet.zero_pages),
        has_reserved=isinstance(packet, MultiFDPacketFixed)
        and bool(packet.unused32 or any(packet.unused64)),
    )


def _greatest_offset(frame: Frame, pages: int) -> int | None:
    """Give the greatest page offset of a RAM packet, None if they were not captured."""
    if not 0 < pages <= _MAX_PAGES:
        return None
    start = frame.offset + MULTIFD_RAM_FIXED_SIZE
    raw = frame.data(Span(start, start + _OFFSET_SIZE * pages))
    if len(raw) < _OFFSET_SIZE * pages:
        return None
    offsets: tuple[int, ...] = struct.unpack(f">{pages}Q", raw)
    return max(offsets)


def _device_packet(frame: Frame, *, is_cut: bool) -> DevicePacket:
    value = frame.value
    assert isinstance(value, DeviceStateHeader | MultiFDPacketDeviceState)
    assert frame.payload is not None
    idstr = value.idstr
    if isinstance(value, MultiFDPacketDeviceState):
        return DevicePacket(
            idstr=until_nul(idstr),
            instance_id=value.instance_id,
            packet_flags=value.flags,
            is_terminated=not idstr[-1],
            next_packet_size=value.next_packet_size,
            version=None,
            flags=None,
            data=EMPTY,
            is_cut=is_cut,
        )
    data = Span(frame.payload.start + VFIO_PACKET_HEADER_SIZE, frame.payload.stop)
    return DevicePacket(
        idstr=until_nul(idstr),
        instance_id=value.instance_id,
        packet_flags=value.packet_flags,
        is_terminated=not idstr[-1],
        next_packet_size=value.next_packet_size,
        version=value.version,
        idx=value.idx,
        flags=value.flags,
        data=blob_of_frame(frame, data),
        is_cut=is_cut,
    )
