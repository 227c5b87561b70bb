# SPDX-License-Identifier: GPL-2.0-or-later
"""Headers with another value in a field, in frames of real migrations."""

from __future__ import annotations

import pytest

from mfdtool.errors import ScheduleError
from mfdtool.schedule.set_field import with_field
from mfdtool.stream.frames import Frame, Kind
from mfdtool.wire.constants import VFIOMarker
from tests.support.vectors import observation

POSTCOPY = "ram-postcopy"
MTTY = "mtty-4ch-clean"
MAIN_ONLY = "mtty-main-stream-only"


def frame_of(name: str, channel: str, number: int) -> Frame:
    found = observation(name).by_channel[channel][number]
    assert found.number == number
    return found


def first(name: str, kind: Kind) -> Frame:
    return next(frame for frame in observation(name).frames if frame.kind is kind)


def changed(frame: Frame, *changes: tuple[str, str]) -> bytes:
    """Change some fields, one after the other."""
    data = frame.data()
    for name, text in changes:
        data = with_field(frame, data, name, text)
    return data


def complaint(frame: Frame, name: str, text: str, data: bytes | None = None) -> str:
    with pytest.raises(ScheduleError) as raised:
        with_field(frame, frame.data() if data is None else data, name, text)
    return str(raised.value)


# Commands: header and payload.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ((("value", "0x42"),), "08 0002 0004 00000042"),
        ((("cmd", "99"),), "08 0063 0004 00000001"),
        ((("command", "99"),), "08 0063 0004 00000001"),
        ((("payload_length", "3"),), "08 0002 0003 00000001"),
        ((("value", "7"), ("cmd", "3")), "08 0003 0004 00000007"),
        ((("cmd", "3"), ("value", "7"), ("len", "9")), "08 0003 0009 00000007"),
    ],
)
def test_command(changes: tuple[tuple[str, str], ...], expected: str) -> None:
    ping = frame_of(POSTCOPY, "main", 3)
    assert ping.data() == bytes.fromhex("08 0002 0004 00000001")
    assert changed(ping, *changes) == bytes.fromhex(expected)


def test_command_without_payload() -> None:
    listen = frame_of(POSTCOPY, "main", 1212)
    assert changed(listen, ("len", "1")) == bytes.fromhex("08 0004 0001")
    assert complaint(listen, "value", "1") == (
        "main#1212 has no field 'value'; it has type, cmd, len"
    )


def test_a_longer_name_makes_a_longer_payload() -> None:
    discard = frame_of(POSTCOPY, "main", 1209)
    before = discard.data()
    data = changed(discard, ("name", "pc.ram.too"), ("version", "1"))
    assert data[:5] == before[:5]
    assert data[5:] == b"\x01\x0apc.ram.too" + before[13:]
    assert "it is not a number or a string" in complaint(discard, "ranges", "1")


def test_a_command_that_an_earlier_fault_has_cut() -> None:
    ping = frame_of(POSTCOPY, "main", 3)
    assert complaint(ping, "value", "1", ping.data()[:7]).startswith(
        "it cannot be decoded any more: "
    )
    assert complaint(ping, "cmd", "1", ping.data()[:4]).startswith("the header is not whole: ")


# The return path, RAM records, markers.


def test_return_path_message() -> None:
    pong, request, shut = (frame_of(POSTCOPY, "return-path", number) for number in (0, 4, 5))
    assert changed(pong, ("value", "9"), ("type", "1")) == bytes.fromhex("0001 0004 00000009")
    data = changed(request, ("length", "1"), ("block_name", "pc.rom"))
    assert data == bytes.fromhex("0003 0013 0000000000025000 00000001 06") + b"pc.rom"
    assert changed(shut, ("len", "0")) == bytes.fromhex("0001 0000 00000000")


def test_ram_record() -> None:
    sizes = frame_of(POSTCOPY, "main", 6)
    before = sizes.data()
    assert before[:8] == bytes.fromhex("0000000000452004")
    data = changed(sizes, ("addr", "0x1000"))
    assert data == bytes.fromhex("0000000000001004") + before[8:]
    both = changed(sizes, ("addr", "0x1000"), ("flags", "0x10"))
    assert both == bytes.fromhex("0000000000001010") + before[8:]


def test_markers() -> None:
    data_record = next(
        frame
        for frame in observation(MAIN_ONLY).frames
        if frame.data(limit=8) == VFIOMarker.DEV_DATA_STATE.to_bytes(8)
    )
    before = data_record.data()
    changes = (("data_length", "1"), ("marker", "END_OF_STATE"))
    assert changed(data_record, *changes[:1]) == before[:8] + bytes(7) + b"\x01" + before[16:]
    assert changed(data_record, *changes) == (
        VFIOMarker.END_OF_STATE.to_bytes(8) + bytes(7) + b"\x01" + before[16:]
    )
    marker = first(MAIN_ONLY, Kind.VFIO_MARKER)
    assert changed(marker, ("marker", "0x1234"))[:8] == (0x1234).to_bytes(8)


# Values.


def test_text_of_fixed_size() -> None:
    packet = first(MTTY, Kind.MULTIFD_DEVICE_STATE)
    before = packet.data()
    at = before.index(b"0000:00:05.0/vfio")
    data = changed(packet, ("idstr", "x/vfio"))
    assert data == before[:at] + b"x/vfio".ljust(256, b"\0") + before[at + 256 :]
    assert changed(packet, ("idstr", "y" * 256))[at : at + 256] == b"y" * 256
    raw = changed(packet, ("idstr", "0x" + "ab" * 256))
    assert raw[at : at + 256] == b"\xab" * 256
    assert "257 bytes do not fit in 256" in complaint(packet, "idstr", "y" * 257)


def test_text_of_any_size() -> None:
    configuration = frame_of(POSTCOPY, "main", 1)
    assert configuration.data() == b"\x07\0\0\0\x0epc-i440fx-10.0"
    assert changed(configuration, ("name", "isapc")) == b"\x07\0\0\0\x05isapc"
    assert "it cannot be decoded any more" in complaint(configuration, "name", "x", b"\x07\0")
    header = frame_of(POSTCOPY, "main", 5)
    assert changed(header, ("idstr", "rom")) == (
        bytes.fromhex("01 00000001 03") + b"rom" + bytes.fromhex("00000000 00000004")
    )


@pytest.mark.parametrize("text", ["", "x", "1.5", "0b", "-1", "0x100000000", "9" * 5000])
def test_no_number(text: str) -> None:
    ping = frame_of(POSTCOPY, "main", 3)
    assert complaint(ping, "value", text).startswith(f"{text!r} is no value of value: ")


def test_a_uuid_as_it_is_shown() -> None:
    init = first(MTTY, Kind.MULTIFD_INIT)
    data = changed(init, ("uuid", "00112233-4455-6677-8899-aAbBccddeeff"))
    assert data[8:24] == bytes.fromhex("00112233445566778899aabbccddeeff")
    assert "36 bytes do not fit" in complaint(init, "uuid", "0011-22334455-6677-8899-aabbccddeeff")


def test_hexadecimal_digits_that_are_none_are_text() -> None:
    init = first(MTTY, Kind.MULTIFD_INIT)
    assert changed(init, ("uuid", "0x" + "12" * 16))[8:24] == b"\x12" * 16
    assert changed(init, ("uuid", "short"))[8:24] == b"short".ljust(16, b"\0")
    assert "is no value of uuid" in complaint(init, "uuid", "zz" * 16)


def test_what_has_no_header() -> None:
    opaque = first(POSTCOPY, Kind.MAIN_OPAQUE)
    number = opaque.number
    assert complaint(opaque, "name", "x") == (
        f"main#{number} has no field 'name'; it has none that can be set"
    )


def test_ram_packet() -> None:
    packet = first(MTTY, Kind.MULTIFD_RAM)
    before = packet.data()
    data = changed(packet, ("packet_num", "0x1122"), ("flags", "1"))
    assert data[8:12] == bytes.fromhex("00000001")
    assert data[24:32] == bytes.fromhex("0000000000001122")
    assert (data[:8], data[12:24], data[32:]) == (before[:8], before[12:24], before[32:])
