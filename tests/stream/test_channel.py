# SPDX-License-Identifier: GPL-2.0-or-later
"""What a connection carries, told by its first bytes, or by what is found in it later."""

from __future__ import annotations

import pytest

from mfdtool.packets.values import Endpoint, FlowKey
from mfdtool.stream import channel as channel_module
from mfdtool.stream.channel import ChannelKind, Stream, Unidentified, classify
from mfdtool.stream.connections import Opening
from mfdtool.stream.frames import ChannelId, Kind
from mfdtool.stream.reader import Reader
from mfdtool.stream.span import End, EndReason, Gap, run_of
from tests.support.streams import SETUP, device_packet, handshake, main_start, part, start

ADDRESS = bytes([10, 0, 0, 1])
CLIENT, SERVER = Endpoint(ADDRESS, 40_000), Endpoint(ADDRESS, 4444)
PAGE = bytes.fromhex("0000000000001008 06") + b"pc.ram"
TLS = bytes.fromhex("160301 0200 01")


def stream_of(
    data: bytes, opening: Opening = Opening.SYN, *, key: FlowKey | None = None, end: bool = False
) -> Stream:
    stream = Stream(0, key or FlowKey(CLIENT, SERVER), opening, 1, 10, Reader())
    stream.feed(run_of(data, record=1, time_ns=10))
    if end:
        stream.feed(End(len(data), EndReason.FIN, 2, 20))
    return stream


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (main_start(), ChannelKind.MAIN),
        (handshake(), ChannelKind.MULTIFD),
        (TLS, ChannelKind.TLS),
        (PAGE, ChannelKind.PREEMPT),
        (b"GET / HTTP/1.1\r\n", ChannelKind.UNKNOWN),
    ],
)
def test_first_bytes(data: bytes, kind: ChannelKind) -> None:
    assert classify(stream_of(data), None) is kind
    for length in range(1, 4):
        assert classify(stream_of(data[:length]), None) is None


def test_connection_that_ends_too_soon() -> None:
    for length in range(1, 8):
        assert classify(stream_of(PAGE[:length], end=True), None) is ChannelKind.UNKNOWN
    assert classify(stream_of(PAGE[:7]), None) is None


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        (ChannelKind.MAIN, ChannelKind.RETURN_PATH),
        (ChannelKind.MULTIFD, ChannelKind.UNKNOWN),
        (ChannelKind.PREEMPT, ChannelKind.UNKNOWN),
    ],
)
def test_answers(other: ChannelKind, kind: ChannelKind) -> None:
    assert classify(stream_of(b"\0", Opening.SYN_ACK), other) is kind


def test_answer_to_nothing_known() -> None:
    pong = bytes.fromhex("0002000400000001")
    assert classify(stream_of(pong, Opening.SYN_ACK), None) is None
    # Its main stream may be identified later, even if the answer has ended already.
    assert classify(stream_of(pong, Opening.SYN_ACK, end=True), None) is None
    other = ChannelKind.UNKNOWN
    assert classify(stream_of(pong, Opening.SYN_ACK), other) is ChannelKind.UNKNOWN


def test_middle_of_a_multifd_channel() -> None:
    data = device_packet()[50:] + device_packet()
    stream = stream_of(data[:300], Opening.MIDDLE)
    assert classify(stream, None) is None
    assert 0 < stream.searched_packet <= 300
    stream.feed(run_of(data[300:], start=300))
    assert classify(stream, None) is ChannelKind.MULTIFD


def test_middle_of_a_main_stream() -> None:
    data = start(0x21, "0000:00:05.0/vfio", SETUP)[10:]
    stream = stream_of(data, Opening.MIDDLE)
    assert classify(stream, None) is None
    stream.feed(run_of(start(2, "ram", b""), start=len(data)))
    assert classify(stream, None) is ChannelKind.MAIN


def test_middle_of_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert classify(stream_of(bytes(1000), Opening.MIDDLE), None) is None
    assert classify(stream_of(bytes(1000), Opening.MIDDLE, end=True), None) is None
    monkeypatch.setattr(channel_module, "SEARCH_LIMIT", 999)
    assert classify(stream_of(bytes(1000), Opening.MIDDLE), None) is ChannelKind.UNKNOWN


def test_first_bytes_that_the_capture_lacks() -> None:
    packet = device_packet()
    stream = Stream(0, FlowKey(CLIENT, SERVER), Opening.SYN, 1, 10, Reader())
    stream.feed(Gap(0, 64, "segment missing"))
    stream.feed(run_of(packet[:100], start=64))
    assert classify(stream, None) is None
    stream.feed(run_of(packet[100:], start=164))
    assert classify(stream, None) is ChannelKind.MULTIFD


def test_part_of_a_section_does_not_show_what_it_is() -> None:
    data = part(7, b"body") + part(7, b"body")
    assert classify(stream_of(data, Opening.MIDDLE), None) is None
    data += b"\x55"
    assert classify(stream_of(data, Opening.MIDDLE, end=True), None) is None


@pytest.mark.parametrize(
    ("opening", "reverse", "towards"),
    [
        (Opening.SYN, False, True),
        (Opening.SYN_ACK, False, False),
        (Opening.MIDDLE, False, True),
        (Opening.MIDDLE, True, False),
    ],
)
def test_direction(*, opening: Opening, reverse: bool, towards: bool) -> None:
    key = FlowKey(SERVER, CLIENT) if reverse else FlowKey(CLIENT, SERVER)
    assert stream_of(b"x", opening, key=key).is_towards_server is towards


def test_stream_that_came_as_a_file() -> None:
    stream = Stream(0, None, Opening.SYN, 0, -1, Reader())
    assert stream.is_towards_server
    assert stream.server is None
    assert stream.length == 0


def test_what_a_stream_counts() -> None:
    stream = stream_of(b"abc")
    stream.feed(Gap(3, 8, "segment missing"))
    stream.feed(run_of(b"d", start=8, record=5, time_ns=5))
    assert (stream.length, stream.gap_bytes, stream.last_time_ns) == (9, 5, 10)
    assert stream.server == SERVER
    assert stream.end is None


def test_stream_that_cannot_be_cut() -> None:
    stream = stream_of(b"abc")
    generator = Unidentified(stream, ChannelId(0, "tls-0"), "TLS").frames()
    assert next(generator) is None
    stream.feed(Gap(3, 8, "segment missing"))
    stream.feed(run_of(b"d", start=8, record=5, time_ns=50))
    assert next(generator) is None
    stream.feed(End(9, EndReason.FIN, 6, 60))
    frame, gap = generator
    assert frame is not None
    assert gap is not None
    assert (frame.kind, frame.offset, frame.length, frame.missing) == (Kind.UNDECODED, 0, 9, 5)
    assert (frame.time_first, frame.time_last, frame.record) == (10, 50, 6)
    assert (gap.kind, gap.offset, gap.length) == (Kind.GAP, 3, 5)
