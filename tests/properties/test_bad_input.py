# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever the bytes are: no exception, no hang, and every byte accounted for.

Each test prints the seed of the stream that broke it; the same seed makes the same stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from random import Random

import pytest

from mfdtool.errors import CaptureError
from mfdtool.packets import pcap
from mfdtool.stream.frames import ChannelId, Frame, Framer, Kind
from mfdtool.stream.main import MainFramer
from mfdtool.stream.migration import Decoder
from mfdtool.stream.multifd import MultiFDFramer
from mfdtool.stream.ram import PreemptFramer
from mfdtool.stream.reader import Reader
from mfdtool.stream.return_path import ReturnPathFramer
from mfdtool.stream.span import EndReason
from tests.support.captures import decode, decoded, load, records
from tests.support.framing import Hole, assert_accounts, run, stretches
from tests.support.streams import RAM_EOS, counted, word

CAPTURE = "mtty-dst-lacks-device"
STREAMS = ("main", "multifd-0", "preempt", "return-path")
CHANNEL = ChannelId(0, "any")
SEEDS = range(12)
"""Each seed makes a few dozen streams."""

EDGES = (0, 1, 2, 3, 4, 8, 0x10, 0x40, 0x7E, 0x7F, 0x80, 0xFF)
"""Bytes that mean something somewhere."""


@cache
def stream(name: str) -> bytes:
    """Give a real stream; one made by hand where the captures have none."""
    if name == "preempt":
        zero = word(0x02, 0x1000) + counted("pc.ram") + b"\0"
        return zero + (word(0x22, 0x2000) + b"\0") * 40 + RAM_EOS
    if name == "return-path":
        return bytes.fromhex("0002000400000001 00070000 0001000400000000") * 20
    frames = [frame for frame in decoded(CAPTURE)[1] if frame.channel.name == name]
    data = b"".join(frame.data() for frame in frames)
    # The main stream's first part and its end; what lies between is as long as a ROM.
    return data[:2500] + data[-1200:] if name == "main" else data[:9000]


def framers(name: str) -> list[Callable[[Reader], Framer]]:
    """Give the ways to cut a stream of that name."""
    if name == "main":
        return [
            lambda reader: MainFramer(reader, CHANNEL),
            lambda reader: MainFramer(reader, CHANNEL, from_start=False),
        ]
    if name == "preempt":
        return [lambda reader: PreemptFramer(reader, CHANNEL)]
    if name == "return-path":
        return [lambda reader: ReturnPathFramer(reader, CHANNEL)]
    return [
        lambda reader: MultiFDFramer(reader, CHANNEL),
        lambda reader: MultiFDFramer(reader, CHANNEL, from_start=False, page_size=4096),
    ]


def damaged(data: bytes, random: Random) -> bytes:
    """Flip, overwrite, delete, repeat, insert or cut off some bytes."""
    broken = bytearray(data)
    for _ in range(random.randint(1, 5)):
        at = random.randrange(len(broken) + 1)
        match random.randrange(6):
            case 0:
                broken[at : at + 1] = bytes([random.randrange(256)])
            case 1:
                broken[at : at + 4] = bytes(random.choices(EDGES, k=4))
            case 2:
                del broken[at : at + random.choice((1, 4, 8, 100))]
            case 3:
                broken[at:at] = random.randbytes(random.randint(1, 40))
            case 4:
                broken[at:at] = broken[at : at + random.randint(1, 400)]
            case _:
                del broken[max(at, len(broken) // 2) :]
    return bytes(broken)


def holes(size: int, random: Random) -> Iterator[Hole]:
    """Choose gaps that do not touch each other."""
    position = 0
    for _ in range(random.randint(0, 3)):
        begin = position + random.randint(0, size // 2)
        end = begin + random.choice((1, 2, 14, 100))
        if end <= size:
            yield Hole(begin, end)
            position = end + 1


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_damaged_streams(name: str, seed: int) -> None:
    random = Random(f"{name} {seed}")
    for _ in range(10):
        data = damaged(stream(name), random)
        lost = list(holes(len(data), random))
        cuts = random.sample(range(len(data) + 1), min(len(data), random.randint(0, 9)))
        reason = random.choice(list(EndReason))
        for make in framers(name):
            frames = run(make, stretches(data, cuts, holes=lost), reason=reason)
            assert_accounts(frames, data, holes=lost)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_garbage(name: str, seed: int) -> None:
    random = Random(f"garbage {name} {seed}")
    for _ in range(10):
        size = random.randint(0, 600)
        data = bytes(random.choices(EDGES, k=size)) if seed % 2 else random.randbytes(size)
        data = random.choice((b"", stream(name)[: random.randint(0, 300)])) + data
        for make in framers(name):
            assert_accounts(run(make, stretches(data)), data)


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("other", STREAMS)
def test_stream_of_another_kind(name: str, other: str) -> None:
    for make in framers(name):
        assert_accounts(run(make, stretches(stream(other))), stream(other))


def accounts_for(decoder: Decoder, frames: list[Frame]) -> None:
    """Demand that a capture's frames cover each channel's stream."""
    for migration in decoder.migrations:
        for channel in migration.channels:
            own = [frame for frame in frames if frame.channel == channel.framer.channel]
            solid = [frame for frame in own if frame.kind is not Kind.GAP]
            position = 0
            for frame in solid:
                assert frame.offset >= position
                position = min(frame.end, channel.stream.length)
            covered = sum(min(frame.end, channel.stream.length) - frame.offset for frame in solid)
            missing = sum(frame.length for frame in own if frame.kind is Kind.GAP)
            assert missing <= channel.stream.gap_bytes
            assert covered + channel.stream.gap_bytes >= channel.stream.length


@pytest.mark.parametrize("seed", range(12))
def test_damaged_captures(seed: int) -> None:
    """Bits flipped anywhere: in payload, in TCP and IP headers, in the capture's own records."""
    random = Random(seed)
    buffer = bytearray(load(CAPTURE)[:150_000])
    del buffer[random.randrange(100_000, 150_000) :]
    for _ in range(random.randint(1, 40)):
        at = random.randrange(24, len(buffer))
        buffer[at] ^= 1 << random.randrange(8)
    view = memoryview(bytes(buffer))
    found = []
    with suppress(CaptureError):
        for record in pcap.read(view):
            found.append(record)
    decoder, frames = decode(view, found)
    accounts_for(decoder, frames)


@pytest.mark.parametrize("seed", range(8))
def test_captures_with_lost_repeated_and_reordered_records(seed: int) -> None:
    random = Random(seed)
    chosen = []
    for record in records(CAPTURE)[: random.randint(50, 600)]:
        chosen += [record] * random.choices((0, 1, 2), (1, 20, 1))[0]
    for _ in range(20):
        at = random.randrange(len(chosen) - 1)
        chosen[at], chosen[at + 1] = chosen[at + 1], chosen[at]
    numbered = [replace(record, number=number) for number, record in enumerate(chosen, 1)]
    decoder, frames = decode(load(CAPTURE), numbered)
    accounts_for(decoder, frames)
    packets = [frame for frame in frames if frame.kind is Kind.MULTIFD_RAM]
    assert all(frame.record <= len(numbered) for frame in packets)
