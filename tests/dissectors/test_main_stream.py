# SPDX-License-Identifier: GPL-2.0-or-later
"""Layers of the main stream, RAM records and VFIO records on bytes as QEMU writes them."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from scapy.packet import Packet, Raw

from dissectors.fields import DissectionError, TruncatedError
from dissectors.main_stream import (
    Command,
    Configuration,
    ConfigurationSubsection,
    CountedString,
    EndOfStream,
    FileHeader,
    MainStream,
    Packaged,
    Ping,
    PostcopyAdvise,
    RecvBitmap,
    SectionEnd,
    SectionFooter,
    SectionFull,
    SectionPart,
    SectionStart,
    VmDescription,
)
from dissectors.ram import (
    MemSizeEntry,
    RamCompressedPage,
    RamMemSize,
    RamPage,
    RamRecord,
    RamXbzrle,
    RamZero,
)
from dissectors.vfio import VFIODeviceData, VFIOMarkerRecord

STREAMS = Path(__file__).parents[1] / "golden" / "main_stream"
VFIO = "0000:00:05.0/vfio"

HEADER = bytes.fromhex("5145564d 00000003 07 0000000b") + b"pc-q35-10.0"
CAPABILITIES = (
    b"\x05\x1aconfiguration/capabilities"
    + bytes.fromhex("00000001 00000001 0f")
    + b"x-ignore-shared"
)
RAM_START = bytes.fromhex(
    "0100000002 0372616d 00000000 00000004 0000000008040004 0670632e72616d 0000000008000000"
    "0770632e62696f73 0000000000040000 0000000000000200 0000000000000010 7e00000002"
)
VFIO_START = bytes.fromhex(
    "0100000021 11 303030303a30303a30352e302f7666696f 00000000 00000001"
    "ffffffffef100003 ffffffffef100001 7e00000021"
)
VFIO_PART = bytes.fromhex(
    "0200000021 ffffffffef100004 0000000000000004 01020304 ffffffffef100001 7e00000021"
)

BUILT: dict[str, tuple[bytes, Packet]] = {
    "header and configuration": (HEADER, FileHeader() / Configuration(machine_type="pc-q35-10.0")),
    "capabilities": (
        CAPABILITIES,
        ConfigurationSubsection(
            vmsd_name="configuration/capabilities",
            capabilities=[CountedString(text="x-ignore-shared")],
        ),
    ),
    "OPEN_RETURN_PATH and PING": (
        bytes.fromhex("0800010000 080002000400000001"),
        Command(cmd="OPEN_RETURN_PATH") / Command(cmd="PING", body=Ping(value=1)),
    ),
    "SWITCHOVER_START": (bytes.fromhex("08000b0000"), Command(cmd="SWITCHOVER_START")),
    "RAM START": (
        RAM_START,
        SectionStart(section_id=2, idstr="ram", version_id=4)
        / RamMemSize(
            addr=0x8040000,
            entries=[
                MemSizeEntry(idstr="pc.ram", used_length=0x8000000),
                MemSizeEntry(idstr="pc.bios", used_length=0x40000),
            ],
        )
        / RamRecord(flags="MULTIFD_FLUSH")
        / RamRecord()
        / SectionFooter(section_id=2),
    ),
    "RAM PART": (
        bytes.fromhex("0200000002 0000000000000010 7e00000002"),
        SectionPart(section_id=2) / RamRecord(flags="EOS") / SectionFooter(section_id=2),
    ),
    "VFIO START": (
        VFIO_START,
        SectionStart(section_id=0x21, idstr=VFIO)
        / VFIOMarkerRecord(marker="DEV_SETUP_STATE")
        / VFIOMarkerRecord()
        / SectionFooter(section_id=0x21),
    ),
    "VFIO PART": (
        VFIO_PART,
        SectionPart(section_id=0x21)
        / VFIODeviceData(data=b"\1\2\3\4")
        / VFIOMarkerRecord(marker="END_OF_STATE")
        / SectionFooter(section_id=0x21),
    ),
    "VFIO END": (
        bytes.fromhex("0300000021 ffffffffef100001 7e00000021"),
        SectionEnd(section_id=0x21) / VFIOMarkerRecord() / SectionFooter(section_id=0x21),
    ),
    "VFIO FULL": (
        bytes.fromhex(
            "0400000021 11 303030303a30303a30352e302f7666696f 00000000 00000001"
            "ffffffffef100006 7e00000021"
        ),
        SectionFull(section_id=0x21, idstr=VFIO)
        / VFIOMarkerRecord(marker="DEV_CONFIG_LOAD_READY")
        / SectionFooter(section_id=0x21),
    ),
    "end": (b"\0\x06\0\0\0\x02{}", EndOfStream() / VmDescription(vmdesc="{}")),
}


@pytest.mark.parametrize("name", BUILT)
def test_building(name: str) -> None:
    data, packet = BUILT[name]
    assert bytes(packet) == data


@pytest.mark.parametrize("name", [name for name in BUILT if name != "capabilities"])
def test_taking_apart(name: str) -> None:
    data, packet = BUILT[name]
    prefix = b"" if data[0] != 3 and data[0] != 2 else RAM_START + VFIO_START
    stream = MainStream(prefix + data)
    expected = [type(layer) for layer in packet.iterpayloads()]
    assert [type(part) for part in stream.parts][-len(expected) :] == expected
    assert not stream.payload
    assert bytes(stream) == prefix + data


def test_configuration() -> None:
    data = HEADER[8:] + CAPABILITIES + b"\x05\x12configuration/uuid\0\0\0\x01" + bytes(range(16))
    section = Configuration(data + b"\x08")
    first, second = section.subsections
    assert section.machine_type == b"pc-q35-10.0"
    assert [capability.text for capability in first.capabilities] == [b"x-ignore-shared"]
    assert second.uuid.bytes == bytes(range(16))
    assert section.payload.load == b"\x08"
    assert bytes(section) == data + b"\x08"


@pytest.mark.parametrize("behind", [b"\x05\x03abc", b"\x05\x1eother/capabilities", b"\x08\0"])
def test_what_follows_a_configuration(behind: bytes) -> None:
    assert Configuration(HEADER[8:] + behind).payload.load == behind


def test_commands() -> None:
    advise = Command(
        cmd="POSTCOPY_ADVISE", body=PostcopyAdvise(page_size_summary=0x201000, page_size=4096)
    )
    assert bytes(advise) == bytes.fromhex("0800030010 0000000000201000 0000000000001000")
    assert Command(bytes(advise)).body.page_size == 4096
    packaged = Command(cmd="PACKAGED", body=Packaged(length=14)) / Command(cmd="POSTCOPY_RUN")
    stream = MainStream(bytes(packaged))
    assert [part.cmd for part in stream.parts] == [7, 5]
    assert stream.parts[0].body.length == 14
    bitmap = Command(cmd="RECV_BITMAP", body=RecvBitmap(block_name="pc.ram"))
    assert Command(bytes(bitmap)).body.block_name == b"pc.ram"


def test_records_of_pages() -> None:
    records: list[Any] = [
        RamPage(addr=0x1000, idstr="pc.ram", data=bytes(8192)),
        RamZero(addr=0x3000, flags="ZERO+CONTINUE"),
        RamXbzrle(addr=0x4000, flags="XBZRLE+CONTINUE", data=b"xbzrle"),
        RamCompressedPage(addr=0x5000, idstr="pc.bios", data=b"deflated"),
        RamRecord(flags="EOS"),
    ]
    section: Packet = SectionStart(section_id=2, idstr="ram", version_id=4)
    for record in records:
        section = section / record
    stream = MainStream(bytes(section / SectionFooter(section_id=2)), page_size=8192)
    assert list(map(bytes, stream.parts[1:-1])) == list(map(bytes, records))
    assert [type(part) for part in stream.parts[1:-1]] == list(map(type, records))
    assert bytes(records[1]) == bytes.fromhex("0000000000003022 00")
    assert stream.parts[3].idstr is None


def test_block_list_that_does_not_add_up() -> None:
    entry = bytes(MemSizeEntry(idstr="pc.ram", used_length=0x2000))
    word = bytes.fromhex("0000000000001004")
    with pytest.raises(DissectionError, match="more than the record says"):
        RamRecord(word + entry)
    with pytest.raises(TruncatedError):
        RamRecord(word)


def test_a_section_whose_start_was_not_seen() -> None:
    stream = MainStream(VFIO_PART)
    assert [type(part) for part in stream.parts] == [
        SectionPart,
        VFIODeviceData,
        VFIOMarkerRecord,
        SectionFooter,
    ]
    unknown = MainStream(BUILT["RAM PART"][0])
    assert [type(part) for part in unknown.parts] == [SectionPart]
    assert unknown.payload == Raw(BUILT["RAM PART"][0][5:])


def test_sections_without_footers() -> None:
    stream = MainStream(VFIO_START[:-5] + bytes.fromhex("0300000021 ffffffffef100001 00"))
    assert [type(part) for part in stream.parts[-4:]] == [
        VFIOMarkerRecord,
        SectionEnd,
        VFIOMarkerRecord,
        EndOfStream,
    ]


@pytest.mark.parametrize("data", [b"\x63", b"QEVX", b"\x04\0\0\0\0\x03foo"])
def test_what_is_no_element_stays_raw(data: bytes) -> None:
    stream = MainStream(data)
    assert stream.parts == []
    assert stream.payload == Raw(data)


@pytest.mark.parametrize("name", ["mtty-main-stream-only", "mtty-2dev-2ch-holes"])
def test_real_streams(name: str) -> None:
    data = gzip.decompress((STREAMS / f"{name}.gz").read_bytes())
    stream = MainStream(data)
    assert bytes(stream) == data
    assert stream.parts[1].machine_type == b"pc-i440fx-10.0"
    blocks = [entry.idstr for entry in stream.parts[3].entries]
    assert blocks[:2] == [b"pc.ram", b"/rom@etc/acpi/tables"]
    devices = [part.idstr for part in stream.parts if isinstance(part, SectionStart)]
    assert devices[:2] == [b"ram", b"0000:00:05.0/vfio"]
    # The first body that only the vmdescription describes ends it.
    assert type(stream.parts[-1]) is SectionFull
    description = VmDescription(data[data.rindex(b'{"configuration"') - 5 :])
    assert json.loads(description.vmdesc)["page_size"] == 4096


def test_hostile_bytes() -> None:
    rng = random.Random(2)
    data = HEADER + RAM_START + VFIO_START + VFIO_PART + BUILT["end"][0]
    for _ in range(300):
        mutant = bytearray(data[: rng.randrange(1, len(data))])
        for _ in range(rng.randrange(6)):
            mutant[rng.randrange(len(mutant))] = rng.choice([0, 1, 5, 7, 0x7E, 0xFF])
        stream = MainStream(bytes(mutant))
        assert bytes(stream) == mutant
        assert len(str(stream.show(dump=True))) > 20
