# SPDX-License-Identifier: GPL-2.0-or-later
"""Layers of the return path on messages as QEMU writes them."""

from __future__ import annotations

import random

import pytest
from scapy.packet import Packet, Raw

from dissectors.fields import TruncatedError
from dissectors.return_path import (
    Pong,
    RecvBitmapReply,
    ReqPages,
    ReqPagesId,
    ResumeAck,
    ReturnPath,
    ReturnPathMessage,
    Shut,
)

BITMAP = ReturnPathMessage(
    type="RECV_BITMAP", body=RecvBitmapReply(block_name="pc.ram"), bitmap=bytes(16)
)
MESSAGES: dict[str, tuple[str, Packet]] = {
    "PONG": ("0002000400000001", ReturnPathMessage(type="PONG", body=Pong(value=1))),
    "SWITCHOVER_ACK": ("00070000", ReturnPathMessage(type="SWITCHOVER_ACK")),
    "SHUT": ("0001000400000000", ReturnPathMessage(body=Shut())),
    "RESUME_ACK": ("0006000400000001", ReturnPathMessage(type="RESUME_ACK", body=ResumeAck())),
    "REQ_PAGES": (
        "0004000c 0000000000001000 00001000",
        ReturnPathMessage(type="REQ_PAGES", body=ReqPages(start=0x1000, length=0x1000)),
    ),
    "REQ_PAGES_ID": (
        "0003000f 0000000000001000 00001000 026162",
        ReturnPathMessage(
            type="REQ_PAGES_ID", body=ReqPagesId(start=0x1000, length=0x1000, block_name="ab")
        ),
    ),
    "RECV_BITMAP": (
        "00050007 0670632e72616d 0000000000000010" + "00" * 16 + "0123456789abcdef",
        BITMAP,
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(name: str) -> None:
    text, packet = MESSAGES[name]
    data = bytes.fromhex(text)
    assert bytes(packet) == data
    again = ReturnPathMessage(data)
    assert bytes(again) == data
    assert type(again.body) is type(packet.body)
    assert f"type      = {name}" in str(again.show(dump=True))


def test_stream() -> None:
    data = b"".join(bytes.fromhex(text) for text, _ in MESSAGES.values())
    path = ReturnPath(data)
    assert [bytes(message) for message in path.messages] == [
        bytes.fromhex(text) for text, _ in MESSAGES.values()
    ]
    assert not path.payload
    assert bytes(ReturnPath(messages=[packet for _, packet in MESSAGES.values()])) == data


def test_bitmap_must_be_closed() -> None:
    data = bytes(BITMAP)
    for length in range(12, len(data)):
        with pytest.raises(TruncatedError):
            ReturnPathMessage(data[:length])


@pytest.mark.parametrize("text", ["00", "000200", "00080000", "00000000", "00010201", "47455420"])
def test_what_is_no_message_stays_raw(text: str) -> None:
    data = bytes.fromhex(text)
    assert ReturnPath(data) == Raw(data)
    stream = ReturnPath(bytes.fromhex("00070000") + data)
    assert (len(stream.messages), stream.payload) == (1, Raw(data))


def test_empty() -> None:
    assert bytes(ReturnPath()) == b""


def test_hostile_bytes() -> None:
    rng = random.Random(3)
    data = b"".join(bytes.fromhex(text) for text, _ in MESSAGES.values())
    for _ in range(300):
        mutant = bytearray(data[: rng.randrange(1, len(data))])
        for _ in range(rng.randrange(4)):
            mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        assert bytes(ReturnPath(bytes(mutant))) == mutant
