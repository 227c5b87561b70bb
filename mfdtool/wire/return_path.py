# SPDX-License-Identifier: GPL-2.0-or-later
"""Return path: what the destination writes back on the main connection.

Each message is a type, a length and so many bytes (migration.c:migrate_send_rp_message). Only
RECV_BITMAP breaks that: the bitmap itself follows the message and is not counted in its length::

    ReturnPathMessage RecvBitmapReply RecvBitmapSize bitmap RecvBitmapEnd
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from construct import Int16ub, Int32ub, Int64ub, Struct

from mfdtool.errors import WireError
from mfdtool.wire.codec import Buffer, Layout, Message, counted_string, field
from mfdtool.wire.constants import RECV_BITMAP_ENDING, ReturnPathType

_TYPE_NUMBERS: Final = frozenset(int(kind) for kind in ReturnPathType)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnPathMessage(Message):
    """Header of every message (migration.c:migrate_send_rp_message)."""

    SCHEMA = Struct(
        field("type", Int16ub, "which message"),
        field("len", Int16ub, "bytes of payload that follow, at most 512"),
    )
    SOURCE = "migration.c:migrate_send_rp_message"

    type: int
    len: int = 0

    @property
    def kind(self) -> ReturnPathType | None:
        """The message's type, or None if QEMU knows no such number."""
        return ReturnPathType(self.type) if self.type in _TYPE_NUMBERS else None


@dataclass(frozen=True, slots=True)
class Shut(Message):
    """Payload of SHUT, the last message."""

    SCHEMA = Struct(field("value", Int32ub, "0 unless the destination's main stream failed"))
    SOURCE = "migration.c:migrate_send_rp_shut"

    value: int


@dataclass(frozen=True, slots=True)
class Pong(Message):
    """Payload of PONG."""

    SCHEMA = Struct(field("value", Int32ub, "the value of the PING"))
    SOURCE = "migration.c:migrate_send_rp_pong"

    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReqPages(Message):
    """Payload of REQ_PAGES: the block is that of the request before."""

    SCHEMA = Struct(
        field("start", Int64ub, "offset in the RAM block"),
        field("length", Int32ub, "bytes wanted"),
    )
    SOURCE = "migration.c:migrate_send_rp_message_req_pages"

    start: int
    length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReqPagesId(Message):
    """Payload of REQ_PAGES_ID."""

    SCHEMA = Struct(
        *ReqPages.SCHEMA.subcons,
        field("block_name", counted_string(), "RAM block"),
    )
    SOURCE = "migration.c:migrate_send_rp_message_req_pages"

    start: int
    length: int
    block_name: str


@dataclass(frozen=True, slots=True)
class RecvBitmapReply(Message):
    """Payload of RECV_BITMAP; the bitmap follows, outside the message."""

    SCHEMA = Struct(field("block_name", counted_string(), "RAM block"))
    SOURCE = "migration.c:migrate_send_rp_recv_bitmap"

    block_name: str


@dataclass(frozen=True, slots=True)
class RecvBitmapSize(Message):
    """What precedes a received bitmap, which is little-endian."""

    SCHEMA = Struct(field("size", Int64ub, "bytes of bitmap that follow, a multiple of 8"))
    SOURCE = "ram.c:ramblock_recv_bitmap_send"

    size: int


@dataclass(frozen=True, slots=True)
class RecvBitmapEnd(Message):
    """What closes a received bitmap."""

    SCHEMA = Struct(field("ending", Int64ub, "0x0123456789abcdef"))
    SOURCE = "ram.c:ramblock_recv_bitmap_send"

    ending: int = RECV_BITMAP_ENDING


@dataclass(frozen=True, slots=True)
class ResumeAck(Message):
    """Payload of RESUME_ACK."""

    SCHEMA = Struct(field("value", Int32ub, "1"))
    SOURCE = "migration.c:migrate_send_rp_resume_ack"

    value: int = 1


ReturnPathPayload: TypeAlias = Shut | Pong | ReqPagesId | ReqPages | RecvBitmapReply | ResumeAck

RETURN_PATH_PAYLOADS: Final[Mapping[ReturnPathType, type[ReturnPathPayload]]] = {
    ReturnPathType.SHUT: Shut,
    ReturnPathType.PONG: Pong,
    ReturnPathType.REQ_PAGES_ID: ReqPagesId,
    ReturnPathType.REQ_PAGES: ReqPages,
    ReturnPathType.RECV_BITMAP: RecvBitmapReply,
    ReturnPathType.RESUME_ACK: ResumeAck,
}
"""What the messages carry that carry something."""


def parse_return_path_payload(
    kind: ReturnPathType, data: Buffer, *, channel: str = "", offset: int = 0
) -> ReturnPathPayload | None:
    """Decode a message's payload; None if it is rightly empty.

    Raises:
        WireError: ``data`` is not what this message carries.
    """
    payload = RETURN_PATH_PAYLOADS.get(kind)
    if payload is not None:
        return payload.parse(data, channel=channel, offset=offset)
    if data:
        raise WireError(f"{kind.name} has no payload", offset=offset, channel=channel)
    return None


RETURN_PATH_LAYOUT: Final = Layout(ReturnPathMessage)
