# SPDX-License-Identifier: GPL-2.0-or-later
"""From frames to events: order, ends, gaps, and what is read across frames."""

from __future__ import annotations

import pytest

from mfdtool.loader.assume import assume
from mfdtool.loader.blob import Blob, blob_of
from mfdtool.loader.events import (
    Announced,
    BadHeader,
    Body,
    Configuration,
    Connect,
    Deliver,
    DevicePacket,
    End,
    FileHeader,
    Footer,
    Handshake,
    Lost,
    MainItem,
    Marker,
    MultiFDItem,
    RamPacket,
    RamRecord,
    SectionStart,
    Unknown,
)
from mfdtool.loader.options import parse_options
from mfdtool.loader.recording import Recording
from mfdtool.replay.driver import drive
from mfdtool.schedule.bytes_of import joined
from mfdtool.schedule.observation import observations_of
from mfdtool.stream.migration import Decoder
from mfdtool.stream.span import EndReason
from mfdtool.wire import main_stream as wire
from mfdtool.wire.constants import RamFlag, SectionType, VFIOMarker
from mfdtool.wire.multifd import MultiFDInit, MultiFDPacket
from mfdtool.wire.text import nul_padded
from mfdtool.wire.vfio import DeviceData, DeviceStateHeader
from mfdtool.wire.vfio import Marker as WireMarker
from tests.support.captures import decode, load, records
from tests.support.playbook import DEVICE, MACHINE
from tests.support.script import Script
from tests.support.vectors import real_capture

HEADER = wire.FileHeader().build() + wire.Configuration(name=MACHINE).build()
START = wire.SectionStart(type=SectionType.START, section_id=2, idstr=DEVICE, version_id=1).build()
FULL = wire.SectionStart(type=SectionType.FULL, section_id=2, idstr=DEVICE, version_id=1).build()
PART = wire.SectionPart(type=SectionType.PART, section_id=2).build()
RAM = wire.SectionStart(type=SectionType.START, section_id=1, idstr="ram", version_id=4).build()
END_OF_STATE = WireMarker(VFIOMarker.END_OF_STATE).build()
SETUP = WireMarker(VFIOMarker.DEV_SETUP_STATE).build()
SYNC = MultiFDPacket(flags=1, packet_num=0).build()
EOF = b"\0"


def footer(section_id: int = 2) -> bytes:
    return wire.SectionFooter(section_id=section_id).build()


def device_packet(idx: int, data: bytes) -> bytes:
    header = DeviceStateHeader(
        idstr=nul_padded(DEVICE, 256), next_packet_size=12 + len(data), idx=idx
    )
    return header.build() + data


def play(script: Script) -> Recording:
    decoder = Decoder(keep_extents=True)
    frames = script.play(decoder)
    (observation,) = observations_of(frames, decoder.migrations)
    return observation.recording


def main_items(*pieces: bytes, close: bool = True) -> list[MainItem | MultiFDItem]:
    script = Script()
    flow = script.connect(data=HEADER + b"".join(pieces))
    if close:
        script.close(flow)
    events = [entry.event for entry in play(script).entries]
    items = [event.item for event in events if isinstance(event, Deliver)]
    assert items[:2] == [FileHeader(), Configuration(MACHINE)]
    return items[2:]


def multifd_items(data: bytes, *, reason: EndReason = EndReason.FIN) -> list[object]:
    script = Script()
    flow = script.connect(data=data)
    script.close(flow, reason)
    events = [entry.event for entry in play(script).entries]
    return [event.item if isinstance(event, Deliver) else event.first for event in events]


INIT = MultiFDInit(id=0).build()


# Main stream.


def test_sections_and_markers() -> None:
    data = DeviceData(size=3).build() + b"abc"
    items = main_items(
        START, SETUP, END_OF_STATE, footer(), PART, data, END_OF_STATE, footer(), EOF
    )
    assert items[:3] == [SectionStart(2, DEVICE), Marker(VFIOMarker.DEV_SETUP_STATE), Footer(2)]
    marker = items[4]
    assert isinstance(marker, Marker)
    assert (marker.marker, marker.data.head(9)) == (VFIOMarker.DEV_DATA_STATE, b"abc")
    assert items[-1] == End()


def test_word_behind_setup_state_is_looked_up() -> None:
    items = main_items(FULL, SETUP, footer(), EOF)
    assert items[1] == Marker(VFIOMarker.DEV_SETUP_STATE, following=0x7E00000002000000)


def test_config_is_read_with_its_markers() -> None:
    config = WireMarker(VFIOMarker.DEV_CONFIG_STATE).build() + b"config" + END_OF_STATE
    items = main_items(FULL, config, footer(), EOF)
    marker = items[1]
    assert isinstance(marker, Marker)
    assert b"".join(marker.data.pieces()) == config
    assert items[2] == Footer(2)


def test_word_where_a_marker_must_be_is_looked_up() -> None:
    assert main_items(FULL, footer(), EOF)[1] == Body(bytes.fromhex("7e00000002") + bytes(1))
    data = DeviceData(size=1).build() + b"x"
    items = main_items(START, data, footer(), PART, END_OF_STATE, footer(), EOF)
    assert items[2] == Body(bytes.fromhex("7e0000000202") + bytes(2))


def test_data_that_the_stream_cuts_off() -> None:
    items = main_items(START, DeviceData(size=1 << 40).build(), b"ab")
    marker = items[1]
    assert isinstance(marker, Marker)
    assert (marker.is_cut, marker.data.length, marker.data.missing) == (True, 2, 0)


def test_ram_section_without_its_end() -> None:
    flush = RamFlag.MULTIFD_FLUSH.to_bytes(8)
    items = main_items(RAM, flush, footer(1), START, SETUP, END_OF_STATE, footer(), EOF)
    assert items[1] == RamRecord(RamFlag.MULTIFD_FLUSH)
    assert isinstance(items[2], Body)


def test_bytes_that_are_no_element() -> None:
    items = main_items(START, SETUP, END_OF_STATE, footer(), b"\x55\x66", EOF)
    assert isinstance(items[3], Unknown)
    assert items[3].head[:1] == b"\x55"


def test_open_stream_has_no_end() -> None:
    assert not any(isinstance(item, End) for item in main_items(START, close=False))


def test_lost_bytes() -> None:
    script = Script()
    flow = script.connect(data=HEADER)
    script.lose(flow, 10)
    script.send(flow, START + SETUP + END_OF_STATE + footer())
    items = [entry.event.item for entry in play(script).entries if isinstance(entry.event, Deliver)]
    assert items[2] == Lost(10)

    script = Script()
    flow = script.connect(data=HEADER + START + DeviceData(size=20).build() + b"abcd")
    script.lose(flow, 16)
    script.send(flow, END_OF_STATE + footer())
    items = [entry.event.item for entry in play(script).entries if isinstance(entry.event, Deliver)]
    marker = items[3]
    assert isinstance(marker, Marker)
    assert (marker.data.length, marker.data.missing) == (20, 16)
    assert items[4:] == [
        Lost(16, is_inside=True),
        Marker(VFIOMarker.END_OF_STATE),
        Footer(2),
    ]


def test_lost_bytes_of_a_config() -> None:
    """The word behind it belongs to it, as where nothing is lost."""
    script = Script()
    config = WireMarker(VFIOMarker.DEV_CONFIG_STATE).build()
    flow = script.connect(data=HEADER + FULL + config)
    script.lose(flow, 16)
    script.send(flow, END_OF_STATE + footer())
    items = [entry.event.item for entry in play(script).entries if isinstance(entry.event, Deliver)]
    marker = items[3]
    assert isinstance(marker, Marker)
    assert (marker.data.length, marker.data.missing) == (8 + 16 + 8, 16)
    assert items[4:] == [Lost(16, is_inside=True), Footer(2)]


def test_footer_behind_lost_bytes_ends_a_section_that_nobody_knows() -> None:
    script = Script()
    flow = script.connect(data=HEADER)
    script.lose(flow, 10)
    script.send(flow, b"the rest of a body" + footer() + START + SETUP + END_OF_STATE + footer())
    items = [entry.event.item for entry in play(script).entries if isinstance(entry.event, Deliver)]
    assert items[2:4] == [Lost(10), Lost(18)]
    assert [type(item) for item in items[4:]] == [SectionStart, Marker, Footer]


# Multifd channels.


def test_packets_of_a_channel() -> None:
    pages = MultiFDPacket(
        flags=0,
        pages_alloc=128,
        normal_pages=1,
        zero_pages=1,
        next_packet_size=4096,
        packet_num=1,
        ramblock=nul_padded("pc.ram", 256),
        offset=(0x1000, 0x3000, *[0] * 126),
    ).build() + bytes(4096)
    items = multifd_items(INIT + SYNC + pages + device_packet(3, b"data"))
    assert items[:2] == [Handshake(0), RamPacket(flags=1)]
    ram, device, end = items[2:]
    assert isinstance(ram, RamPacket)
    assert (ram.ramblock, ram.offset, ram.packet_num) == ("pc.ram", 0x3000, 1)
    assert isinstance(device, DevicePacket)
    assert (device.idx, device.data.head(9)) == (3, b"data")
    assert device.data.key == ("multifd-0", 64 + 1344 + 1344 + 4096)
    assert end == End()


def test_bad_headers_and_short_payloads() -> None:
    short = device_packet(0, b"")
    short = short[:272] + (8).to_bytes(4) + bytes(8)
    items = multifd_items(INIT + SYNC + short + b"\xff" * 400)
    packet = items[2]
    assert isinstance(packet, DevicePacket)
    assert (packet.idx, packet.next_packet_size) == (None, 8)
    assert items[3] == BadHeader(0xFFFFFFFF, 0xFFFFFFFF)


@pytest.mark.parametrize("count", range(1, 8))
def test_stray_bytes_and_what_follows_are_read_as_a_header(count: int) -> None:
    items = multifd_items(INIT + SYNC + SYNC[:count] + device_packet(0, b"data"))
    read = (SYNC[:count] + SYNC)[:8]
    assert items[2] == BadHeader(int.from_bytes(read[:4]), int.from_bytes(read[4:]))
    assert not any(isinstance(item, Lost) for item in items)


def test_stray_bytes_at_the_end_of_a_channel_are_a_cut_off_header() -> None:
    assert multifd_items(INIT + SYNC + b"\xff" * 5)[2:] == [End(inside=True)]


def test_bytes_before_a_gap_may_have_been_a_header() -> None:
    script = Script()
    flow = script.connect(data=INIT + SYNC + SYNC[:5])
    script.lose(flow, len(SYNC) - 5)
    script.send(flow, SYNC)
    script.close(flow)
    items = [entry.event.item for entry in play(script).entries if isinstance(entry.event, Deliver)]
    assert not any(isinstance(item, BadHeader) for item in items)
    assert Lost(5) in items


def test_stray_bytes_are_a_bad_header_when_it_is_complete() -> None:
    script = Script()
    first = script.connect(data=INIT + SYNC + b"\xff" * 5)
    second = script.connect(data=MultiFDInit(id=1).build() + SYNC)
    script.send(second, device_packet(0, b"before"))
    script.send(first, SYNC)
    script.send(second, device_packet(1, b"behind"))
    script.close(first)
    script.close(second)
    items = [entry.event.item for entry in play(script).entries if isinstance(entry.event, Deliver)]
    bad = items.index(BadHeader(0xFFFFFFFF, 0xFF112233))
    before, behind = [place for place, item in enumerate(items) if isinstance(item, DevicePacket)]
    assert before < bad < behind


def test_channel_that_ends_inside_a_packet() -> None:
    whole = device_packet(0, b"data")
    assert multifd_items(INIT + SYNC + whole[:12])[-1] == End(inside=True, after_header=True)
    assert multifd_items(INIT + SYNC + whole[:100])[-1] == End(inside=True)
    assert multifd_items(INIT + SYNC + SYNC[:500])[-1] == End(inside=True)
    announced, cut = multifd_items(INIT + SYNC + whole[:-1])[2:4]
    assert announced == Announced(16)
    assert isinstance(cut, DevicePacket)
    assert cut.is_cut


def test_channel_that_the_destination_resets() -> None:
    items = multifd_items(INIT + SYNC + device_packet(0, b"data")[:-1], reason=EndReason.RST)
    assert items == [Handshake(0), RamPacket(flags=1)]


def test_cut_off_handshake() -> None:
    assert multifd_items(INIT[:20])[0] == Unknown(INIT[:20])
    assert multifd_items(INIT[:20], reason=EndReason.CAPTURE) == []


def test_connection_of_something_else() -> None:
    script = Script()
    main = script.connect(data=HEADER)
    other = script.connect(data=b"GET / HTTP/1.1\r\n" * 5)
    script.close(other)
    script.close(main)
    events = [entry.event for entry in play(script).entries]
    firsts = [event.first for event in events if isinstance(event, Connect)]
    assert isinstance(firsts[1], Unknown)


def test_bad_header_counts_when_it_begins() -> None:
    script = Script()
    first = script.connect(data=INIT + SYNC)
    second = script.connect(data=MultiFDInit(id=1).build() + SYNC)
    script.send(first, b"\xff" * 300)
    script.send(second, device_packet(0, b"later"))
    script.send(first, b"\xff" * 300)
    script.close(first)
    script.close(second)
    items = [entry.event.item for entry in play(script).entries if isinstance(entry.event, Deliver)]
    kinds = [type(item) for item in items]
    assert kinds.index(BadHeader) < kinds.index(DevicePacket)


# Whole recordings.


def test_real_captures() -> None:
    whole = real_capture("mtty-4ch-clean")
    assert whole.is_whole
    assert whole.names == ("multifd-2", "multifd-1", "multifd-0", "multifd-3")
    assert [block.idstr for block in whole.blocks or ()][:1] == ["pc.ram"]
    assert real_capture("mtty-dst-lacks-device").resets == ("multifd-2", "multifd-3")


def test_channels_without_handshake_were_there_before() -> None:
    name = "mtty-2dev-2ch-holes"
    decoder, frames = decode(load(name), records(name)[30:], keeps=True)
    (observation,) = observations_of(frames, decoder.migrations)
    events = [entry.event for entry in observation.recording.entries]
    firsts = [event.first for event in events if isinstance(event, Connect)]
    ids = sorted(first.id for first in firsts if isinstance(first, Handshake))
    assert (ids, FileHeader() in firsts) == ([0, 1], True)
    recording = observation.recording
    destination, _ = assume(recording, parse_options(["device=none"]))
    run = drive(recording, destination)
    assert run.state.main.has_channel
    assert all(found is not None for found in run.state.receivers)


def test_blobs_are_joined() -> None:
    lost = Blob(4, ("main", 0), 1, (memoryview(b"abc"),))
    both = joined([lost, blob_of(b"xyz")])
    assert (both.length, both.missing, both.head(9)) == (7, 1, b"abc")
