# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections become migrations: in any order, several at once, cut off at either end."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from mfdtool.packets.ip import segment_of
from mfdtool.packets.values import Endpoint, FlowKey, Segment
from mfdtool.stream import migration as migration_module
from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.connections import FlowEvent, Opened, Opening, Window
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.migration import Decoder
from mfdtool.stream.span import EndReason, run_of
from mfdtool.wire.constants import Command, VFIOMarker
from mfdtool.wire.vmdesc import VmDescription
from tests.support.captures import NAMES, decode, decoded, load, records
from tests.support.script import CLIENT, SERVER, Script
from tests.support.streams import (
    END_OF_STATE,
    EOF,
    RAM_EOS,
    SETUP,
    command,
    counted,
    device_packet,
    footer,
    full,
    handshake,
    main_start,
    marker,
    mem_size,
    part,
    start,
    sync_packet,
    word,
)

OTHER = Endpoint(SERVER.address, 5555)
CONFIG_START = part(0x21, marker(VFIOMarker.DEV_CONFIG_STATE, b"config"))[:-5]
CONFIG_END = END_OF_STATE + footer(0x21)
PONG = bytes.fromhex("0002000400000001")
MAIN = main_start() + start(0x21, "0000:00:05.0/vfio", SETUP)
CHANNEL = sync_packet() + device_packet()
TLS = bytes.fromhex("1603010200010001fc0303")
PAGE = word(0x02, 0x1000) + counted("pc.ram") + b"\0"
UUID = bytes(range(16))


def names(decoder: Decoder) -> list[list[str]]:
    """Give the channels' names of each migration."""
    return [[channel.name for channel in migration.channels] for migration in decoder.migrations]


def play(script: Script, *, every: int = 1) -> tuple[Decoder, list[Frame]]:
    decoder = Decoder()
    return decoder, script.play(decoder, every=every)


def assert_in_order(frames: list[Frame]) -> None:
    """Demand the order of arrival, which what was lost has not."""
    known = [frame for frame in frames if frame.kind not in {Kind.GAP, Kind.UNDECODED}]
    assert all(before.record <= after.record for before, after in pairwise(known))


# Which connections belong together


@pytest.mark.parametrize("order", ["main first", "main last", "main between"])
@pytest.mark.parametrize("every", [1, 3, 1000])
def test_connections_in_any_order(order: str, every: int) -> None:
    openings = [handshake(2), handshake(0), MAIN]
    openings = {
        "main first": openings[::-1],
        "main last": openings,
        "main between": [openings[0], openings[2], openings[1]],
    }[order]
    script = Script()
    flows = [script.connect(data=data) for data in openings]
    for flow, opening in zip(flows, openings, strict=True):
        script.send(flow, EOF if opening is MAIN else CHANNEL, pieces=7)
    decoder, frames = play(script, every=every)
    expected = ["main" if opening is MAIN else f"multifd-{opening[24]}" for opening in openings]
    assert names(decoder) == [expected]
    assert_in_order(frames)
    assert decoder.migrations[0].server == SERVER
    assert decoder.migrations[0].uuid == bytes(16)
    counted_kinds = Counter(frame.kind for frame in frames)
    assert counted_kinds[Kind.MULTIFD_DEVICE_STATE] == 2
    assert counted_kinds[Kind.MULTIFD_SYNC] == 2
    assert counted_kinds[Kind.MAIN_EOF] == 1
    assert not counted_kinds[Kind.UNDECODED]


def test_return_path() -> None:
    script = Script()
    main = script.connect(data=MAIN)
    script.answer(main, PONG)
    decoder, frames = play(script)
    assert names(decoder) == [["main", "return-path"]]
    assert frames[-1].kind is Kind.RETURN_PATH_MESSAGE


def test_answer_that_was_seen_first() -> None:
    script = Script()
    main = script.connect()
    script.answer(main, PONG)
    script.send(main, MAIN)
    decoder, _ = play(script)
    assert names(decoder) == [["main", "return-path"]]


def test_duplicate_and_missing_channel_ids() -> None:
    script = Script()
    for _ in range(2):
        script.connect(data=handshake(1) + CHANNEL)
    lost = script.connect()
    script.lose(lost, 64)
    script.send(lost, CHANNEL)
    decoder, frames = play(script)
    assert names(decoder) == [["multifd-1", "multifd-?0", "multifd-?1"]]
    assert [channel.has_start for channel in decoder.migrations[0].channels] == [True, True, False]
    assert len({(frame.channel, frame.number) for frame in frames if frame.number is not None}) == (
        len([frame for frame in frames if frame.number is not None])
    )


def test_first_bytes_tell_that_a_channel_is_there_from_its_start() -> None:
    script = Script()
    script.connect(opening=Opening.MIDDLE, data=MAIN)
    script.connect(opening=Opening.MIDDLE, data=handshake(0) + CHANNEL)
    script.connect(opening=Opening.MIDDLE, data=CHANNEL)
    decoder, _ = play(script)
    starts = {channel.name: channel.has_start for channel in decoder.migrations[0].channels}
    assert starts == {"main": True, "multifd-0": True, "multifd-?0": False}


def test_connections_of_nobody() -> None:
    script = Script()
    script.connect(OTHER, data=b"GET / HTTP/1.1\r\n")
    script.connect(OTHER)
    decoder, frames = play(script)
    assert (decoder.migrations, frames) == ([], [])
    assert [stream.length for stream in decoder.others] == [16]


def test_unknown_connection_to_a_migration_is_shown() -> None:
    script = Script()
    unknown = script.connect(data=b"what is this?")
    script.lose(unknown, 3)
    script.connect(data=MAIN)
    script.connect(OTHER, data=b"something else")
    decoder, frames = play(script)
    assert names(decoder) == [["main", "unknown-0"]]
    assert [stream.length for stream in decoder.others] == [14]
    (gap,) = [frame for frame in frames if frame.kind is Kind.GAP]
    (undecoded,) = [frame for frame in frames if frame.kind is Kind.UNDECODED]
    assert (undecoded.kind, undecoded.channel.name) == (Kind.UNDECODED, "unknown-0")
    assert (undecoded.length, undecoded.missing) == (16, 3)
    assert undecoded.reason == "not a known protocol"
    assert (gap.kind, gap.offset, gap.length) == (Kind.GAP, 13, 3)


def test_answer_on_a_multifd_channel_is_nothing_known() -> None:
    script = Script()
    flow = script.connect(data=handshake() + CHANNEL)
    script.answer(flow, b"hello")
    decoder, _ = play(script)
    assert names(decoder) == [["multifd-0"]]
    assert [stream.length for stream in decoder.others] == [5]


def test_tls_only() -> None:
    script = Script()
    for _ in range(3):
        flow = script.connect(data=TLS)
        script.answer(flow, TLS)
    script.connect(OTHER, data=TLS)
    decoder, frames = play(script)
    assert names(decoder) == [["tls-0", "tls-1", "tls-2"], ["tls-0"]]
    assert {frame.reason for frame in frames} == {"TLS: encrypted, cannot be decoded"}
    assert sum(frame.length for frame in frames) == 4 * len(TLS)


def test_tls_beside_a_migration() -> None:
    script = Script()
    script.connect(data=TLS)
    script.connect(OTHER, data=TLS)
    script.connect(data=MAIN + EOF)
    decoder, _ = play(script)
    assert names(decoder) == [["main", "tls-0"]]
    assert [stream.kind for stream in decoder.others] == [ChannelKind.TLS]


def test_preempt_channel() -> None:
    script = Script()
    script.connect(data=MAIN)
    script.connect(data=PAGE * 2)
    decoder, frames = play(script)
    assert names(decoder) == [["main", "preempt"]]
    assert [frame.kind for frame in frames[-2:]] == [Kind.RAM_RECORD] * 2


def test_page_records_before_any_migration_are_nobodys() -> None:
    script = Script()
    script.connect(data=PAGE)
    script.connect(OTHER, data=MAIN)
    decoder, _ = play(script)
    assert names(decoder) == [["main"]]
    assert [stream.kind for stream in decoder.others] == [ChannelKind.PREEMPT]


# Several migrations


def test_one_after_the_other_on_the_same_port() -> None:
    script = Script()
    for number in range(2):
        flows = [script.connect(data=MAIN), script.connect(data=handshake(number) + CHANNEL)]
        for flow in flows:
            script.close(flow)
    decoder, frames = play(script)
    assert names(decoder) == [["main", "multifd-0"], ["main", "multifd-1"]]
    assert {frame.channel.migration for frame in frames} == {0, 1}


def test_two_ports_at_once() -> None:
    script = Script()
    for server in (SERVER, OTHER):
        script.connect(server, data=MAIN)
    for server in (OTHER, SERVER):
        script.connect(server, data=handshake() + CHANNEL)
    decoder, _ = play(script, every=100)
    assert names(decoder) == [["main", "multifd-0"]] * 2
    assert [migration.server for migration in decoder.migrations] == [SERVER, OTHER]


def test_second_main_stream_or_another_uuid_begin_a_migration() -> None:
    script = Script()
    script.connect(data=MAIN)
    script.connect(data=MAIN)
    script.connect(data=handshake(0, uuid=UUID))
    script.connect(data=handshake(1, uuid=UUID))
    script.connect(data=handshake(0, uuid=UUID[::-1]))
    decoder, _ = play(script)
    assert names(decoder) == [["main"], ["main", "multifd-0", "multifd-1"], ["multifd-0"]]
    assert [migration.uuid for migration in decoder.migrations] == [None, UUID, UUID[::-1]]
    second = decoder.migrations[1]
    assert second.count(ChannelKind.MULTIFD) == 2
    assert second.first(ChannelKind.RETURN_PATH) is None


def test_streams_that_came_as_files() -> None:
    decoder = Decoder()
    decoder.add(ChannelKind.MAIN, run_of(MAIN + EOF))
    decoder.add(ChannelKind.MULTIFD, run_of(handshake(3) + CHANNEL))
    decoder.add(ChannelKind.MULTIFD, run_of(CHANNEL))
    frames = decoder.finish()
    assert names(decoder) == [["main", "multifd-3", "multifd-?0"]]
    assert decoder.migrations[0].server is None
    assert not [frame for frame in frames if frame.kind is Kind.UNDECODED]
    assert {frame.record for frame in frames} == {0}


def test_what_the_streams_do_not_tell_may_be_given() -> None:
    description = VmDescription(page_size=4096, configuration=None, devices=())
    decoder = Decoder(page_size=65536, description=description)
    decoder.add(ChannelKind.MAIN, run_of(MAIN + command(11) + full(5, "timer", b"body") + EOF))
    decoder.add(ChannelKind.MULTIFD, run_of(handshake() + sync_packet(page_size=65536)))
    frames = decoder.finish()
    (sync,) = [frame for frame in frames if frame.kind is Kind.MULTIFD_SYNC]
    assert sync.length == 384
    assert [frame.length for frame in frames if frame.kind is Kind.MAIN_OPAQUE] == [4]


# The order of frames


def test_frames_wait_for_an_earlier_one_that_is_not_final() -> None:
    """Device state of the main stream is cut when its end is known; others must not overtake."""
    script = Script()
    main = script.connect(data=MAIN + command(Command.SWITCHOVER_START))
    script.send(main, full(5, "timer", b"body"), pieces=3)
    script.connect(data=handshake() + CHANNEL)
    script.send(main, EOF)
    script.close(main)
    _, frames = play(script)
    assert_in_order(frames)
    kinds = [frame.kind for frame in frames]
    assert kinds.index(Kind.MAIN_OPAQUE) < kinds.index(Kind.MULTIFD_DEVICE_STATE)


@pytest.mark.parametrize(
    ("before", "behind", "kind"),
    [
        (CONFIG_START, CONFIG_END, "vfio.marker"),
        (part(7, b"who knows")[:-5], footer(7) + EOF, "main.opaque"),
        (part(7, b"who knows"), EOF, "main.opaque"),
        (part(2, mem_size(("r", 1024, b"")))[:-5], RAM_EOS + footer(2), "ram.record"),
    ],
)
def test_frames_that_end_where_what_follows_begins(before: bytes, behind: bytes, kind: str) -> None:
    script = Script()
    main = script.connect(data=MAIN + before)
    other = script.connect(data=handshake() + device_packet())
    script.send(main, behind)
    script.send(other, device_packet(1))
    _, frames = play(script)
    assert_in_order(frames)
    kinds = [frame.kind for frame in frames if frame.record > 1]
    assert kind in kinds
    assert Kind.UNDECODED not in kinds


def test_configuration_that_ends_where_what_follows_begins() -> None:
    script = Script()
    main = script.connect(data=main_start())
    script.connect(data=handshake())
    script.send(main, EOF)
    _, frames = play(script)
    assert [frame.kind for frame in frames] == [
        Kind.MAIN_HEADER,
        Kind.MAIN_CONFIGURATION,
        Kind.MULTIFD_INIT,
        Kind.MAIN_EOF,
    ]


def test_a_watermark_holds_frames_back() -> None:
    decoder = Decoder()
    opened = Opened(FlowKey(CLIENT, SERVER), Opening.SYN, 1, 1)
    data = handshake() + device_packet()
    events = (FlowEvent(0, opened), FlowEvent(0, run_of(data, record=5, time_ns=5)))
    assert decoder.feed(Window(events, 9, 5)) == []
    assert [frame.record for frame in decoder.feed(Window((), 10, 6))] == [5, 5]


def test_waiting_is_given_up_when_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migration_module, "HELD_FRAMES", 5)
    script = Script()
    main = script.connect(data=MAIN + command(Command.SWITCHOVER_START))
    script.send(main, full(5, "timer", b"body") + command(Command.SWITCHOVER_START))
    other = script.connect(data=handshake())
    for _ in range(20):
        script.send(other, device_packet())
    script.send(main, EOF)
    decoder, frames = play(script)
    assert_in_order(frames)
    assert len(decoder.migrations) == 1
    assert Counter(frame.kind for frame in frames)[Kind.MULTIFD_DEVICE_STATE] == 20


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("every", [1, 7, 100_000])
def test_real_captures_in_windows_of_any_size(name: str, every: int) -> None:
    _, frames = decode(load(name), records(name), every=every)
    assert sorted(frames, key=_place) == sorted(decoded(name)[1], key=_place)
    assert_in_order(frames)


def _place(frame: Frame) -> tuple[str, int, str]:
    return frame.channel.name, frame.offset, frame.kind


# Parts of real captures


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("skipped", [1, 7, 23, 60, 150, 300])
def test_capture_that_begins_too_late(name: str, skipped: int) -> None:
    """What can be told apart is; device packets behind the cut are all there."""
    whole = decoded(name)[1]
    decoder, frames = decode(load(name), records(name)[skipped:])
    expected = Counter(
        frame.value
        for frame in whole
        if frame.kind is Kind.MULTIFD_DEVICE_STATE and frame.record > skipped + 40
    )
    found = Counter(frame.value for frame in frames if frame.kind is Kind.MULTIFD_DEVICE_STATE)
    assert expected <= found
    for migration in decoder.migrations:
        for channel in migration.channels:
            own = [frame for frame in frames if frame.channel == channel.framer.channel]
            solid = [frame for frame in own if frame.kind is not Kind.GAP]
            there = sum(frame.length - frame.missing for frame in solid)
            assert there == channel.stream.length - channel.stream.gap_bytes


@pytest.mark.parametrize("name", NAMES)
def test_capture_that_ends_too_early(name: str) -> None:
    random = Random(name)
    whole = decoded(name)[1]
    for _ in range(3):
        kept = random.randrange(1, len(records(name)))
        _, frames = decode(load(name), records(name)[:kept])
        packets = {Kind.MULTIFD_INIT, Kind.MULTIFD_SYNC, Kind.MULTIFD_DEVICE_STATE}
        early = [frame for frame in whole if frame.record <= kept and frame.kind in packets]
        assert [frame for frame in frames if frame.kind in packets and frame.complete] == early


@pytest.mark.parametrize("name", NAMES)
def test_capture_of_one_side_only(name: str) -> None:
    buffer = load(name)
    segments = ((record, segment_of(record, buffer)) for record in records(name))
    chosen = [
        record
        for record, segment in segments
        if isinstance(segment, Segment) and segment.flow.destination.port == 4444
    ]
    assert 0 < len(chosen) < len(records(name))
    decoder, frames = decode(buffer, chosen)
    assert len(decoder.migrations) == 1
    devices = [frame.value for frame in frames if frame.kind is Kind.MULTIFD_DEVICE_STATE]
    whole = [frame.value for frame in decoded(name)[1] if frame.kind is Kind.MULTIFD_DEVICE_STATE]
    assert devices == whole


def test_streams_without_an_end() -> None:
    """A live recording may be decoded while it goes on."""
    decoder = Decoder()
    answer = Opened(FlowKey(SERVER, CLIENT), Opening.SYN_ACK, 1, 1)
    events = (FlowEvent(0, answer), FlowEvent(0, run_of(PONG, record=2, time_ns=2)))
    assert decoder.feed(Window(events, 2, None)) == []
    assert decoder.finish() == []
    assert [stream.kind for stream in decoder.others] == [ChannelKind.UNKNOWN]


def test_connection_that_ends_without_a_byte() -> None:
    script = Script()
    flow = script.connect()
    script.close(flow, EndReason.RST)
    decoder, frames = play(script)
    assert (decoder.migrations, decoder.others, frames) == ([], [], [])


def test_one_wrong_uuid_is_a_fault_of_the_migration() -> None:
    script = Script()
    script.connect(data=handshake(0, uuid=UUID))
    script.connect(data=handshake(1, uuid=UUID[::-1]))
    script.connect(data=handshake(2, uuid=UUID))
    decoder, _ = play(script)
    (migration,) = decoder.migrations
    assert migration.uuid == UUID
    assert [channel.name for channel in migration.channels] == [
        "multifd-0",
        "multifd-1",
        "multifd-2",
    ]
