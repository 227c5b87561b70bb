# SPDX-License-Identifier: GPL-2.0-or-later
"""Hex dumps: that they show every byte, and say which are not shown."""

from __future__ import annotations

import re
from dataclasses import replace
from random import Random

from mfdtool.report.hexdump import HEADER_LIMIT, PAYLOAD_LIMIT, data_start, hexdump
from mfdtool.stream.frames import Frame
from mfdtool.stream.reader import Extent
from mfdtool.stream.span import Span
from tests.support.captures import decoded
from tests.support.made_frames import Maker

LINE = re.compile(r"^    ([0-9a-f]{8,})  (.{48})  \|(.{1,16})\|$")


def read_back(lines: list[str]) -> tuple[bytes, list[str]]:
    """Give the bytes of a dump in order, and the lines that are none."""
    found, others = b"", []
    for line in lines:
        match = LINE.match(line)
        if match is None:
            others.append(line.strip())
            continue
        data = bytes.fromhex(match[2])
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in data)
        assert match[3] == text
        found += data
    return found, others


def test_lines() -> None:
    frame = Maker().data(b"Hello, device state!" + bytes(3))
    assert list(hexdump(frame)) == [
        "    00000000  ff ff ff ff ef 10 00 04  00 00 00 00 00 00 00 17  |................|\n",
        "    00000010  48 65 6c 6c 6f 2c 20 64  65 76 69 63 65 20 73 74  |Hello, device st|\n",
        "    00000020  61 74 65 21 00 00 00                              |ate!...|\n",
    ]


def test_all_bytes_of_real_frames() -> None:
    for frame in decoded("mtty-4ch-one-packet")[1]:
        if frame.length < 10_000:
            assert read_back(list(hexdump(frame, full=True))) == (frame.data(), [])


def test_limits() -> None:
    maker = Maker()
    frame = maker.pages(normal=(0,), content=bytes(4096))
    data, others = read_back(list(hexdump(frame)))
    assert len(data) == HEADER_LIMIT + PAYLOAD_LIMIT
    assert others == ["00000180  ... 960 more bytes", "00000580  ... 4032 more bytes"]
    packet = maker.packet(0, bytes(100))
    assert data_start(packet) == packet.offset + 288
    data, others = read_back(list(hexdump(packet)))
    assert len(data) == 288 + PAYLOAD_LIMIT
    assert others == [f"{packet.offset + 288 + 64:08x}  ... 36 more bytes"]


def test_missing_bytes_are_told() -> None:
    frame = Maker().packet(0, bytes(range(100)), hole=Span(10, 25))
    data, others = read_back(list(hexdump(frame, full=True)))
    assert data[288:] == bytes(range(10)) + bytes(range(25, 100))
    assert others == ["0000012a  15 bytes missing"]
    gap = Maker().gap(9)
    assert list(hexdump(gap)) == ["    00000000  9 bytes missing\n"]


def test_pieces_of_any_size() -> None:
    random = Random(2)
    whole = random.randbytes(70_000)
    frame = Maker().data(whole[16:])
    for longest in (1, 20, 1500, 65_536):
        extents: list[Extent] = []
        position = 0
        view = memoryview(whole)
        while position < len(whole):
            size = random.randint(1, longest)
            extents.append(Extent(position, view[position : position + size]))
            position += size
        cut: Frame = replace(frame, extents=tuple(extents))
        lines = list(hexdump(cut, full=True))
        assert read_back(lines) == (whole, [])
        assert len(lines) == 1 + -(-len(whole[16:]) // 16)
