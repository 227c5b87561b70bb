# SPDX-License-Identifier: GPL-2.0-or-later
"""The return path, cut into messages."""

from __future__ import annotations

import pytest

from mfdtool.stream.frames import ChannelId, Frame, Kind
from mfdtool.stream.reader import Reader
from mfdtool.stream.return_path import ReturnPathFramer
from mfdtool.stream.values import ReturnPathRecord
from mfdtool.wire.constants import ReturnPathType
from mfdtool.wire.return_path import (
    Pong,
    RecvBitmapReply,
    ReqPages,
    ReqPagesId,
    ResumeAck,
    ReturnPathPayload,
    Shut,
)
from tests.support.framing import Hole, assert_accounts, check, cut, run, stretches

# The worked examples: PONG(1), SWITCHOVER_ACK, SHUT(0).
PONG = bytes.fromhex("0002 0004 00000001")
ACK = bytes.fromhex("0007 0000")
SHUT = bytes.fromhex("0001 0004 00000000")
BITMAP = bytes.fromhex("0005 0003 02 6162 0000000000000008 0102030405060708 0123456789abcdef")


def make(reader: Reader) -> ReturnPathFramer:
    return ReturnPathFramer(reader, ChannelId(0, "return-path"))


def messages(frames: list[Frame]) -> list[tuple[ReturnPathType | None, ReturnPathPayload | None]]:
    """Give types and payloads."""
    return [
        (frame.value.header.kind, frame.value.payload)
        for frame in frames
        if isinstance(frame.value, ReturnPathRecord)
    ]


def test_messages_of_a_migration() -> None:
    frames = check(make, PONG + ACK + SHUT)
    assert messages(frames) == [
        (ReturnPathType.PONG, Pong(1)),
        (ReturnPathType.SWITCHOVER_ACK, None),
        (ReturnPathType.SHUT, Shut(0)),
    ]
    assert [frame.length for frame in frames] == [8, 4, 8]
    assert [frame.payload is None for frame in frames] == [False, True, False]


def test_messages_of_postcopy() -> None:
    request = ReqPagesId(start=4096, length=8192, block_name="pc.ram").build()
    data = bytes.fromhex("0003") + len(request).to_bytes(2, "big") + request
    data += bytes.fromhex("0004 000c") + ReqPages(start=1, length=2).build()
    data += bytes.fromhex("0006 0004") + ResumeAck().build()
    assert messages(check(make, data)) == [
        (ReturnPathType.REQ_PAGES_ID, ReqPagesId(start=4096, length=8192, block_name="pc.ram")),
        (ReturnPathType.REQ_PAGES, ReqPages(start=1, length=2)),
        (ReturnPathType.RESUME_ACK, ResumeAck(1)),
    ]


def test_bitmap_follows_its_message() -> None:
    frames = check(make, PONG + BITMAP + SHUT)
    assert messages(frames)[1] == (ReturnPathType.RECV_BITMAP, RecvBitmapReply("ab"))
    assert [frame.length for frame in frames] == [8, 31, 8]


def test_bitmap_that_claims_2_to_the_64() -> None:
    (frame,) = cut(make, BITMAP[:7] + b"\xff" * 8 + b"bits")
    assert frame.length == 7 + 8 + (1 << 64) - 1 + 8
    assert frame.missing == frame.length - 7 - 8 - 4


def test_payload_that_is_not_what_the_message_carries() -> None:
    odd = bytes.fromhex("0002 0003 000001") + bytes.fromhex("0007 0001 00")
    assert messages(check(make, odd + SHUT)) == [
        (ReturnPathType.PONG, None),
        (ReturnPathType.SWITCHOVER_ACK, None),
        (ReturnPathType.SHUT, Shut(0)),
    ]


@pytest.mark.parametrize("junk", ["0000 0004 00000000", "0008 0000", "0002 0201", "ffffffff"])
def test_bytes_that_are_no_message(junk: str) -> None:
    frames = check(make, PONG + bytes.fromhex(junk) + SHUT)
    assert [frame.kind for frame in frames] == [Kind.RETURN_PATH_MESSAGE, Kind.UNDECODED]
    assert frames[1].reason == "not a return path message"


def test_end_inside_a_header() -> None:
    frames = cut(make, PONG + SHUT[:3])
    assert frames[1].reason == "no whole message"


def test_gaps() -> None:
    data = PONG + SHUT
    inside, over = Hole(5, 6), Hole(9, 10)
    frames = run(make, stretches(data, holes=[inside, over]))
    assert_accounts(frames, data, holes=[inside, over])
    assert (frames[0].missing, frames[0].reason) == (1, "not captured")
    assert messages(frames) == [(ReturnPathType.PONG, None)]
