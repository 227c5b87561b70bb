# SPDX-License-Identifier: GPL-2.0-or-later
"""Return path: what the destination writes back on the main connection (migration.c)."""

from __future__ import annotations

from typing import Any, Final

from scapy.fields import (
    ConditionalField,
    FieldLenField,
    IntField,
    ShortEnumField,
    XLongField,
)
from scapy.packet import Packet, Raw

from dissectors.fields import (
    BodyField,
    CountedBytesField,
    DataField,
    Make,
    Message,
    StreamField,
    symbols,
)
from mfdtool.wire.constants import RECV_BITMAP_ENDING, RETURN_PATH_MAX_LENGTH, ReturnPathType

_HEADER_SIZE: Final = 4


class Shut(Message):
    """Payload of SHUT, the last message (migration.c:migrate_send_rp_shut)."""

    fields_desc = [IntField("value", 0)]


class Pong(Message):
    """Payload of PONG (migration.c:migrate_send_rp_pong)."""

    fields_desc = [IntField("value", 0)]


class ReqPages(Message):
    """Payload of REQ_PAGES (migration.c:migrate_send_rp_message_req_pages)."""

    fields_desc = [XLongField("start", 0), IntField("length", 0)]


class ReqPagesId(Message):
    """Payload of REQ_PAGES_ID, which names the block."""

    fields_desc = [
        *ReqPages.fields_desc,
        FieldLenField("block_name_len", None, "block_name", "B"),
        CountedBytesField("block_name", b"", lambda request: request.block_name_len),
    ]


class RecvBitmapReply(Message):
    """Payload of RECV_BITMAP (migration.c:migrate_send_rp_recv_bitmap)."""

    fields_desc = [
        FieldLenField("block_name_len", None, "block_name", "B"),
        CountedBytesField("block_name", b"", lambda reply: reply.block_name_len),
    ]


class ResumeAck(Message):
    """Payload of RESUME_ACK (migration.c:migrate_send_rp_resume_ack)."""

    fields_desc = [IntField("value", 1)]


_BODIES: Final[dict[int, type[Packet]]] = {
    ReturnPathType.SHUT: Shut,
    ReturnPathType.PONG: Pong,
    ReturnPathType.REQ_PAGES_ID: ReqPagesId,
    ReturnPathType.REQ_PAGES: ReqPages,
    ReturnPathType.RECV_BITMAP: RecvBitmapReply,
    ReturnPathType.RESUME_ACK: ResumeAck,
}
_TYPES: Final = symbols(ReturnPathType)


def _has_bitmap(message: Packet) -> bool:
    return bool(message.type == ReturnPathType.RECV_BITMAP)


class ReturnPathMessage(Message):
    """One message (migration.c:migrate_send_rp_message).

    Behind a RECV_BITMAP, and not counted in its ``len``, is the bitmap
    (ram.c:ramblock_recv_bitmap_send).
    """

    fields_desc = [
        ShortEnumField("type", ReturnPathType.SHUT.value, _TYPES),
        FieldLenField("len", None, "body", "H"),
        BodyField("body", "type", _BODIES),
        ConditionalField(FieldLenField("size", None, "bitmap", "Q"), _has_bitmap),
        ConditionalField(DataField("bitmap", b"", lambda message: message.size), _has_bitmap),
        ConditionalField(XLongField("ending", RECV_BITMAP_ENDING), _has_bitmap),
    ]


class ReturnPath(Packet):
    """Messages, one behind another; what is none is the payload."""

    fields_desc = [StreamField("messages", lambda _path, _found, head: next_message(head))]

    @classmethod
    def dispatch_hook(cls, _pkt: bytes = b"", *_args: Any, **_kargs: Any) -> type[Packet]:
        """Leave bytes raw that begin with no message."""
        return cls if not _pkt or next_message(_pkt) is not None else Raw


def next_message(head: bytes) -> Make | None:
    """A message, if the destination sends such (migration.c:source_return_path_thread)."""
    kind, length = int.from_bytes(head[:2]), int.from_bytes(head[2:_HEADER_SIZE])
    if len(head) < _HEADER_SIZE or kind not in _TYPES or length > RETURN_PATH_MAX_LENGTH:
        return None
    return ReturnPathMessage
