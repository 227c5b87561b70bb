# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows by array against flows one record at a time: whatever the capture, the same."""

from __future__ import annotations

import gzip
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from mfdtool.errors import CaptureError
from mfdtool.packets import bulk_hop, pcap, pcapng_build
from mfdtool.packets.bulk_records import WINDOW
from mfdtool.packets.info import CaptureInfo, Format, Interface
from mfdtool.packets.ip import TcpHeader, tcp_packet
from mfdtool.packets.link import EtherType, LinkType, ethernet
from mfdtool.packets.pcapng import Reader
from mfdtool.packets.values import TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Endpoint, FlowKey
from mfdtool.stream import bulk, connections, tcp
from mfdtool.stream.bulk import BulkStreams
from mfdtool.stream.connections import ScalarStreams
from mfdtool.stream.span import End, Gap, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mfdtool.packets.values import Record
    from mfdtool.stream.connections import Opened, StreamCounters

CAPTURES = sorted((Path(__file__).parents[2] / "captures").glob("*.pcap.gz"))

Part = tuple[object, ...]
"""A stretch of a stream: start, stop, and what became of it."""


@dataclass
class Outcome:
    """All that a capture's flows came to."""

    flows: dict[int, list[Part]]
    marks: dict[int, tuple[dict[int, int], int | None]]
    """After a record: how far each flow is, and the low watermark."""
    counters: StreamCounters
    problem: str


def outcome_of(
    streams: ScalarStreams | BulkStreams, windows: Iterator[connections.Window]
) -> Outcome:
    """Run to the end."""
    flows: defaultdict[int, list[Part]] = defaultdict(list)
    marks: dict[int, tuple[dict[int, int], int | None]] = {}
    positions: dict[int, int] = {}
    problem = ""
    before = 0
    try:
        for window in windows:
            for flow, event in window.events:
                add_event(flows[flow], event)
                if isinstance(event, Run | Gap):
                    positions[flow] = event.stop
                if isinstance(event, Run):
                    assert all(record > 0 for record in event.records)
            marks[window.last_record] = (dict(positions), window.low_watermark)
            assert window.last_record >= before
            before = window.last_record
    except CaptureError as error:
        problem = str(error)
    return Outcome(dict(flows), marks, streams.counters, problem)


def add_event(parts: list[Part], event: Opened | Run | Gap | End) -> None:
    """Add an event to a flow's parts, in as few parts as possible."""
    if isinstance(event, Run):
        starts = [int(start) for start in event.starts] + [event.stop]
        assert starts[0] == event.start
        columns = zip(event.offsets, event.records, event.times, strict=True)
        for index, (offset, record, time_ns) in enumerate(columns):
            start, stop = starts[index], starts[index + 1]
            add_part(parts, start, stop, ("at", int(offset) - start, int(record), int(time_ns)))
    elif isinstance(event, Gap):
        add_part(parts, event.start, event.stop, (event.reason,))
    else:
        parts.append((event,))


def add_part(parts: list[Part], start: int, stop: int, what: Part) -> None:
    """Add a stretch, as one with the last if it continues it."""
    assert start < stop
    if parts and parts[-1][1:] == (start, what):
        parts[-1] = (parts[-1][0], stop, what)
    else:
        assert len(parts[-1]) == 1 or parts[-1][1] == start
        parts.append((start, stop, what))


def assert_same(
    buffer: memoryview, records: Callable[[], Iterable[Record]], window: int
) -> Outcome:
    """Compare both ways over one capture; give the scalar outcome."""
    scalar = ScalarStreams(buffer, records())
    expected = outcome_of(scalar, scalar.windows(every=1))
    streams = BulkStreams(buffer, window=window)
    found = outcome_of(streams, streams.windows())
    assert found.flows == expected.flows
    assert found.counters == expected.counters
    assert found.problem == expected.problem
    for record, mark in found.marks.items():
        if record:
            assert mark == expected.marks[record]
    return expected


# Random captures


class Talk:
    """Makes one direction of a random connection, segment by segment."""

    def __init__(self, random: Random, flow: FlowKey, *, size: int) -> None:
        self.random = random
        self.flow = flow
        self.size = size
        self.isn = random.choice((0, 0xFFFF_FFF0, 0x7FFF_FFF0, random.getrandbits(32)))
        self.content = random.randbytes(size)
        self.tidy = random.random() < 0.5
        self.acknowledged = 0

    def packet(
        self, start: int, stop: int, flags: int = TCP_ACK, *, sequence: int | None = None
    ) -> bytes:
        """Make a packet with the content's bytes ``start`` to ``stop``."""
        sequence = self.isn + 1 + start if sequence is None else sequence
        header = TcpHeader(self.flow, sequence, self.acknowledged, flags)
        return tcp_packet(header, self.content[start:stop])

    def packets(self) -> list[tuple[int, bytes]]:
        """Make all packets, as (position reached, packet)."""
        random = self.random
        made: list[tuple[int, bytes]] = []
        if random.random() < 0.7:
            made.append((0, self.packet(0, 0, TCP_SYN, sequence=self.isn)))
        start = 0
        while start < self.size:
            stop = min(self.size, start + random.randint(1, 60))
            made.append((stop, self.packet(start, stop)))
            if not self.tidy and random.random() < 0.2:
                low = random.randrange(self.size)
                made.append((stop, self.packet(low, min(self.size, low + random.randint(0, 90)))))
            if not self.tidy and random.random() < 0.1:
                made.pop(random.randrange(len(made)))
            if not self.tidy and random.random() < 0.2 and len(made) > 2:
                made.insert(random.randrange(len(made) - 2, len(made)), made.pop())
            start = stop
        ending = random.random()
        if ending < 0.5:
            made.append((self.size, self.packet(self.size, self.size, TCP_FIN | TCP_ACK)))
        elif ending < 0.65:
            made.append((self.size, self.packet(self.size, self.size, TCP_RST)))
        return made


def random_packets(random: Random, *, size: int) -> list[bytes]:
    """Mix some connections, and what else is on a wire."""
    talks: list[list[bytes]] = []
    for _ in range(random.randint(1, 5)):
        address = random.choice((4, 16))
        client = Endpoint(bytes(address - 1) + b"\1", random.randint(1, 3))
        server = Endpoint(bytes(address - 1) + b"\2", 4444)
        ahead = Talk(random, FlowKey(client, server), size=random.randint(1, size))
        back = Talk(random, ahead.flow.reversed(), size=random.choice((1, 1, size // 4)))
        packets: list[bytes] = []
        for reached, packet in ahead.packets():
            packets.append(packet)
            back.acknowledged = ahead.isn + 1 + reached
            if random.random() < 0.4:
                packets.append(back.packet(0, 0))
        answers = [packet for _, packet in back.packets()]
        talks.append(merge(random, [packets, answers]))
    return merge(random, talks)


def merge(random: Random, lists: list[list[bytes]]) -> list[bytes]:
    """Interleave lists, in bursts."""
    rest = [list(reversed(items)) for items in lists if items]
    merged: list[bytes] = []
    while rest:
        items = random.choice(rest)
        for _ in range(min(random.randint(1, 20), len(items))):
            merged.append(items.pop())
        rest = [items for items in rest if items]
    return merged


def noise(random: Random) -> bytes:
    """Make something that is no plain segment."""
    flow = FlowKey(Endpoint(b"\0\0\0\1", 1), Endpoint(b"\0\0\0\2", 4444))
    packet = bytearray(tcp_packet(TcpHeader(flow, random.getrandbits(32)), b"noise" * 3))
    kind = random.randrange(4)
    if kind == 0:
        packet[9] = 17
    elif kind == 1:
        packet[6] |= 0x20
    elif kind == 2:
        packet[0] = 0x46
    else:
        packet[12:16] = random.randbytes(4)
    return bytes(packet)


def write_capture(random: Random, packets: list[bytes], *, pcapng: bool) -> bytes:
    """Write Ethernet frames, some of them cut, with noise between them."""
    parts: list[bytes] = []
    if pcapng:
        parts.append(pcapng_build.section_header(application="test"))
        for linktype in (LinkType.ETHERNET, LinkType.RAW):
            parts.append(pcapng_build.interface_description(Interface(0, linktype)))
    else:
        parts.append(pcap.file_header(linktype=LinkType.ETHERNET))
    cutting = random.random() < 0.3
    noisy = random.random() < 0.5
    time_ns = 1_700_000_000 * 10**9
    for packet in packets:
        time_ns += random.randint(0, 10**6)
        chosen = [packet, noise(random)] if noisy and random.random() < 0.05 else [packet]
        for each in chosen:
            version = EtherType.IPV4 if each[0] >> 4 == 4 else EtherType.IPV6
            vlans = [(EtherType.VLAN, 7)] if random.random() < 0.05 else []
            raw = pcapng and random.random() < 0.2
            frame = each if raw else ethernet(each, ethertype=version, vlans=vlans)
            whole = len(frame)
            if cutting and random.random() < 0.2:
                frame = frame[: random.randint(max(0, whole - 40), whole)]
            if pcapng:
                comments = ["a comment"] if random.random() < 0.05 else []
                parts.append(
                    pcapng_build.enhanced_packet(
                        frame, ticks=time_ns, original=whole, comments=comments, interface=int(raw)
                    )
                )
            else:
                parts.append(pcap.record(frame, time_ns=time_ns, original=whole))
    return b"".join(parts)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let arrays take the smallest stretches, and everything happen in small captures."""
    monkeypatch.setattr(bulk, "_FEW", 2)
    monkeypatch.setattr(bulk, "_SMALL_CHUNK", 2)
    monkeypatch.setattr(bulk, "_LARGE_CHUNK", 5)
    for module in (bulk, connections):
        monkeypatch.setattr(module, "SWEEP_RECORDS", 64)
    monkeypatch.setattr(tcp, "HELD_BYTES", 800)
    monkeypatch.setattr(tcp, "HELD_PIECES", 12)
    monkeypatch.setattr(tcp, "SETTLED_BYTES", 200)
    monkeypatch.setattr(tcp, "EARLY_SEGMENTS", 3)
    monkeypatch.setattr(tcp, "FAR", 1 << 13)
    monkeypatch.setattr(bulk_hop, "_WALKER_BYTES", 700)
    monkeypatch.setattr(bulk_hop, "_GUESS_BYTES", 300)
    monkeypatch.setattr(bulk_hop, "_FEW_WALKERS", 2)
    monkeypatch.setattr(bulk_hop, "_SAMPLE", 3)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("seed", range(120))
def test_random_captures(seed: int) -> None:
    random = Random(seed)
    is_pcapng = seed % 3 == 0
    file = write_capture(random, random_packets(random, size=4000), pcapng=is_pcapng)
    if random.random() < 0.2:
        file = file[: random.randrange(len(file) // 2, len(file))]
    buffer = memoryview(file)
    window = random.choice((1, 100, 700, 3000, 20_000, 1 << 24))
    outcome = assert_same(
        buffer, lambda: Reader(buffer) if is_pcapng else pcap.read(buffer), window
    )
    assert outcome.counters.records > 0


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("window", [*range(1, 400, 37), 1000, 5000])
def test_every_window_size(window: int) -> None:
    random = Random(4711)
    buffer = memoryview(write_capture(random, random_packets(random, size=2500), pcapng=False))
    assert_same(buffer, lambda: pcap.read(buffer), window)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name.partition(".")[0])
@pytest.mark.parametrize("window", [1, 30_000, WINDOW])
def test_real_captures(path: Path, window: int) -> None:
    buffer = memoryview(gzip.decompress(path.read_bytes()))
    outcome = assert_same(buffer, lambda: pcap.read(buffer), window)
    assert outcome.counters.segments == outcome.counters.records > 20


def cut_frames(file: bytes, limit: int) -> bytes:
    """Rewrite a capture as if frames had been cut to ``limit`` bytes."""
    buffer = memoryview(file)
    parts = [pcap.file_header(linktype=LinkType.ETHERNET)]
    for record in pcap.read(buffer):
        stop = record.offset + min(record.captured, limit)
        frame = buffer[record.offset : stop]
        parts.append(pcap.record(frame, time_ns=record.time_ns, original=record.original))
    return b"".join(parts)


def test_frames_cut_to_65535_bytes_lose_14_each() -> None:
    path = next(path for path in CAPTURES if "holes" in path.name)
    buffer = memoryview(cut_frames(gzip.decompress(path.read_bytes()), 65_535))
    outcome = assert_same(buffer, lambda: pcap.read(buffer), WINDOW)
    gaps = [part for part in outcome.flows[4] if part[-1] == ("not captured",)]
    assert [int(str(stop)) - int(str(start)) for start, stop, _ in gaps] == [14, 14, 14]
    assert outcome.counters.flows[4].not_captured == 42
    assert outcome.counters.flows[4].delivered == 510_848 - 42


FLOW = FlowKey(Endpoint(b"\x0a\0\0\x01", 1), Endpoint(b"\x0a\0\0\x02", 4444))


def write_raw(packets: Iterable[bytes]) -> memoryview:
    """Write packets, a second apart."""
    parts = [pcap.file_header(linktype=LinkType.RAW)]
    parts += [
        pcap.record(packet, time_ns=index * 10**9) for index, packet in enumerate(packets, start=1)
    ]
    return memoryview(b"".join(parts))


def segments_of(flow: FlowKey, count: int, *, isn: int = 0, size: int = 10) -> list[bytes]:
    """Make a SYN and some segments in order."""
    packets = [tcp_packet(TcpHeader(flow, isn, flags=TCP_SYN))]
    for index in range(count):
        packets.append(tcp_packet(TcpHeader(flow, isn + 1 + size * index), bytes(size)))
    return packets


def test_what_is_in_order_becomes_one_run_of_many_pieces() -> None:
    buffer = write_raw(segments_of(FLOW, 500, isn=0xFFFF_FF00))
    (window, last) = BulkStreams(buffer).windows()
    run = window.events[-1].event
    assert isinstance(run, Run)
    assert (run.start, run.stop) == (0, 5000)
    assert list(run.starts) == list(range(0, 5000, 10))
    assert list(run.records) == list(range(2, 502))
    assert list(run.times) == [record * 10**9 for record in range(2, 502)]
    record_size = 16 + 40 + 10
    first = 24 + 56 + 16 + 40
    assert list(run.offsets) == list(range(first, first + 500 * record_size, record_size))
    assert [event.event.__class__ for event in last.events] == [End]


def test_one_loss_leaves_runs_on_both_sides() -> None:
    packets = segments_of(FLOW, 500)
    packets.insert(310, packets.pop(300))
    buffer = write_raw(packets)
    (window, _) = BulkStreams(buffer).windows()
    runs = [event for _, event in window.events if isinstance(event, Run)]
    assert [(run.start, run.stop) for run in runs] == [(0, 2990), (2990, 3100), (3100, 5000)]
    assert list(runs[1].records) == [311] * 11
    assert_same(buffer, lambda: pcap.read(buffer), 1 << 20)


def test_windows_are_released_after_use() -> None:
    buffer = write_raw(segments_of(FLOW, 300))
    released: list[tuple[int, int]] = []
    streams = BulkStreams(buffer, window=5000, release=lambda *span: released.append(span))
    for number, _ in enumerate(streams.windows()):
        assert len(released) == number
    assert released[0][0] == 24
    assert released[-1][1] == len(buffer)
    assert all(stop == start for (_, stop), (start, _) in pairwise(released))


def test_info_and_errors() -> None:
    info = CaptureInfo()
    buffer = write_raw(segments_of(FLOW, 3))
    assert len(list(BulkStreams(buffer, info=info).windows())) == 2
    assert info.format is Format.PCAP
    with pytest.raises(CaptureError, match=r"^some\.pcap, offset 0: this is not a pcap file"):
        next(BulkStreams(memoryview(b"QEVM" * 9), path="some.pcap").windows())


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("kind", ["syn", "new", "ended", "unattached"])
def test_hostile_repetition(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What makes arrays stop is met at every second segment; it stays right, and is not slow."""
    packets: list[bytes] = segments_of(FLOW, 1)
    closed = FlowKey(Endpoint(b"\x0a\0\0\x03", 1), FLOW.destination)
    for index in range(400):
        other = FlowKey(Endpoint(b"\x0a\0\0\x03", 1 + index), FLOW.destination)
        odd = {
            "syn": tcp_packet(TcpHeader(other, 1, flags=TCP_SYN)),
            "new": tcp_packet(TcpHeader(other, 1), b"x"),
            "ended": tcp_packet(TcpHeader(closed, 1), b"x"),
            "unattached": tcp_packet(TcpHeader(other, 1)),
        }
        packets += [odd[kind], tcp_packet(TcpHeader(FLOW, 11 + 10 * index), bytes(10))]
        if kind == "ended" and index == 5:
            packets.append(tcp_packet(TcpHeader(closed, 1, flags=TCP_FIN)))
    buffer = write_raw(packets)
    stretches = 0
    original = bulk._Stretch.passable

    def passable(stretch: bulk._Stretch) -> int:
        nonlocal stretches
        stretches += 1
        return original(stretch)

    monkeypatch.setattr(bulk._Stretch, "passable", passable)
    assert_same(buffer, lambda: pcap.read(buffer), 1 << 24)
    assert stretches < 40


def test_a_connection_to_itself() -> None:
    flow = FlowKey(FLOW.source, FLOW.source)
    buffer = write_raw(segments_of(flow, 200))
    outcome = assert_same(buffer, lambda: pcap.read(buffer), 1 << 24)
    assert outcome.counters.flows[0].delivered == 2000
