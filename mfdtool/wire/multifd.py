# SPDX-License-Identifier: GPL-2.0-or-later
"""Multifd channels: a 64-byte handshake, then packets that all begin with the same 12 bytes.

Flag DEVICE_STATE tells the two kinds of packet apart:

- A RAM packet has 320 bytes and one be64 for each page that a packet of this stream *can* hold,
  so all RAM packets of a stream have the same length; page data may follow. A SYNC packet is a
  RAM packet without pages.
- A device state packet has 276 bytes; ``next_packet_size`` bytes of payload follow.

The RAM packet of releases before 9.0 has the same length and no zero_pages field: its place holds
zeroes, so it reads as a packet without zero pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from construct import Bytes, Int8ub, Int32ub, Int64ub, Struct, this

from mfdtool.errors import WireError
from mfdtool.wire.codec import Buffer, Layout, Message, be64_array, field
from mfdtool.wire.constants import (
    IDSTR_SIZE,
    MULTIFD_COMPRESSION_MASK,
    MULTIFD_MAGIC,
    MULTIFD_PACKET_SIZE,
    MULTIFD_RAM_FIXED_SIZE,
    MULTIFD_VERSION,
    X86_PAGE_SIZE,
    MultiFDFlag,
)
from mfdtool.wire.text import until_nul

if TYPE_CHECKING:
    from typing import Self

_OFFSET_SIZE: Final = 8
_HEADER_FIELDS: Final = (
    field("magic", Int32ub, "MULTIFD_MAGIC, 0x11223344"),
    field("version", Int32ub, "version of the multifd protocol, 1"),
    field("flags", Int32ub, "kind of packet, compression method, SYNC"),
)


def page_count_for(page_size: int) -> int:
    """Pages per RAM packet at a target page size (multifd.h:multifd_ram_page_count)."""
    return MULTIFD_PACKET_SIZE // page_size


def page_size_for(page_count: int) -> int:
    """Target page size at a number of pages per RAM packet."""
    return MULTIFD_PACKET_SIZE // page_count


def ram_packet_size(page_count: int) -> int:
    """Length in bytes of every RAM packet of a stream, without page data."""
    return MULTIFD_RAM_FIXED_SIZE + _OFFSET_SIZE * page_count


X86_PAGE_COUNT: Final = page_count_for(X86_PAGE_SIZE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiFDInit(Message):
    """Handshake: the first 64 bytes of a multifd channel (multifd.c:MultiFDInit_t)."""

    SCHEMA = Struct(
        field("magic", Int32ub, "MULTIFD_MAGIC, 0x11223344"),
        field("version", Int32ub, "version of the multifd protocol, 1"),
        field("uuid", Bytes(16), "the VM's UUID, all zero without -uuid"),
        field("id", Int8ub, "channel number, from 0"),
        field("unused1", Bytes(7), "reserved, 0"),
        field("unused2", Bytes(32), "reserved, 0"),
    )
    SOURCE = "multifd.c:MultiFDInit_t"

    magic: int = MULTIFD_MAGIC
    version: int = MULTIFD_VERSION
    uuid: bytes = bytes(16)
    id: int
    unused1: bytes = bytes(7)
    unused2: bytes = bytes(32)

    @property
    def uuid_text(self) -> str:
        """The UUID as QEMU prints it: ``00112233-4455-6677-8899-aabbccddeeff``."""
        digits = self.uuid.hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiFDPacketHdr(Message):
    """First 12 bytes of every packet (multifd.h:MultiFDPacketHdr_t)."""

    SCHEMA = Struct(*_HEADER_FIELDS)
    SOURCE = "multifd.h:MultiFDPacketHdr_t"

    magic: int = MULTIFD_MAGIC
    version: int = MULTIFD_VERSION
    flags: int

    @property
    def is_device_state(self) -> bool:
        """Whether the packet is a :class:`MultiFDPacketDeviceState`."""
        return bool(self.flags & MultiFDFlag.DEVICE_STATE)

    @property
    def is_sync(self) -> bool:
        """Whether the packet is a synchronisation point."""
        return bool(self.flags & MultiFDFlag.SYNC)

    @property
    def compression(self) -> int:
        """The compression method's flag, 0 for none; more than one bit is a broken packet."""
        return self.flags & MULTIFD_COMPRESSION_MASK


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiFDPacketCounts(MultiFDPacketHdr):
    """First 36 bytes of a RAM or SYNC packet: enough to know how long it is."""

    SCHEMA = Struct(
        *_HEADER_FIELDS,
        field("pages_alloc", Int32ub, "pages that the packet can hold, 0 in a SYNC packet"),
        field("normal_pages", Int32ub, "pages whose data follows"),
        field("next_packet_size", Int32ub, "bytes that follow the packet"),
        field("packet_num", Int64ub, "counter over the RAM and SYNC packets of all channels"),
        field("zero_pages", Int32ub, "pages of zeroes, without data (9.0 and later)"),
    )
    SOURCE = "multifd.h:MultiFDPacket_t"

    pages_alloc: int = 0
    normal_pages: int = 0
    next_packet_size: int = 0
    packet_num: int = 0
    zero_pages: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiFDPacketFixed(MultiFDPacketCounts):
    """RAM or SYNC packet without its page offsets: the 320 bytes that every stream's have."""

    SCHEMA = Struct(
        *MultiFDPacketCounts.SCHEMA.subcons,
        field("unused32", Int32ub, "reserved, 0"),
        field("unused64", Bytes(24), "reserved, 0"),
        field("ramblock", Bytes(IDSTR_SIZE), "RAM block of all the packet's pages, NUL-terminated"),
    )
    SOURCE = "multifd.h:MultiFDPacket_t"

    unused32: int = 0
    unused64: bytes = bytes(24)
    ramblock: bytes = bytes(IDSTR_SIZE)

    @property
    def ramblock_text(self) -> str:
        """The block's name; the destination takes byte 255 as NUL, whatever it is."""
        return until_nul(self.ramblock[:-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiFDPacket(MultiFDPacketFixed):
    """RAM or SYNC packet (multifd.h:MultiFDPacket_t), without the page data that follows it.

    ``offset`` has as many entries as the packet can hold pages, used or not: first those of the
    normal pages, then those of the zero pages.
    """

    SCHEMA = Struct(
        *MultiFDPacketFixed.SCHEMA.subcons,
        field("offset", be64_array(this._params.page_count), "where pages belong in the block"),
    )

    offset: tuple[int, ...] = (0,) * X86_PAGE_COUNT

    @classmethod
    def parse(
        cls,
        data: Buffer,
        *,
        channel: str = "",
        offset: int = 0,
        page_count: int | None = None,
    ) -> Self:
        """Decode ``data``, exactly one packet; without ``page_count`` its length tells that.

        Raises:
            TruncatedError: ``data`` ends inside the packet.
            WireError: the length is not that of a RAM packet.
        """
        if page_count is None:
            page_count, rest = divmod(len(data) - MULTIFD_RAM_FIXED_SIZE, _OFFSET_SIZE)
            if page_count >= 0 and rest:
                raise WireError(
                    f"{len(data)} bytes are not {MULTIFD_RAM_FIXED_SIZE} + 8 * pages",
                    offset=offset,
                    channel=channel,
                )
        return cls._parse_whole(data, channel=channel, offset=offset, page_count=max(page_count, 0))

    @classmethod
    def parse_prefix(
        cls,
        data: Buffer,
        *,
        channel: str = "",
        offset: int = 0,
        page_count: int = X86_PAGE_COUNT,
    ) -> tuple[Self, int]:
        """Decode the packet at the start of ``data``, of a stream with ``page_count``.

        Raises:
            TruncatedError: ``data`` ends inside the packet.
        """
        return cls._parse_prefix(data, channel=channel, offset=offset, page_count=page_count)

    @property
    def normal_offsets(self) -> tuple[int, ...]:
        """Offsets of the pages whose data follows."""
        return self.offset[: self.normal_pages]

    @property
    def zero_offsets(self) -> tuple[int, ...]:
        """Offsets of the zero pages."""
        return self.offset[self.normal_pages : self.normal_pages + self.zero_pages]

    def _context(self) -> dict[str, object]:
        return {"page_count": len(self.offset)}


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiFDPacketDeviceState(MultiFDPacketHdr):
    """Device state packet (multifd.h:MultiFDPacketDeviceState_t), without its payload. Since 10.0.

    ``idstr`` and ``instance_id`` name a SaveVM entry, as a section's header does.
    """

    SCHEMA = Struct(
        *_HEADER_FIELDS,
        field("idstr", Bytes(IDSTR_SIZE), "the device's path and /vfio, NUL-terminated"),
        field("instance_id", Int32ub, "number among entries with this idstr, normally 0"),
        field("next_packet_size", Int32ub, "bytes that follow the packet, at least 1"),
    )
    SOURCE = "multifd.h:MultiFDPacketDeviceState_t"

    flags: int = MultiFDFlag.DEVICE_STATE.value
    idstr: bytes
    instance_id: int = 0
    next_packet_size: int

    @property
    def idstr_text(self) -> str:
        """The name up to its NUL."""
        return until_nul(self.idstr)

    @property
    def is_idstr_terminated(self) -> bool:
        """Whether the last byte is NUL, as the destination demands."""
        return not self.idstr[-1]


INIT_LAYOUT: Final = Layout(MultiFDInit)
HEADER_LAYOUT: Final = Layout(MultiFDPacketHdr)
RAM_COUNTS_LAYOUT: Final = Layout(MultiFDPacketCounts)
RAM_LAYOUT: Final = Layout(MultiFDPacketFixed)
DEVICE_STATE_LAYOUT: Final = Layout(MultiFDPacketDeviceState)
