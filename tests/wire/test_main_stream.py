# SPDX-License-Identifier: GPL-2.0-or-later
"""Elements of the main stream."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from mfdtool.errors import TruncatedError, WireError
from mfdtool.wire.constants import COMMAND_LENGTHS, FILE_HEADER_SIZE, Command, SectionType
from mfdtool.wire.main_stream import (
    FILE_HEADER_LAYOUT,
    Capabilities,
    CommandHeader,
    CommandPayload,
    Configuration,
    ConfigurationHeader,
    ConfigurationSubsection,
    ConfigurationUuid,
    DiscardRange,
    FileHeader,
    Packaged,
    Ping,
    PostcopyAdvise,
    PostcopyRamDiscard,
    RecvBitmap,
    SectionFooter,
    SectionPart,
    SectionStart,
    SubsectionHeader,
    TargetPageBits,
    VmDescriptionHeader,
    parse_command_payload,
)

CheckMessage = Callable[..., None]

HEADER = bytes.fromhex("5145564d 00000003")
MACHINE = bytes.fromhex("07 0000000b") + b"pc-q35-10.0"
CAPABILITIES = (
    b"\x05\x1aconfiguration/capabilities"
    + bytes.fromhex("00000001 00000001 0f")
    + b"x-ignore-shared"
)
PAGE_BITS = b"\x05\x1econfiguration/target-page-bits" + bytes.fromhex("00000001 0000000e")
UUID = b"\x05\x12configuration/uuid\0\0\0\1" + bytes(range(16))


def test_file_header(check_message: CheckMessage) -> None:
    check_message(FileHeader(), HEADER)
    assert FILE_HEADER_LAYOUT.parse(HEADER) == FileHeader()
    assert FILE_HEADER_LAYOUT.size == FILE_HEADER_SIZE
    assert FileHeader.parse(b"QCPR\0\0\0\1") == FileHeader(magic=0x51435052, version=1)


def test_section_start(check_message: CheckMessage) -> None:
    check_message(
        SectionStart(type=SectionType.START, section_id=2, idstr="ram", version_id=4),
        bytes.fromhex("01 00000002 03 72616d 00000000 00000004"),
    )
    check_message(
        SectionStart(
            type=SectionType.FULL, section_id=0x21, idstr="0000:00:05.0/vfio", version_id=1
        ),
        b"\x04\0\0\0\x21\x110000:00:05.0/vfio\0\0\0\0\0\0\0\1",
    )


def test_section_part(check_message: CheckMessage) -> None:
    part = SectionPart(type=SectionType.PART, section_id=2)
    check_message(part, bytes.fromhex("02 00000002"))
    end = SectionPart(type=SectionType.END, section_id=0x21)
    check_message(end, bytes.fromhex("03 00000021"))


def test_footer_and_vmdescription(check_message: CheckMessage) -> None:
    check_message(SectionFooter(section_id=0x21), bytes.fromhex("7e 00000021"))
    check_message(VmDescriptionHeader(length=320), bytes.fromhex("06 00000140"))


def test_subsection_header(check_message: CheckMessage) -> None:
    check_message(
        SubsectionHeader(name="VFIOPCIDevice/VFIODisplay"),
        b"\x05\x19VFIOPCIDevice/VFIODisplay\0\0\0\1",
    )


@pytest.mark.parametrize(
    ("kind", "allowed"),
    [
        (SectionStart, {1, 4}),
        (SectionPart, {2, 3}),
        (SubsectionHeader, {5}),
        (VmDescriptionHeader, {6}),
        (ConfigurationHeader, {7}),
        (CommandHeader, {8}),
        (SectionFooter, {0x7E}),
    ],
)
def test_elements_of_another_type(
    kind: type[SectionStart | SectionPart | SectionFooter], allowed: set[int]
) -> None:
    for value in set(range(256)) - allowed:
        with pytest.raises(WireError) as caught:
            kind.parse_prefix(bytes([value]) + bytes(40))
        assert caught.value.path == "type"
    for value in allowed:
        assert kind.parse_prefix(bytes([value]) + bytes(40))[0].type == value


def test_hostile_idstr_is_shown_safely() -> None:
    section = SectionStart.parse(bytes.fromhex("01 00000000 04 1b5b0aff 00000000 00000000"))
    assert section.idstr == "\\x1b[\\x0a\\xff"


# Configuration.


def test_configuration_without_subsections(check_message: CheckMessage) -> None:
    check_message(ConfigurationHeader(len=11), MACHINE[:5])
    configuration = Configuration(name="pc-q35-10.0")
    assert Configuration.parse(MACHINE) == configuration
    assert configuration.build() == MACHINE
    assert configuration.capabilities == frozenset()
    assert Configuration.parse_prefix(MACHINE + b"\0") == (configuration, 16)


def test_configuration_with_all_subsections() -> None:
    data = MACHINE + PAGE_BITS + CAPABILITIES + UUID
    configuration = Configuration.parse(data)
    assert configuration == Configuration(
        name="pc-q35-10.0",
        subsections=(
            ConfigurationSubsection(name="configuration/target-page-bits", body=TargetPageBits(14)),
            ConfigurationSubsection(
                name="configuration/capabilities", body=Capabilities(("x-ignore-shared",))
            ),
            ConfigurationSubsection(
                name="configuration/uuid", body=ConfigurationUuid(bytes(range(16)))
            ),
        ),
    )
    assert configuration.capabilities == {"x-ignore-shared"}
    assert configuration.build() == data


@pytest.mark.parametrize("subsection", [PAGE_BITS, CAPABILITIES, UUID])
def test_configuration_subsection(check_message: CheckMessage, subsection: bytes) -> None:
    check_message(ConfigurationSubsection.parse(subsection), subsection)


@pytest.mark.parametrize("body", [PAGE_BITS, CAPABILITIES, UUID])
def test_truncated_configuration(body: bytes) -> None:
    data = MACHINE + body
    for length in range(len(data) + 1):
        with pytest.raises(TruncatedError) as caught:
            Configuration.parse_prefix(data[:length], offset=8)
        assert 1 <= caught.value.missing <= max(len(data) - length, 1)
    whole_at = []
    for length in range(len(data) + 1):
        try:
            _, used = Configuration.parse_prefix(data[:length], may_end=True)
        except TruncatedError:
            continue
        whole_at.append((length, used))
    assert whole_at == [(len(MACHINE), len(MACHINE)), (len(data), len(data))]


@pytest.mark.parametrize(
    "follows",
    [
        bytes.fromhex("01 00000002"),
        bytes.fromhex("08 0001 0000"),
        b"\x05\x03abc",
        b"\x05\x10something/else..",
    ],
)
def test_what_ends_a_configuration(follows: bytes) -> None:
    configuration, used = Configuration.parse_prefix(MACHINE + CAPABILITIES + follows)
    assert used == len(MACHINE + CAPABILITIES)
    assert configuration.capabilities == {"x-ignore-shared"}


def test_unknown_configuration_subsection() -> None:
    data = MACHINE + b"\x05\x14configuration/secret\0\0\0\1"
    with pytest.raises(WireError, match="configuration/secret") as caught:
        Configuration.parse(data)
    assert caught.value.path == "subsections.name"
    assert not isinstance(caught.value, TruncatedError)


def test_huge_counts_in_a_configuration() -> None:
    with pytest.raises(TruncatedError) as caught:
        Configuration.parse(bytes.fromhex("07 ffffffff 00"))
    assert caught.value.missing == 0xFFFFFFFE
    lying = CAPABILITIES.replace(b"\0\0\0\1\x0f", b"\xff\xff\xff\xff\x0f")
    with pytest.raises(TruncatedError) as caught:
        Configuration.parse(MACHINE + lying)
    assert caught.value.missing == 1


# Commands.


def test_commands(check_message: CheckMessage) -> None:
    check_message(CommandHeader(cmd=1), bytes.fromhex("08 0001 0000"))
    check_message(CommandHeader(cmd=2, len=4), bytes.fromhex("08 0002 0004"))
    switchover = CommandHeader(cmd=11)
    assert switchover.command is Command.SWITCHOVER_START
    check_message(switchover, bytes.fromhex("08 000b 0000"))


@pytest.mark.parametrize("cmd", [0, 12, 0xFFFF])
def test_unknown_commands(cmd: int) -> None:
    assert CommandHeader(cmd=cmd).command is None


PAYLOADS: list[tuple[Command, CommandPayload, str]] = [
    (Command.PING, Ping(1), "00000001"),
    (
        Command.POSTCOPY_ADVISE,
        PostcopyAdvise(page_size_summary=0x1000, page_size=0x1000),
        "0000000000001000 0000000000001000",
    ),
    (
        Command.POSTCOPY_RAM_DISCARD,
        PostcopyRamDiscard(
            name="pc.ram",
            ranges=(DiscardRange(start=1, length=2), DiscardRange(start=3, length=4)),
        ),
        "00 06 70632e72616d 00 0000000000000001 00000000000000020000000000000003 0000000000000004",
    ),
    (Command.PACKAGED, Packaged(0x1234), "00001234"),
    (Command.RECV_BITMAP, RecvBitmap("pc.ram"), "06 70632e72616d"),
]


@pytest.mark.parametrize(("command", "value", "data"), PAYLOADS)
def test_command_payloads(command: Command, value: CommandPayload, data: str) -> None:
    raw = bytes.fromhex(data)
    assert parse_command_payload(command, raw) == value
    assert value.build() == raw
    assert type(value).parse_prefix(raw) == (value, len(raw))
    with pytest.raises(WireError, match="1 bytes too many"):
        parse_command_payload(command, raw + b"\0")
    expected = COMMAND_LENGTHS[command]
    assert expected in (None, len(raw))


@pytest.mark.parametrize(("command", "value", "data"), PAYLOADS)
def test_truncated_command_payloads(command: Command, value: CommandPayload, data: str) -> None:
    raw = bytes.fromhex(data)
    may_end_at = {0} if isinstance(value, PostcopyAdvise) else set()
    if isinstance(value, PostcopyRamDiscard):
        may_end_at = {len(raw) - 16, len(raw) - 32}
    for length in range(len(raw)):
        if length in may_end_at:
            shorter = parse_command_payload(command, raw[:length])
            assert (shorter.build() if shorter else b"") == raw[:length]
            continue
        with pytest.raises(WireError):
            parse_command_payload(command, raw[:length], channel="main", offset=9)


def test_empty_payloads() -> None:
    for command, length in COMMAND_LENGTHS.items():
        if length == 0:
            assert parse_command_payload(command, b"") is None
            with pytest.raises(WireError, match=f"{command.name} has no payload"):
                parse_command_payload(command, b"\0")
    assert parse_command_payload(Command.POSTCOPY_ADVISE, b"") is None
    with pytest.raises(TruncatedError):
        parse_command_payload(Command.PING, b"")


def test_random_input_is_a_value_or_a_wire_error() -> None:
    random = Random(4)
    kinds = (SectionStart, Configuration, CommandHeader, PostcopyRamDiscard, RecvBitmap)
    start = MACHINE + CAPABILITIES + UUID
    offsets = []
    decoded = 0
    for _ in range(600):
        data = bytearray(start)
        for _ in range(random.randrange(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        for kind in kinds:
            try:
                value, used = kind.parse_prefix(bytes(data))
            except WireError as error:
                offsets.append(error.offset)
                continue
            assert value.build() == bytes(data[:used])
            decoded += 1
    assert decoded > 50
    assert 0 <= min(offsets) <= max(offsets) <= len(start)
