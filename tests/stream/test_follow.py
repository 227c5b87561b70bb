# SPDX-License-Identifier: GPL-2.0-or-later
"""A channel followed as it passes agrees with the framer that reads all of it."""

from __future__ import annotations

from random import Random
from typing import Final

import pytest

from mfdtool.fixtures.assemble import assemble
from mfdtool.fixtures.generate import random_migration
from mfdtool.fixtures.plan import Device, Plan
from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.follow import REST, Follower, Part
from mfdtool.stream.frames import ChannelId, Frame, Kind
from mfdtool.stream.multifd import MultiFDFramer
from mfdtool.stream.reader import Reader
from mfdtool.stream.redaction import hidden_span
from mfdtool.stream.span import End, EndReason, run_of
from mfdtool.wire.multifd import (
    MultiFDInit,
    MultiFDPacketDeviceState,
    MultiFDPacketFixed,
    page_count_for,
    ram_packet_size,
)

PLAN: Final = Plan(channels=2, devices=[Device(buffers=[b"secret" * 50, b"y", b"x"])])
STREAM: Final = assemble(PLAN).stream("multifd-0")


def frames_of(stream: bytes) -> list[Frame]:
    reader = Reader()
    reader.feed(run_of(stream))
    reader.feed(End(len(stream), EndReason.FIN, 0, -1))
    framer = MultiFDFramer(reader, ChannelId(0, "multifd-0"))
    return [frame for frame in framer.frames() if frame is not None]


def expected_parts(stream: bytes) -> list[Part]:
    """What a redacted recording may have, told by the framer."""
    parts = []
    for frame in frames_of(stream):
        hidden = hidden_span(frame)
        shown = frame.end if hidden is None else hidden.start
        parts.append(Part(stream[frame.offset : shown], 0))
        if hidden is not None:
            parts.append(Part(b"", hidden.size))
    return parts


def merged(parts: list[Part]) -> list[Part]:
    """Join neighbours of a kind: how a stream came in pieces must not matter."""
    result: list[Part] = []
    for part in parts:
        if result and bool(result[-1].unseen) == bool(part.unseen):
            last = result.pop()
            part = Part(last.data + part.data, last.unseen + part.unseen)
        result.append(part)
    return result


def followed(stream: bytes, size: int) -> tuple[Follower, list[Part]]:
    follower = Follower()
    for at in range(0, len(stream), size):
        follower.follow(stream[at : at + size])
    return follower, follower.take_parts(all_of_it=True)


@pytest.mark.parametrize("size", [1, 3, 12, 288, 1000, len(STREAM)])
def test_parts_are_those_of_the_framer(size: int) -> None:
    follower, parts = followed(STREAM, size)
    assert merged(parts) == merged(expected_parts(STREAM))
    assert follower.kind is ChannelKind.MULTIFD
    assert follower.channel_id == 0
    assert follower.device_packets == sum(
        frame.kind is Kind.MULTIFD_DEVICE_STATE for frame in frames_of(STREAM)
    )
    assert not any(b"secret" in part.data for part in parts)


def test_every_cut_accounts_for_every_byte() -> None:
    for stop in range(len(STREAM)):
        _, parts = followed(STREAM[:stop], 64)
        assert sum(len(part.data) + part.unseen for part in parts) == stop
        data = b"".join(part.data or bytes(part.unseen) for part in parts)
        assert all(ours in (theirs, 0) for ours, theirs in zip(data, STREAM, strict=False))


def test_exact_reads_never_ask_for_payload() -> None:
    follower = Follower()
    at = 0
    seen = bytearray()
    while at < len(STREAM):
        if follower.payload:
            count = min(follower.payload, 7, len(STREAM) - at)
            follower.skip(count)
        else:
            count = min(follower.wanted, len(STREAM) - at)
            seen += STREAM[at : at + count]
            follower.feed(STREAM[at : at + count])
        at += count
    assert b"secret" not in seen
    assert merged(follower.take_parts(all_of_it=True)) == merged(expected_parts(STREAM))


@pytest.mark.parametrize("seed", range(20))
def test_random_migrations(seed: int) -> None:
    migration = random_migration(Random(seed))
    for channel in migration.connections:
        if channel.startswith("multifd"):
            stream = migration.stream(channel)
            _, parts = followed(stream, 4096)
            assert merged(parts) == merged(expected_parts(stream))


@pytest.mark.parametrize("page_size", [4096, 8192, 16384, 65536])
def test_the_length_of_ram_packets_is_learned(page_size: int) -> None:
    length = ram_packet_size(page_count_for(page_size))
    sync = MultiFDPacketFixed(flags=1, packet_num=1).build().ljust(length, b"\0")
    device = MultiFDPacketDeviceState(idstr=b"d".ljust(256, b"\0"), next_packet_size=100).build()
    stream = MultiFDInit(id=3).build() + sync + device + bytes(100) + sync
    follower, parts = followed(stream, 50)
    assert (follower.ram_packets, follower.device_packets) == (2, 1)
    assert merged(parts) == [
        Part(stream[: 64 + length + 288], 0),
        Part(b"", 88),
        Part(sync, 0),
    ]


def test_a_payload_too_short_for_its_header() -> None:
    device = MultiFDPacketDeviceState(idstr=b"d".ljust(256, b"\0"), next_packet_size=5).build()
    stream = MultiFDInit(id=0).build() + device + b"abcde" + device + b"fghij" + bytes(12)
    follower, parts = followed(stream, 11)
    assert follower.device_packets == 2
    assert [part.unseen for part in parts] == [0, 0, 5, 0, 5, 12]


@pytest.mark.parametrize(
    ("start", "kind", "shown"),
    [
        (b"QEVM", ChannelKind.MAIN, b"QEVM"),
        (b"\x16\x03\x01\x02", ChannelKind.TLS, b"\x16\x03\x01\x02"),
        (b"GET ", ChannelKind.UNKNOWN, b""),
    ],
)
def test_other_channels_have_no_headers(start: bytes, kind: ChannelKind, shown: bytes) -> None:
    follower, parts = followed(start + b"rest", 2)
    assert (follower.kind, follower.payload) == (kind, REST)
    assert b"".join(part.data for part in parts) == shown
    assert sum(part.unseen for part in parts) == 8 - len(shown)


def test_after_nonsense_nothing_is_shown() -> None:
    stream = MultiFDInit(id=0).build() + b"nonsense" * 100
    follower, parts = followed(stream, 100)
    assert parts == [Part(stream[:64], 0), Part(b"", 800)]
    assert follower.payload == REST


def test_more_than_comes_is_refused() -> None:
    follower = Follower()
    with pytest.raises(ValueError, match="5 bytes of a header, 4 were wanted"):
        follower.feed(bytes(5))
    with pytest.raises(ValueError, match="1 bytes of payload, 0 come"):
        follower.skip(1)
