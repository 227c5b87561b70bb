# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines for people: one for each kind of frame, in full."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mfdtool.report.text import TextLines, summary
from mfdtool.stream.frames import ChannelId, Frame, Kind, Section
from mfdtool.stream.span import Span
from mfdtool.stream.values import CommandRecord, MarkerRecord, RamRecord, ReturnPathRecord, Value
from mfdtool.wire.constants import RamFlag, ReturnPathType, SectionType
from mfdtool.wire.main_stream import (
    Capabilities,
    CommandHeader,
    Configuration,
    ConfigurationSubsection,
    Ping,
    SectionPart,
    VmDescriptionHeader,
)
from mfdtool.wire.multifd import MultiFDPacketCounts, MultiFDPacketFixed
from mfdtool.wire.ram import MemSizeEntry
from mfdtool.wire.return_path import Pong, ReqPagesId, ReturnPathMessage
from mfdtool.wire.vfio import DeviceStateHeader
from tests.support.captures import NAMES, decoded
from tests.support.made_frames import SECTION, Maker

IDSTR = b"0000:00:05.0/vfio".ljust(256, b"\0")
BLOCKS = tuple(MemSizeEntry(idstr=f"b{index}", used_length=4096) for index in range(5))


def frame(kind: Kind, value: Value | None = None, **changes: Any) -> Frame:
    made = Frame(kind, ChannelId(0, "main"), 3, 100, 20, -1, -1, 0, value=value)
    return replace(made, **changes)


def packet(**fields: int) -> Frame:
    wanted = {"next_packet_size": 13, "idx": 2, **fields}
    return frame(Kind.MULTIFD_DEVICE_STATE, DeviceStateHeader(idstr=IDSTR, **wanted))


CAPABLE = Configuration(
    name="virt",
    subsections=(
        ConfigurationSubsection(
            name="configuration/capabilities", body=Capabilities(("mapped-ram",))
        ),
    ),
)
COMPRESSED = MultiFDPacketFixed(
    flags=4, pages_alloc=128, normal_pages=1, ramblock=b"pc.ram".ljust(256, b"\0")
)


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (packet(), "0000:00:05.0/vfio idx 2 data 1 byte"),
        (packet(flags=1), "0000:00:05.0/vfio idx 2 config 1 byte"),
        (
            packet(flags=9, version=1, instance_id=4, next_packet_size=20),
            "0000:00:05.0/vfio instance 4 idx 2 version 1 flags CONFIG_STATE|0x8 config 8 bytes",
        ),
        (Maker().headless(), "0000:00:05.0/vfio next_packet_size 8: no VFIO header"),
        (
            frame(Kind.MULTIFD_RAM, COMPRESSED, payload=Span(0, 99)),
            "packet_num 0 pc.ram normal_pages 1 zero_pages 0 ZSTD data 99 bytes",
        ),
        (frame(Kind.MULTIFD_SYNC, MultiFDPacketCounts(flags=3)), "packet_num 0 ZLIB"),
        (frame(Kind.MAIN_CONFIGURATION, CAPABLE), "virt capabilities mapped-ram"),
        (
            frame(Kind.MAIN_COMMAND, CommandRecord(CommandHeader(cmd=2, len=4), Ping(1))),
            "PING value 1 payload_length 4",
        ),
        (
            frame(Kind.MAIN_COMMAND, CommandRecord(CommandHeader(cmd=99), None)),
            "unknown command 99",
        ),
        (frame(Kind.MAIN_VMDESCRIPTION, VmDescriptionHeader(length=9)), "9 bytes"),
        (
            frame(Kind.MAIN_OPAQUE, section=Section(4, "timer", 0, 2), payload=Span(0, 24)),
            "4    timer version 2 24 bytes",
        ),
        (
            frame(
                Kind.MAIN_SECTION_PART,
                SectionPart(type=SectionType.PART, section_id=7),
                section=Section(7, "", 0, 0),
            ),
            "7    (its START was not captured)",
        ),
        (
            frame(Kind.RAM_RECORD, RamRecord(RamFlag.PAGE.value, 0x1000, "pc.ram")),
            "PAGE pc.ram addr 0x1000",
        ),
        (frame(Kind.RAM_RECORD, RamRecord(RamFlag.EOS.value, 0)), "EOS"),
        (
            frame(Kind.RAM_RECORD, RamRecord(RamFlag.MEM_SIZE.value, 20480, "", BLOCKS)),
            "MEM_SIZE 20480 bytes in 5 blocks: b0 4096, b1 4096, b2 4096, ...",
        ),
        (
            frame(Kind.VFIO_MARKER, MarkerRecord(0xFFFFFFFFEF1000FF), section=SECTION),
            "0000:00:05.0/vfio unknown marker 0xffffffffef1000ff",
        ),
        (
            frame(
                Kind.RETURN_PATH_MESSAGE,
                ReturnPathRecord(ReturnPathMessage(type=ReturnPathType.PONG, len=4), Pong(3)),
            ),
            "PONG value 3",
        ),
        (
            frame(
                Kind.RETURN_PATH_MESSAGE,
                ReturnPathRecord(
                    ReturnPathMessage(type=ReturnPathType.REQ_PAGES_ID, len=19),
                    ReqPagesId(start=0x16000, length=4096, block_name="pc.ram"),
                ),
            ),
            "REQ_PAGES_ID block_name pc.ram request_start 0x16000 request_length 4096",
        ),
        (frame(Kind.GAP, missing=20, reason="not captured"), "20 bytes: not captured"),
        (frame(Kind.UNDECODED, reason="not a packet header"), "20 bytes: not a packet header"),
        (
            frame(Kind.MAIN_EOF, missing=1, reason="not captured"),
            " [1 of 20 bytes missing: not captured]",
        ),
    ],
)
def test_summaries(made: Frame, text: str) -> None:
    assert summary(made) == text


@pytest.mark.parametrize("name", NAMES)
def test_every_frame_has_one_line(name: str) -> None:
    lines = TextLines()
    frames = decoded(name)[1]
    lines.begin(frames[0])
    for each in frames:
        line = lines.write(each)
        assert line.index("\n") == len(line) - 1
        assert line.isascii()
        assert line.split()[1] == each.channel.name


def test_columns() -> None:
    lines = TextLines()
    made = replace(packet(), time_first=5_000_000_000, time_last=6_234_567_890)
    assert lines.write(made).startswith("           -  main         #3     device_state   0000:")
    lines.begin(made)
    assert lines.write(made).startswith("    1.234567  main         #3     device_state   0000:")
    early = replace(made, time_last=4_500_000_000, channel=ChannelId(1, "multifd-2"), number=None)
    assert lines.write(early).startswith("   -0.500000  1:multifd-2         device_state   0000:")


@pytest.mark.parametrize(
    ("made", "colour"),
    [
        (packet(), "\x1b[36m"),
        (replace(packet(), missing=1), "\x1b[33m"),
        (frame(Kind.GAP), "\x1b[33m"),
        (frame(Kind.MAIN_EOF), ""),
    ],
)
def test_colours(made: Frame, colour: str) -> None:
    plain = TextLines().write(made)
    assert "\x1b" not in plain
    expected = f"{colour}{plain[:-1]}\x1b[0m\n" if colour else plain
    assert TextLines(colour=True).write(made) == expected
