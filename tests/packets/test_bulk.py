# SPDX-License-Identifier: GPL-2.0-or-later
"""Segments by array against `segment_of`, one record at a time: whatever the frames, the same."""

from __future__ import annotations

from collections import Counter
from random import Random
from struct import pack
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mfdtool.packets import bulk, pcap
from mfdtool.packets.bulk import HEAD, SegmentReader
from mfdtool.packets.bulk_records import RecordColumns, read
from mfdtool.packets.ip import TcpHeader, segment_of, tcp_packet
from mfdtool.packets.link import EtherType, LinkType, Skip, ethernet
from mfdtool.packets.values import TCP_ACK, Endpoint, FlowKey, Record, Segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

IPV4_FLOW = FlowKey(Endpoint(b"\x0a\0\0\x01", 40_000), Endpoint(b"\x0a\0\0\x02", 4444))
IPV6_FLOW = FlowKey(Endpoint(bytes(15) + b"\1", 40_000), Endpoint(bytes(15) + b"\2", 4444))
OPTIONS = bytes.fromhex("0101080a0000000000000000")

LINKS: dict[int, Callable[[bytes, int], bytes]] = {
    LinkType.ETHERNET: lambda packet, kind: ethernet(packet, ethertype=kind),
    LinkType.LINUX_SLL: lambda packet, kind: bytes(14) + pack(">H", kind) + packet,
    LinkType.LINUX_SLL2: lambda packet, kind: pack(">H", kind) + bytes(18) + packet,
    LinkType.NULL: lambda packet, kind: pack("<I", 2 if kind == 0x800 else 30) + packet,
    LinkType.LOOP: lambda packet, kind: pack(">I", 2 if kind == 0x800 else 24) + packet,
    LinkType.RAW: lambda packet, _: packet,
    LinkType.RAW_BSD: lambda packet, _: packet,
    LinkType.IPV4: lambda packet, _: packet,
    147: lambda packet, _: packet,
}


def columns_of(frames: Iterable[tuple[int, bytes, int]]) -> tuple[memoryview, RecordColumns]:
    """Put frames, given as (link type, bytes, bytes cut off), into a buffer one after another."""
    parts: list[bytes] = []
    rows: list[tuple[int, int, int, int, int]] = []
    offset = 0
    for index, (linktype, frame, cut) in enumerate(frames):
        rows.append((index * 7, linktype, offset, len(frame), len(frame) + cut))
        parts.append(frame)
        offset += len(frame)
    table = np.array(rows, dtype=np.int64).reshape(-1, 5).T
    return memoryview(b"".join(parts)), RecordColumns(11, 0, offset, *table)


def read_both(frames: list[tuple[int, bytes, int]]) -> tuple[list[Segment | None], int]:
    """Read frames both ways, compare, and give the result and how many went one by one."""
    buffer, columns = columns_of(frames)
    expected = [segment_of(columns.record(index), buffer) for index in range(len(columns))]
    reader = SegmentReader(buffer)
    one_by_one: list[int] = []

    def counted(record: Record, buffer: memoryview) -> Segment | Skip:
        one_by_one.append(record.number)
        return segment_of(record, buffer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bulk, "segment_of", counted)
        found = reader.read(columns)
    assert [found.segment(index) for index in range(len(found))] == [
        item for item in expected if isinstance(item, Segment)
    ]
    assert reader.skipped == Counter(item for item in expected if isinstance(item, Skip))
    assert len(set(found.flows)) == len(found.flows)
    return [item if isinstance(item, Segment) else None for item in expected], len(one_by_one)


@pytest.mark.parametrize("linktype", LINKS)
@pytest.mark.parametrize("flow", [IPV4_FLOW, IPV6_FLOW], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("options", [b"", OPTIONS], ids=["plain", "options"])
def test_every_link_and_every_cut(linktype: int, flow: FlowKey, options: bytes) -> None:
    header = TcpHeader(flow, 0xFFFF_FFF0, 77, TCP_ACK, options=options)
    kind = EtherType.IPV4 if flow is IPV4_FLOW else EtherType.IPV6
    frame = LINKS[linktype](tcp_packet(header, b"payload"), kind)
    lengths = range(len(frame) + 1)
    frames = [(linktype, frame[:length], len(frame) - length) for length in lengths]
    # Something behind them, so that arrays are not in doubt about the end of the file.
    frames.append((linktype, bytes(HEAD), 0))
    segments, one_by_one = read_both(frames)
    whole = segments[len(frame)]
    if linktype == 147:
        assert whole is None
        return
    assert whole is not None
    assert (whole.flow, whole.sequence, whole.length) == (flow, 0xFFFF_FFF0, 7)
    assert (whole.captured, whole.record) == (7, 11 + len(frame))
    # What has the whole fixed TCP header is taken by arrays.
    assert one_by_one == len(frame) - 7 - len(options) + 1


@pytest.mark.parametrize("flow", [IPV4_FLOW, IPV6_FLOW], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("vlans", [1, 2])
def test_vlan_tags(flow: FlowKey, vlans: int) -> None:
    kind = EtherType.IPV4 if flow is IPV4_FLOW else EtherType.IPV6
    tags = [(EtherType.QINQ, 5), (EtherType.VLAN, 7)][-vlans:]
    frame = ethernet(tcp_packet(TcpHeader(flow, 1), b"x"), ethertype=kind, vlans=tags)
    plain = ethernet(tcp_packet(TcpHeader(flow, 2), b"y"), ethertype=kind)
    segments, one_by_one = read_both([(1, frame, 0), (1, plain, 0), (1, frame + bytes(HEAD), 0)])
    assert [segment.sequence for segment in segments if segment] == [1, 2, 1]
    assert one_by_one == (0 if vlans == 1 else 2)


def test_ethernet_padding_is_no_payload() -> None:
    frame = ethernet(tcp_packet(TcpHeader(IPV4_FLOW, 1)), ethertype=EtherType.IPV4)
    segments, one_by_one = read_both([(1, frame.ljust(60, b"\0"), 0), (1, bytes(HEAD), 0)])
    assert segments[0] is not None
    assert segments[0].length == 0
    assert one_by_one == 1


@pytest.mark.parametrize("seed", range(40))
def test_random_frames(seed: int) -> None:
    random = Random(seed)
    frames: list[tuple[int, bytes, int]] = []
    for _ in range(random.choice((1, 20, 150))):
        flow = random.choice((IPV4_FLOW, IPV6_FLOW))
        flow = flow._replace(source=flow.source._replace(port=random.randrange(4)))
        header = TcpHeader(
            flow,
            random.getrandbits(32),
            random.getrandbits(32),
            random.getrandbits(8),
            options=random.choice((b"", OPTIONS)),
        )
        packet = bytearray(tcp_packet(header, random.randbytes(random.randrange(80))))
        if random.random() < 0.4:
            packet[random.randrange(min(60, len(packet)))] = random.choice((0, 6, 17, 0x45, 0xFF))
        linktype = random.choice(list(LINKS)) if seed % 2 else LinkType.ETHERNET
        kind = random.choice((0x0800, 0x86DD)) if random.random() < 0.1 else None
        kind = kind or (0x0800 if flow.source.address == IPV4_FLOW.source.address else 0x86DD)
        frame = LINKS[linktype](bytes(packet), kind)
        length = random.randrange(len(frame)) if random.random() < 0.2 else len(frame)
        frames.append((linktype, frame[:length], len(frame) - length))
    read_both(frames)


def test_many_flows_in_one_window() -> None:
    frames: list[tuple[int, bytes, int]] = []
    for index in range(3000):
        source = Endpoint(b"\x0a\0" + index.to_bytes(2, "big"), 1 + index % 7)
        flow = FlowKey(source, IPV4_FLOW.destination)
        flow = flow if index % 2 else flow.reversed()
        frames += [
            (LinkType.RAW, tcp_packet(TcpHeader(flow, index + step), b"x"), 0) for step in (0, 1)
        ]
    buffer, columns = columns_of(frames)
    found = SegmentReader(buffer).read(columns)
    assert len(found.flows) == 3000
    assert [found.segment(index).sequence for index in range(6000)] == [
        index + step for index in range(3000) for step in (0, 1)
    ]


def test_flows_that_fall_together_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "_MULTIPLIERS", (0,))
    monkeypatch.setattr(bulk, "_MAX_KEYS", 2)
    frames: list[tuple[int, bytes, int]] = []
    for index in range(60):
        source = IPV4_FLOW.source._replace(port=1 + index % 3)
        packet = tcp_packet(TcpHeader(FlowKey(source, IPV4_FLOW.destination), index), b"x" * HEAD)
        frames.append((LinkType.RAW, packet, 0))
    segments, one_by_one = read_both(frames)
    assert [segment.flow.source.port for segment in segments if segment] == [1, 2, 3] * 20
    assert one_by_one == 0


def test_no_records() -> None:
    _, columns = columns_of([])
    assert len(SegmentReader(memoryview(b"")).read(columns)) == 0


@pytest.mark.parametrize("name", ["mtty-2dev-2ch-holes", "mtty-8ch-ipv6"])
def test_real_captures(name: str, real_capture: Callable[[str], memoryview]) -> None:
    buffer = real_capture(name)
    reader = SegmentReader(buffer)
    found = [
        segments.segment(index)
        for columns in read(buffer, window=50_000)
        for segments in [reader.read(columns)]
        for index in range(len(segments))
    ]
    assert found == [segment_of(record, buffer) for record in pcap.read(buffer)]
    assert not reader.skipped
