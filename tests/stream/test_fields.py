# SPDX-License-Identifier: GPL-2.0-or-later
"""The named values of frames, for every kind and for headers that are not whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfdtool.stream.field import FieldType
from mfdtool.stream.field_tables import BY_KIND, COMMON
from mfdtool.stream.field_values import decimal_time
from mfdtool.stream.fields import (
    CATALOG,
    UnknownFieldError,
    check_names,
    definitions_of,
    field_of,
    fields_of,
    values,
)
from mfdtool.stream.frames import ChannelId, Frame, Kind, Section
from mfdtool.stream.pci_fields import PCI_CONFIG
from mfdtool.stream.span import Span
from mfdtool.stream.values import CommandRecord, MarkerRecord, RamRecord, ReturnPathRecord, Value
from mfdtool.wire.constants import Command, RamFlag, ReturnPathType, SectionType
from mfdtool.wire.main_stream import (
    Capabilities,
    CommandHeader,
    Configuration,
    ConfigurationSubsection,
    ConfigurationUuid,
    DiscardRange,
    Packaged,
    Ping,
    PostcopyAdvise,
    PostcopyRamDiscard,
    RecvBitmap,
    SectionPart,
    TargetPageBits,
)
from mfdtool.wire.multifd import MultiFDPacketCounts, MultiFDPacketDeviceState
from mfdtool.wire.ram import MappedRamHeader, MemSizeEntry
from mfdtool.wire.return_path import RecvBitmapReply, ReqPages, ReqPagesId, ReturnPathMessage, Shut
from tests.support.captures import NAMES, decoded

PYTHON_TYPES: dict[FieldType, type] = {
    FieldType.INTEGER: int,
    FieldType.BOOLEAN: bool,
    FieldType.STRING: str,
    FieldType.HEX: str,
    FieldType.TIME: str,
    FieldType.LIST: list,
    FieldType.OBJECT: dict,
}


def frame(kind: Kind, value: Value | None = None, *, section: Section | None = None) -> Frame:
    return Frame(kind, ChannelId(0, "main"), 3, 100, 20, -1, -1, 0, value=value, section=section)


def of_kind(made: Frame) -> dict[str, object]:
    """Give the values that are not common to all kinds."""
    common = {field.name for field in COMMON}
    return {name: value for name, value in values(made).items() if name not in common}


# What real captures have.


def test_device_state_packet() -> None:
    _, frames = decoded("mtty-4ch-clean")
    packet = next(
        each
        for each in frames
        if each.kind is Kind.MULTIFD_DEVICE_STATE and values(each)["idx"] == 2
    )
    assert values(packet) == {
        "kind": "multifd.device_state",
        "migration": 0,
        "channel": "multifd-0",
        "number": 22,
        "offset": 233088,
        "length": 304,
        "time_first": "1795425060.704502000",
        "time_last": "1795425060.704502000",
        "record": 219,
        "complete": True,
        "packet_flags": 64,
        "packet_version": 1,
        "idstr": "0000:00:05.0/vfio",
        "instance_id": 0,
        "next_packet_size": 28,
        "version": 0,
        "idx": 2,
        "flags": 0,
        "is_config": False,
        "data_length": 16,
    }


@pytest.mark.parametrize("name", NAMES)
def test_types_are_as_told(name: str) -> None:
    for each in decoded(name)[1]:
        named = values(each)
        for field in fields_of((each.kind, type(each.value))):
            value = named.get(field.name)
            assert value is not None or field.optional, field
            assert value is None or type(value) is PYTHON_TYPES[field.type], field


def test_order_is_that_of_the_tables() -> None:
    _, frames = decoded("mtty-4ch-clean")
    for each in frames:
        fields = (*COMMON, *BY_KIND[each.kind], *(PCI_CONFIG if each.config else ()))
        wanted = [field.name for field in fields]
        assert [name for name in wanted if name in values(each)] == list(values(each))


def test_main_stream_elements() -> None:
    _, frames = decoded("mtty-main-stream-only")
    by_number = {each.number: of_kind(each) for each in frames if each.channel.name == "main"}
    assert by_number[0] == {"magic": 0x5145564D, "version": 3}
    assert by_number[1] == {"machine": "pc-i440fx-10.0", "capabilities": []}
    assert by_number[2] == {"section_id": 1, "idstr": "ram", "instance_id": 0, "version_id": 4}
    assert by_number[14] == {"section_id": 38, "idstr": "0000:00:05.0/vfio", "instance_id": 0}
    assert by_number[15] == {
        "section_id": 38,
        "idstr": "0000:00:05.0/vfio",
        "instance_id": 0,
        "marker": "DEV_DATA_STATE",
        "value": "0xffffffffef100004",
        "data_length": 24,
    }
    assert by_number[31] == {"command": "SWITCHOVER_START", "cmd": 11, "payload_length": 0}
    assert by_number[135] == {}
    assert by_number[136] == {"payload_length": 99165}


def test_ram_packet_and_sync() -> None:
    _, frames = decoded("mtty-4ch-clean")
    packets = {str(each.channel) + f"#{each.number}": of_kind(each) for each in frames}
    assert packets["multifd-1#2"] == {
        "flags": 0,
        "pages_alloc": 128,
        "normal_pages": 30,
        "zero_pages": 98,
        "next_packet_size": 122880,
        "packet_num": 4,
        "data_length": 122880,
        "ramblock": "pc.ram",
    }
    sync = packets["multifd-0#1"]
    assert (sync["flags"], sync["packet_num"], sync["data_length"]) == (1, 0, 0)
    assert "ramblock" not in sync
    assert packets["multifd-2#0"] == {
        "magic": 0x11223344,
        "version": 1,
        "uuid": "00000000-0000-0000-0000-000000000000",
        "id": 2,
    }


# What they do not have.


def test_what_does_not_apply_is_absent() -> None:
    gap = replace(frame(Kind.GAP), number=None, missing=14, reason="not captured")
    assert values(gap) == {
        "kind": "gap",
        "migration": 0,
        "channel": "main",
        "offset": 100,
        "length": 20,
        "complete": False,
        "missing": 14,
        "reason": "not captured",
    }


def test_a_kind_without_its_value() -> None:
    assert of_kind(frame(Kind.MULTIFD_DEVICE_STATE)) == {}
    assert of_kind(frame(Kind.MAIN_OPAQUE)) == {"data_length": 0}


def test_device_packet_without_vfio_header() -> None:
    packet = MultiFDPacketDeviceState(idstr=b"x/vfio".ljust(256, b"\0"), next_packet_size=5)
    assert of_kind(frame(Kind.MULTIFD_DEVICE_STATE, packet)) == {
        "packet_flags": 64,
        "packet_version": 1,
        "idstr": "x/vfio",
        "instance_id": 0,
        "next_packet_size": 5,
    }


def test_ram_packet_without_block_name() -> None:
    counts = MultiFDPacketCounts(flags=2, pages_alloc=128, normal_pages=1, next_packet_size=99)
    named = of_kind(replace(frame(Kind.MULTIFD_RAM, counts), payload=Span(0, 99)))
    assert named["compression"] == "ZLIB"
    assert named["data_length"] == 99
    assert "ramblock" not in named


def test_section_whose_start_is_missing() -> None:
    header = SectionPart(type=SectionType.PART, section_id=7)
    part = frame(Kind.MAIN_SECTION_PART, header, section=Section(7, "", 0, 0))
    assert of_kind(part) == {"section_id": 7}


def test_unknown_marker() -> None:
    marker = frame(Kind.VFIO_MARKER, MarkerRecord(0xFFFFFFFFEF1000FF))
    assert of_kind(marker) == {"value": "0xffffffffef1000ff", "data_length": 0}


def test_configuration() -> None:
    bodies = (
        ("target-page-bits", TargetPageBits(12)),
        ("capabilities", Capabilities(("x-ignore-shared", "mapped-ram"))),
        ("uuid", ConfigurationUuid(bytes(range(16)))),
    )
    configuration = Configuration(
        name="virt",
        subsections=tuple(
            ConfigurationSubsection(name=f"configuration/{name}", body=body)
            for name, body in bodies
        ),
    )
    assert of_kind(frame(Kind.MAIN_CONFIGURATION, configuration)) == {
        "machine": "virt",
        "capabilities": ["mapped-ram", "x-ignore-shared"],
        "target_page_bits": 12,
        "uuid": "00010203-0405-0607-0809-0a0b0c0d0e0f",
    }


COMMANDS = [
    (Command.PING, Ping(7), {"value": 7}),
    (
        Command.POSTCOPY_ADVISE,
        PostcopyAdvise(page_size_summary=0x201000, page_size=4096),
        {"page_size_summary": 0x201000, "page_size": 4096},
    ),
    (Command.PACKAGED, Packaged(99), {"package_length": 99}),
    (Command.RECV_BITMAP, RecvBitmap("pc.ram"), {"block_name": "pc.ram"}),
    (
        Command.POSTCOPY_RAM_DISCARD,
        PostcopyRamDiscard(name="pc.ram", ranges=(DiscardRange(start=4096, length=8192),)),
        {"block_name": "pc.ram", "ranges": [{"start": 4096, "length": 8192}]},
    ),
]


@pytest.mark.parametrize(("command", "payload", "expected"), COMMANDS)
def test_command_payloads(
    command: Command,
    payload: Ping | PostcopyAdvise | Packaged | RecvBitmap | PostcopyRamDiscard,
    expected: dict[str, object],
) -> None:
    record = CommandRecord(CommandHeader(cmd=command, len=9), payload)
    named = of_kind(frame(Kind.MAIN_COMMAND, record))
    assert named == {"command": command.name, "cmd": command, "payload_length": 9, **expected}


def test_unknown_command() -> None:
    record = CommandRecord(CommandHeader(cmd=99, len=4), None)
    assert of_kind(frame(Kind.MAIN_COMMAND, record)) == {"cmd": 99, "payload_length": 4}


MESSAGES = [
    (ReturnPathType.SHUT, Shut(0), {"value": 0}),
    (ReturnPathType.SWITCHOVER_ACK, None, {}),
    (
        ReturnPathType.REQ_PAGES,
        ReqPages(start=1, length=2),
        {"request_start": 1, "request_length": 2},
    ),
    (
        ReturnPathType.REQ_PAGES_ID,
        ReqPagesId(start=1, length=2, block_name="pc.ram"),
        {"request_start": 1, "request_length": 2, "block_name": "pc.ram"},
    ),
    (ReturnPathType.RECV_BITMAP, RecvBitmapReply("pc.ram"), {"block_name": "pc.ram"}),
]


@pytest.mark.parametrize(("kind", "payload", "expected"), MESSAGES)
def test_return_path_messages(
    kind: ReturnPathType,
    payload: Shut | ReqPages | ReqPagesId | RecvBitmapReply | None,
    expected: dict[str, object],
) -> None:
    record = ReturnPathRecord(ReturnPathMessage(type=kind, len=4), payload)
    named = of_kind(frame(Kind.RETURN_PATH_MESSAGE, record))
    assert named == {"type": kind.name, "payload_length": 4, **expected}


def test_ram_records() -> None:
    entries = (
        MemSizeEntry(idstr="pc.ram", used_length=8192),
        MemSizeEntry(
            idstr="mapped",
            used_length=4096,
            mapped_ram=MappedRamHeader(page_size=4096, bitmap_offset=1, pages_offset=2),
        ),
    )
    sizes = of_kind(frame(Kind.RAM_RECORD, RamRecord(RamFlag.MEM_SIZE.value, 12288, "", entries)))
    assert sizes["record_type"] == "MEM_SIZE"
    assert sizes["blocks"] == [
        {"idstr": "pc.ram", "used_length": 8192},
        {
            "idstr": "mapped",
            "used_length": 4096,
            "mapped_ram": {
                "version": 1,
                "page_size": 4096,
                "bitmap_offset": 1,
                "pages_offset": 2,
            },
        },
    ]
    flags = (RamFlag.ZERO | RamFlag.CONTINUE).value
    zero = of_kind(frame(Kind.RAM_RECORD, RamRecord(flags, 4096, "pc.ram", fill=0)))
    assert zero == {
        "record_type": "ZERO",
        "flags": 0x22,
        "addr": 4096,
        "ramblock": "pc.ram",
        "fill": 0,
        "data_length": 0,
    }


def test_huge_payloads_are_counted() -> None:
    # More than len() can tell: a marker's size is a be64.
    opaque = replace(frame(Kind.MAIN_OPAQUE), payload=Span(0, (1 << 64) - 1))
    assert values(opaque)["data_length"] == (1 << 64) - 1


@pytest.mark.parametrize(
    ("time_ns", "text"),
    [(-1, None), (0, "0.000000000"), (1_795_425_059_982_123_001, "1795425059.982123001")],
)
def test_decimal_time(time_ns: int, text: str | None) -> None:
    assert decimal_time(time_ns) == text


# The catalogue.


def test_every_field_has_a_meaning_and_wire_fields_a_source() -> None:
    common = {field.name for field in COMMON} | {"data_length"}
    for name, definitions in CATALOG.items():
        for definition in definitions:
            assert definition.field.meaning
            assert bool(definition.field.source) is (name not in common), name


def test_kinds_share_definitions() -> None:
    (idx,) = definitions_of("idx")
    assert idx.kinds == (Kind.MULTIFD_DEVICE_STATE,)
    assert [len(each.kinds) for each in definitions_of("value")] == [1, 1, 1]
    assert definitions_of("kind")[0].kinds == ()


def test_every_kind_has_a_table() -> None:
    assert set(BY_KIND) == set(Kind)


def test_unknown_field() -> None:
    with pytest.raises(UnknownFieldError, match="no field 'indx'; did you mean idx or"):
        check_names(["kind", "indx"])
    with pytest.raises(UnknownFieldError, match=r"no field 'zzzzzz'$"):
        definitions_of("zzzzzz")
    assert check_names(["kind", "idx"]) == ("kind", "idx")


def test_field_of() -> None:
    shape = (Kind.MAIN_EOF, type(None))
    assert field_of(shape, "idx") is None
    kind = field_of(shape, "kind")
    assert kind is not None
    assert kind.getter()(frame(Kind.MAIN_EOF)) == "main.eof"
