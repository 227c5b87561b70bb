# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees: every field of the wire is there, with its place."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfdtool.report import tree as module
from mfdtool.report.row import Row
from mfdtool.report.tree import Tree, rows
from mfdtool.stream.frames import ChannelId, Frame, Kind, Section
from mfdtool.stream.iterable import RecordsBody
from mfdtool.stream.span import Span
from mfdtool.stream.values import CommandRecord, RamRecord, ReturnPathRecord, Value
from mfdtool.wire.codec import Message, describe
from mfdtool.wire.constants import Command, RamFlag, ReturnPathType
from mfdtool.wire.main_stream import (
    Capabilities,
    CommandHeader,
    Configuration,
    ConfigurationSubsection,
    ConfigurationUuid,
    DiscardRange,
    PostcopyRamDiscard,
)
from mfdtool.wire.multifd import MultiFDPacket
from mfdtool.wire.ram import MemSizeEntry
from mfdtool.wire.return_path import Pong, ReturnPathMessage
from tests.support.captures import NAMES, decoded
from tests.support.made_frames import Maker
from tests.wire.test_iterable import BITMAP_BITS


def shown(frame: Frame) -> dict[str, Row]:
    """Give a frame's rows by name, the first of each: a config's own rows come last."""
    return {row.name: row for row in reversed(list(rows(frame)))}


@pytest.mark.parametrize("name", NAMES)
def test_all_wire_fields_are_shown(name: str) -> None:
    tree = Tree()
    frames = decoded(name)[1]
    tree.begin(frames[0])
    for frame in frames:
        named = shown(frame)
        if isinstance(frame.value, Message) and frame.value.__class__ is not MultiFDPacket:
            for info in describe(type(frame.value)):
                assert info.name in named
                assert named[info.name].offset == info.offset
        text = tree.write(frame)
        assert text.endswith("\n")
        assert text.count("\n") == 1 + len(list(rows(frame)))


def test_ram_packet_with_its_page_offsets() -> None:
    frame = Maker().pages(normal=range(0, 0x9000, 0x1000), zero=(0xF000,), content=bytes(9 * 4096))
    listed = [row for row in rows(frame) if row.depth]
    assert [(row.offset, row.name) for row in listed] == [
        (320, "normal"),
        (384, "normal"),
        (392, "zero"),
    ]
    assert listed[0].value == "0x0 0x1000 0x2000 0x3000 0x4000 0x5000 0x6000 0x7000"
    assert (listed[1].value, listed[2].value) == ("0x8000", "0xf000")
    assert shown(frame)["data"] == Row(1344, "data", "36864 bytes", "", "")


def test_ram_packet_whose_offsets_are_missing() -> None:
    frame = Maker().pages(normal=(0,), content=bytes(4096), hole=Span(400, 800))
    named = shown(frame)
    assert "offset" not in named
    assert named["normal_pages"].value == "1"
    assert named["missing"].value == "400"


def test_records_of_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    body = RecordsBody("dirty-bitmap", BITMAP_BITS)
    section = Section(5, "dirty-bitmap", 0, 1)
    frame = Maker().frame(Kind.MAIN_OPAQUE, BITMAP_BITS, value=body, header=0, section=section)
    listed = [row for row in rows(frame) if row.depth or row.name == "-"]
    assert [(row.offset, row.name, row.value, row.symbol) for row in listed] == [
        (0, "-", "DirtyBitmapRecord", ""),
        (0, "flags", "0x40", "BITS"),
        (None, "start_sector", "0", ""),
        (None, "sectors", "16384", ""),
        (None, "size", "4", ""),
        (21, "data", "4 bytes", ""),
        (25, "-", "DirtyBitmapRecord", ""),
        (25, "flags", "0x20", "COMPLETE"),
        (26, "-", "DirtyBitmapRecord", ""),
        (26, "flags", "0x1", "EOS"),
    ]
    monkeypatch.setattr(module, "ROWS", 3)
    assert shown(frame)["..."].value == "more than 3 rows"


def test_symbols() -> None:
    named = shown(Maker().packet(7, b"x", config=True))
    assert named["packet_flags"][2:4] == ("0x40", "DEVICE_STATE")
    assert named["flags"][2:4] == ("0x1", "CONFIG_STATE")
    assert named["idstr"].value == "0000:00:05.0/vfio"
    assert named["data"].offset == 288
    named = shown(Maker().data(b"xyz"))
    assert named["marker"].symbol.startswith("VFIO_MIG_FLAG_DEV_DATA_STATE: ")
    assert named["size"].value == "3"
    assert shown(Maker().config(b"x"))["value"].symbol.startswith("VFIO_MIG_FLAG_DEV_CONFIG_STATE")


def main(kind: Kind, value: Value | None = None) -> Frame:
    return Frame(kind, ChannelId(0, "main"), 0, 0, 30, -1, -1, 0, value=value)


def test_command_with_payload() -> None:
    discard = PostcopyRamDiscard(name="pc.ram", ranges=(DiscardRange(start=4096, length=8192),))
    header = CommandHeader(cmd=Command.POSTCOPY_RAM_DISCARD, len=25)
    found = list(rows(main(Kind.MAIN_COMMAND, CommandRecord(header, discard))))
    named = {row.name: row for row in found}
    assert named["cmd"].symbol.startswith("MIG_CMD_POSTCOPY_RAM_DISCARD: ")
    assert named["name"] == Row(6, "name", "pc.ram", "", "RAM block")
    assert [(row.name, row.value, row.depth) for row in found[-4:]] == [
        ("ranges", "1 entries", 0),
        ("-", "", 1),
        ("start", "4096", 2),
        ("length", "8192", 2),
    ]
    assert (
        "unknown"
        in shown(main(Kind.MAIN_COMMAND, CommandRecord(replace(header, cmd=77), None)))[
            "cmd"
        ].symbol
    )


def test_return_path_message() -> None:
    record = ReturnPathRecord(ReturnPathMessage(type=ReturnPathType.PONG, len=4), Pong(9))
    named = shown(main(Kind.RETURN_PATH_MESSAGE, record))
    assert named["type"].symbol == "MIG_RP_MSG_PONG: answer to PING"
    assert (named["value"].offset, named["value"].value) == (4, "9")


def test_configuration_with_subsections() -> None:
    configuration = Configuration(
        name="virt",
        subsections=(
            ConfigurationSubsection(
                name="configuration/capabilities", body=Capabilities(("mapped-ram",))
            ),
            ConfigurationSubsection(
                name="configuration/uuid", body=ConfigurationUuid(bytes(range(16)))
            ),
        ),
    )
    found = [(row.name, row.value) for row in rows(main(Kind.MAIN_CONFIGURATION, configuration))]
    assert ("capabilities", "1 entries") in found
    assert ("-", "mapped-ram") in found
    assert ("uuid", "00010203-0405-0607-0809-0a0b0c0d0e0f") in found


def test_ram_record() -> None:
    entries = (MemSizeEntry(idstr="pc.ram", used_length=4096),)
    named = shown(main(Kind.RAM_RECORD, RamRecord(RamFlag.MEM_SIZE.value, 4096, "", entries)))
    assert named["flags"][2:4] == ("0x4", "MEM_SIZE")
    assert named["used_length"].value == "4096"
    zero = shown(main(Kind.RAM_RECORD, RamRecord(RamFlag.ZERO.value, 4096, "pc.ram", fill=0)))
    assert (zero["ramblock"].value, zero["fill"].value) == ("pc.ram", "0x0")


def test_end_of_stream() -> None:
    assert shown(main(Kind.MAIN_EOF))["type"] == Row(
        0, "type", "0x0", "QEMU_VM_EOF", "end of the stream"
    )
    assert [row.name for row in rows(main(Kind.UNDECODED))] == ["kind", "stream"]


def test_text() -> None:
    lines = Tree().write(Maker().data(b"xyz")).splitlines()
    assert lines[0].endswith("marker         0000:00:05.0/vfio DEV_DATA_STATE 3 bytes")
    assert lines[-2:] == [
        "        +8  size               3                    device bytes that follow",
        "       +16  data               3 bytes",
    ]
