# SPDX-License-Identifier: GPL-2.0-or-later
"""Multifd channels: a handshake, then RAM, SYNC and device state packets (multifd.h).

::

    MultiFDInit(id=1)
    MultiFDPacketDeviceState(idstr="0000:00:05.0/vfio") / VFIODeviceStatePacket(idx=0) / b"data"
    MultiFDChannel(packets=[...])

``next_packet_size`` is computed if it is not given; delete it from a dissected packet after its
payload was changed.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from scapy.fields import ByteField, FlagsField, IntField, LongField, UUIDField, XIntField
from scapy.packet import Packet, Raw

from dissectors.fields import (
    FixedBytesField,
    Make,
    Message,
    OffsetsField,
    PagedMessage,
    PayloadSizeField,
    StreamField,
    flag_symbols,
)
from dissectors.vfio import VFIODeviceStatePacket
from mfdtool.wire.constants import (
    IDSTR_SIZE,
    MULTIFD_FLAGS,
    MULTIFD_HEADER_SIZE,
    MULTIFD_INIT_SIZE,
    MULTIFD_MAGIC,
    MULTIFD_VERSION,
    VFIO_PACKET_HEADER_SIZE,
    MultiFDFlag,
)

_PREFIX: Final = MULTIFD_MAGIC.to_bytes(4) + MULTIFD_VERSION.to_bytes(4)
_UNUSED: Final = slice(25, MULTIFD_INIT_SIZE)
_FLAGS_AT: Final = slice(8, MULTIFD_HEADER_SIZE)


class MultiFDInit(Message):
    """Handshake, the first 64 bytes of a channel (multifd.c:MultiFDInit_t)."""

    fields_desc = [
        XIntField("magic", MULTIFD_MAGIC),
        IntField("version", MULTIFD_VERSION),
        UUIDField("uuid", 0),
        ByteField("id", 0),
        FixedBytesField("unused1", b"", 7),
        FixedBytesField("unused2", b"", 32),
    ]


class MultiFDPacketHdr(Message):
    """First 12 bytes of every packet (multifd.h:MultiFDPacketHdr_t).

    Dissecting with this class gives that of the whole packet, at a page size of 4096.
    """

    fields_desc = [
        XIntField("magic", MULTIFD_MAGIC),
        IntField("version", MULTIFD_VERSION),
        FlagsField("flags", 0, 32, flag_symbols(MULTIFD_FLAGS)),
    ]

    @classmethod
    def dispatch_hook(cls, _pkt: bytes = b"", *_args: Any, **_kargs: Any) -> type[Packet]:
        """Choose the packet's class by its flags."""
        if len(_pkt) <= MULTIFD_HEADER_SIZE:
            return cls
        return packet_class(_pkt)


class MultiFDPacket(PagedMessage):
    """RAM packet (multifd.h:MultiFDPacket_t); its payload is the data of the normal pages.

    It always has room for all pages that a packet of the stream can hold: see ``page_size``.
    """

    fields_desc = [
        *MultiFDPacketHdr.fields_desc,
        IntField("pages_alloc", 0),
        IntField("normal_pages", 0),
        PayloadSizeField("next_packet_size", None, fmt="I"),
        LongField("packet_num", 0),
        IntField("zero_pages", 0),
        IntField("unused32", 0),
        FixedBytesField("unused64", b"", 24),
        FixedBytesField("ramblock", b"", IDSTR_SIZE),
        OffsetsField("offset"),
    ]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """The payload is as long as the packet says."""
        return s[: self.next_packet_size], s[self.next_packet_size :]


class MultiFDSync(MultiFDPacket):
    """SYNC packet: a RAM packet without pages (multifd.c:multifd_send_thread)."""

    flags = MultiFDFlag.SYNC.value


class MultiFDPacketDeviceState(Message):
    """Device state packet (multifd.h:MultiFDPacketDeviceState_t). Since 10.0."""

    fields_desc = [
        *MultiFDPacketHdr.fields_desc,
        FixedBytesField("idstr", b"", IDSTR_SIZE),
        IntField("instance_id", 0),
        PayloadSizeField("next_packet_size", None, fmt="I"),
    ]
    flags = MultiFDFlag.DEVICE_STATE.value

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """The payload is as long as the packet says."""
        return s[: self.next_packet_size], s[self.next_packet_size :]

    def guess_payload_class(self, payload: bytes) -> type[Packet]:
        """VFIO is the only user of these packets; too short a payload stays raw."""
        return VFIODeviceStatePacket if len(payload) >= VFIO_PACKET_HEADER_SIZE else Raw


class MultiFDChannel(PagedMessage):
    """Packets of one channel, one behind another; what is not a whole packet is the payload."""

    fields_desc = [
        StreamField("packets", lambda channel, found, head: channel.next_packet(found, head))
    ]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        """The rest cannot be told apart, so it is payload."""
        return s, b""

    def next_packet(self, found: list[Packet], head: bytes) -> Make | None:
        """Choose what begins with ``head``; None if that is neither packet nor handshake."""
        if len(head) < MULTIFD_HEADER_SIZE or not head.startswith(_PREFIX):
            return None
        if not found and is_handshake(head):
            return MultiFDInit
        kind = packet_class(head)
        if issubclass(kind, PagedMessage):
            return partial(kind, page_size=self.page_size)
        return kind


def packet_class(head: bytes) -> type[Message]:
    """Choose the class of a packet by its flags."""
    flags = int.from_bytes(head[_FLAGS_AT])
    if flags & MultiFDFlag.DEVICE_STATE:
        return MultiFDPacketDeviceState
    return MultiFDSync if flags & MultiFDFlag.SYNC else MultiFDPacket


def is_handshake(head: bytes) -> bool:
    """Tell whether bytes that begin with magic and version are a handshake, not a packet.

    Only a handshake has zeroes up to byte 64, and then nothing or the first packet's magic.
    """
    if len(head) < MULTIFD_INIT_SIZE or any(head[_UNUSED]):
        return False
    behind = head[MULTIFD_INIT_SIZE : MULTIFD_INIT_SIZE + len(_PREFIX)]
    return _PREFIX.startswith(behind)
