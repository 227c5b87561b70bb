# SPDX-License-Identifier: GPL-2.0-or-later
"""A device's state and config, put together from packets in any order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from random import Random

import pytest

from mfdtool.stream.channel import Channel, ChannelKind, Stream, Unidentified
from mfdtool.stream.connections import Opening
from mfdtool.stream.device_data import ConfigExtractor, DeviceExtractor
from mfdtool.stream.extraction import Extractor, Hole
from mfdtool.stream.frames import ChannelId, Frame, Kind, Section
from mfdtool.stream.migration import Migration
from mfdtool.stream.reader import Reader
from mfdtool.stream.span import Span
from mfdtool.wire.vfio import wrap_config
from tests.support.made_frames import DEVICE, Maker

CONFIG = wrap_config(b"config space")


class MemorySpool:
    """A spool for tests."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.cleared = 0

    def put(self, views: Iterable[memoryview | bytes]) -> Span:
        start = len(self.data)
        for view in views:
            self.data += view
        return Span(start, len(self.data))

    def get(self, span: Span) -> Iterator[bytes]:
        yield bytes(self.data[span.start : span.stop])

    def clear(self) -> None:
        self.data.clear()
        self.cleared += 1


def take(
    extractor: Extractor, frames: Iterable[Frame], migration: Migration | None = None
) -> list[bytes | Hole]:
    """Run an extractor; give its pieces, bytes between holes joined."""
    pieces = [piece for frame in frames for piece in extractor.add(frame)]
    pieces += extractor.finish(migration)
    joined: list[bytes | Hole] = []
    for piece in pieces:
        if isinstance(piece, Hole):
            joined.append(piece)
        elif joined and isinstance(joined[-1], bytes):
            joined[-1] += bytes(piece)
        else:
            joined.append(bytes(piece))
    return joined


def device(name: str = DEVICE, spool: MemorySpool | None = None) -> DeviceExtractor:
    return DeviceExtractor(0, name, spool or MemorySpool())


def precopy(make: Maker) -> list[Frame]:
    return [
        make.section(Kind.MAIN_SECTION_PART),
        make.data(b"<pre1>"),
        make.section(Kind.MAIN_SECTION_PART),
        make.data(b"<pre2>"),
        make.switchover(),
    ]


def test_packets_wait_for_precopy_data_behind_an_early_device() -> None:
    make = Maker()
    early = make.section(Kind.MAIN_SECTION_FULL, Section(1, "virtio-mem-device-early", 0, 1))
    packets = [make.packet(0, b"[0]"), make.packet(1, CONFIG, config=True)]
    assert take(device(), [early, *packets, *precopy(make)]) == [b"<pre1><pre2>[0]"]


@pytest.mark.parametrize("name", [DEVICE, "0000:00:05.0", "00:05.0"])
def test_in_order(name: str) -> None:
    make, spool = Maker(), MemorySpool()
    extractor = device(name, spool)
    frames = [
        *precopy(make),
        make.packet(0, b"a"),
        make.packet(1, b"", channel="multifd-1"),
        make.packet(2, b"c"),
        make.packet(3, CONFIG, config=True),
    ]
    assert take(extractor, frames) == [b"<pre1><pre2>ac"]
    assert not extractor.remarks.problems
    assert not spool.cleared


@pytest.mark.parametrize("seed", range(20))
def test_any_order_gives_the_same(seed: int) -> None:
    make, spool, random = Maker(), MemorySpool(), Random(seed)
    parts = [random.randbytes(random.randrange(4)) for _ in range(30)]
    packets = [make.packet(idx, data) for idx, data in enumerate(parts)]
    packets.append(make.packet(len(parts), CONFIG, config=True))
    random.shuffle(packets)
    extractor = device(spool=spool)
    assert take(extractor, [*precopy(make), *packets]) == [b"<pre1><pre2>" + b"".join(parts)]
    assert not extractor.remarks.problems
    assert not spool.data


def test_packets_wait_for_the_switchover() -> None:
    make = Maker()
    early = [make.packet(0, b"a"), make.packet(1, CONFIG, config=True)]
    assert take(device(), early + precopy(make)) == [b"<pre1><pre2>a"]


def test_over_main() -> None:
    make, extractor = Maker(), device()
    frames = [*precopy(make), make.section(Kind.MAIN_SECTION_END), make.data(b"stop")]
    assert take(extractor, frames) == [b"<pre1><pre2>stop"]
    assert not extractor.remarks.problems


def test_nothing_after_the_switchover() -> None:
    make, extractor = Maker(), device()
    assert take(extractor, [*precopy(make), make.section(Kind.MAIN_SECTION_END)]) == [
        b"<pre1><pre2>"
    ]
    assert extractor.remarks.notes == [
        "no data after the switchover, neither on main nor over multifd"
    ]
    assert not extractor.remarks.problems


def test_main_data_beside_packets() -> None:
    make, extractor = Maker(), device()
    frames = [
        make.switchover(),
        make.packet(0, b"a"),
        make.section(Kind.MAIN_SECTION_END),
        make.data(b"end"),
        make.packet(1, CONFIG, config=True),
    ]
    assert take(extractor, frames) == [b"aend"]
    assert extractor.remarks.problems == [
        "main #2: 3 bytes of data besides multifd packets, written where they arrived"
    ]


def test_missing_idx() -> None:
    make, extractor = Maker(), device()
    frames = [
        make.switchover(),
        make.packet(0, b"a"),
        make.packet(2, b"c"),
        make.packet(3, b"d"),
        make.packet(7, CONFIG, config=True),
    ]
    assert take(extractor, frames) == [b"a", Hole("idx 1", None), b"cd", Hole("idx 4-6", None)]
    assert not extractor.remarks.problems


def test_missing_bytes() -> None:
    make = Maker()
    frames = [
        make.switchover(),
        make.packet(1, b"0123456789", hole=Span(2, 5)),
        make.packet(0, b"abc", hole=Span(2, 3)),
        make.packet(2, CONFIG, config=True),
    ]
    assert take(device(), frames) == [
        b"ab",
        Hole("idx 0 (multifd-0 #1): bytes 2-2", 1),
        b"01",
        Hole("idx 1 (multifd-0 #0): bytes 2-4", 3),
        b"56789",
    ]


def test_duplicates() -> None:
    make, extractor = Maker(), device()
    frames = [
        make.switchover(),
        make.packet(0, b"a"),
        make.packet(0, b"a"),
        make.packet(0, b"b"),
        make.packet(0, b"a", hole=Span(0, 1)),
        make.packet(2, b"c"),
        make.packet(2, b"d"),
        make.packet(1, b"-"),
        make.packet(3, CONFIG, config=True),
    ]
    assert take(extractor, frames) == [b"a-c"]
    assert extractor.remarks.notes == ["idx 0 (multifd-0 #1) came again: the same bytes"]
    assert extractor.remarks.problems == [
        "idx 0 (multifd-0 #2) came again: other bytes; the first copy was taken",
        "idx 0 (multifd-0 #3) came again: bytes are missing, so nobody can compare;"
        " the first copy was taken",
        "idx 2 (multifd-0 #5) came again: other bytes; the first copy was taken",
    ]


def test_oddities() -> None:
    make, extractor = Maker(), device()
    frames = [
        make.switchover(),
        make.packet(0, b"a"),
        make.headless(),
        make.packet(2, CONFIG, config=True),
        make.packet(1, CONFIG, config=True),
        make.packet(1, b"as config"),
        make.packet(0xFFFFFFFF, b"far"),
        make.packet(0, CONFIG, config=True),
        make.packet(1, CONFIG, config=True),
        make.packet(0, b"other", instance_id=3),
    ]
    assert take(extractor, frames) == [b"a"]
    assert extractor.remarks.problems == [
        "multifd-0 #1: the VFIO header is missing, a packet is left out",
        "multifd-0 #3: a second config packet, idx 1",
        "multifd-0 #4: data has idx 1, as the config has",
        "multifd-0 #6: a second config packet, idx 0",
        "multifd-0 #6: the config has idx 0, as data has",
        "multifd-0 #7: a second config packet, idx 1",
        "left out: idx 4294967295 and all others behind the config's, 1; packets: 1",
    ]
    assert extractor.remarks.notes == [
        f"{DEVICE} instance 3 is left out, this is {DEVICE} instance 0"
    ]


def stream(*, has_start: bool) -> Migration:
    reader = Reader()
    main = Stream(0, None, Opening.MIDDLE, 1, 1, reader, kind=ChannelKind.MAIN)
    framer = Unidentified(main, ChannelId(0, "main"), "")
    migration = Migration(0, None)
    migration.channels.append(Channel(ChannelKind.MAIN, main, framer, framer.frames(), has_start))
    return migration


def test_what_nobody_can_know() -> None:
    make, extractor = Maker(), device()
    frames = [make.switchover(), make.packet(0, b"a")]
    assert take(extractor, frames, stream(has_start=False)) == [b"a"]
    assert extractor.remarks.problems == [
        "no config packet: data may have followed idx 0",
        "main began before the capture: precopy data may be missing",
    ]
    extractor = device()
    take(extractor, [make.data(b"x")], stream(has_start=True))
    assert extractor.remarks.problems == ["the END section is not captured: data may have followed"]
    extractor = device()
    take(extractor, [make.headless()])
    assert "data may have followed the packets that are there" in extractor.remarks.problems[-1]


def test_lost_pieces_of_main() -> None:
    make, extractor = Maker(), device()
    frames = [
        make.section(Kind.MAIN_SECTION_PART),
        make.gap(10),
        make.frame(Kind.UNDECODED, b"?" * 5),
        make.section(Kind.MAIN_SECTION_END),
    ]
    take(extractor, frames)
    assert extractor.remarks.problems == [
        "main: bytes 5-14 are missing or undecoded, device data may have been there",
        "main: bytes 15-19 are missing or undecoded, device data may have been there",
    ]


def test_other_device() -> None:
    make, extractor = Maker(), device("00:07.0")
    assert take(extractor, [*precopy(make), make.packet(0, idstr="0000:00:06.0/vfio")]) == []
    assert not extractor.found
    assert extractor.wanted() == (
        "no state of a device 00:07.0; there are 0000:00:05.0/vfio, 0000:00:06.0/vfio"
    )


@pytest.mark.parametrize(("with_markers", "expected"), [(False, b"config space"), (True, CONFIG)])
def test_config(*, with_markers: bool, expected: bytes) -> None:
    make = Maker()
    for frames in (
        [make.packet(0, b"data"), make.packet(1, CONFIG, config=True)],
        [make.data(b"data"), make.config(b"config space")],
    ):
        extractor = ConfigExtractor(0, DEVICE, with_markers=with_markers)
        assert take(extractor, frames) == [expected]
        assert not extractor.remarks.problems


def test_config_with_a_hole() -> None:
    make, extractor = Maker(), ConfigExtractor(0, DEVICE)
    packet = make.packet(1, CONFIG, config=True, hole=Span(10, 13))
    assert take(extractor, [packet]) == [
        b"co",
        Hole("config (multifd-0 #0): bytes 2-4", 3),
        b"g space",
    ]


@pytest.mark.parametrize("length", range(len(CONFIG)))
def test_config_without_markers(length: int) -> None:
    extractor = ConfigExtractor(0, DEVICE)
    assert take(extractor, [Maker().packet(0, CONFIG[:length], config=True)]) == []
    assert (
        "the markers around the config are not as they should be" in (extractor.remarks.problems[0])
    )
    extractor = ConfigExtractor(0, DEVICE, with_markers=True)
    raw = take(extractor, [Maker().packet(0, CONFIG[:length], config=True)])
    assert raw == ([CONFIG[:length]] if length else [])


def test_no_config_and_two() -> None:
    make, extractor = Maker(), ConfigExtractor(0, DEVICE)
    assert take(extractor, [make.packet(0, b"data"), make.headless(), make.switchover()]) == []
    assert extractor.remarks.problems == ["no config was captured"]
    extractor = ConfigExtractor(0, DEVICE)
    configs = [make.packet(1, CONFIG, config=True), make.config(b"other")]
    assert take(extractor, configs) == [b"config space"]
    assert extractor.remarks.problems == ["main #1: another config, the first one was taken"]
