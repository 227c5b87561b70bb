# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages of the return path."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from mfdtool.errors import TruncatedError, WireError
from mfdtool.wire.constants import RETURN_PATH_LENGTHS, ReturnPathType
from mfdtool.wire.return_path import (
    RETURN_PATH_LAYOUT,
    Pong,
    RecvBitmapEnd,
    RecvBitmapReply,
    RecvBitmapSize,
    ReqPages,
    ReqPagesId,
    ResumeAck,
    ReturnPathMessage,
    ReturnPathPayload,
    Shut,
    parse_return_path_payload,
)

CheckMessage = Callable[..., None]

PAYLOADS: list[tuple[ReturnPathType, ReturnPathPayload, str]] = [
    (ReturnPathType.SHUT, Shut(0), "00000000"),
    (ReturnPathType.PONG, Pong(1), "00000001"),
    (
        ReturnPathType.REQ_PAGES_ID,
        ReqPagesId(start=0x1000, length=0x2000, block_name="pc.ram"),
        "0000000000001000 00002000 06 70632e72616d",
    ),
    (ReturnPathType.REQ_PAGES, ReqPages(start=0x1000, length=4096), "0000000000001000 00001000"),
    (ReturnPathType.RECV_BITMAP, RecvBitmapReply("pc.ram"), "06 70632e72616d"),
    (ReturnPathType.RESUME_ACK, ResumeAck(), "00000001"),
]


@pytest.mark.parametrize(("kind", "value", "data"), PAYLOADS)
def test_payloads(
    check_message: CheckMessage, kind: ReturnPathType, value: ReturnPathPayload, data: str
) -> None:
    raw = bytes.fromhex(data)
    assert parse_return_path_payload(kind, raw) == value
    check_message(value, raw)
    assert RETURN_PATH_LENGTHS[kind] in (None, len(raw))
    check_message(
        ReturnPathMessage(type=kind, len=len(raw)),
        kind.to_bytes(2, "big") + len(raw).to_bytes(2, "big"),
    )


def test_switchover_ack_is_empty() -> None:
    message = ReturnPathMessage.parse(bytes.fromhex("0007 0000"))
    assert message.kind is ReturnPathType.SWITCHOVER_ACK
    assert parse_return_path_payload(message.kind, b"") is None
    with pytest.raises(WireError, match="SWITCHOVER_ACK has no payload") as caught:
        parse_return_path_payload(message.kind, b"\0", channel="return-path", offset=4)
    assert (caught.value.channel, caught.value.offset) == ("return-path", 4)


def test_payload_of_the_wrong_length() -> None:
    with pytest.raises(TruncatedError):
        parse_return_path_payload(ReturnPathType.SHUT, b"")
    with pytest.raises(WireError, match="1 bytes too many"):
        parse_return_path_payload(ReturnPathType.REQ_PAGES, bytes(13))


@pytest.mark.parametrize("number", [0, 8, 0xFFFF])
def test_unknown_types(number: int) -> None:
    assert ReturnPathMessage(type=number).kind is None


def test_bitmap_outside_its_message(check_message: CheckMessage) -> None:
    check_message(RecvBitmapSize(16), bytes.fromhex("0000000000000010"))
    check_message(RecvBitmapEnd(), bytes.fromhex("0123456789abcdef"))


def test_layout_and_construct_agree() -> None:
    random = Random(6)
    for _ in range(20):
        data = random.randbytes(4)
        assert RETURN_PATH_LAYOUT.parse(data) == ReturnPathMessage.parse(data)
