# SPDX-License-Identifier: GPL-2.0-or-later
"""Which segment belongs to which connection, and what is said about it."""

from __future__ import annotations

import gzip
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mfdtool.errors import CaptureError
from mfdtool.packets import pcap
from mfdtool.packets.ip import TcpHeader, tcp_packet
from mfdtool.packets.link import LinkType, Skip
from mfdtool.packets.values import TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Endpoint, FlowKey, Record
from mfdtool.stream import connections, tcp
from mfdtool.stream.connections import FlowEvent, Opened, Opening, ScalarStreams, reverse_flow
from mfdtool.stream.span import End, Gap, Run

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
CAPTURES = ROOT / "captures"
CLIENT = Endpoint(b"\xc0\0\x02\x01", 40_000)
SERVER = Endpoint(b"\xc0\0\x02\x02", 4444)
SAID = FlowKey(CLIENT, SERVER)
ANSWERED = SAID.reversed()


class Script:
    """Feeds segments one by one, and tells what each made final."""

    def __init__(self) -> None:
        self._number = 0
        self._file = bytearray(1 << 16)
        self._end = 0
        self.streams = ScalarStreams(memoryview(self._file), ())

    def feed(
        self,
        flow: FlowKey,
        sequence: int,
        payload: bytes = b"",
        *,
        flags: int = TCP_ACK,
        ack: int = 0,
    ) -> list[str]:
        """Feed a segment."""
        return tell(self.frame(tcp_packet(TcpHeader(flow, sequence, ack, flags), payload)))

    def frame(self, frame: bytes) -> list[FlowEvent]:
        """Feed a frame."""
        self._number += 1
        start = self._end
        self._end += len(frame)
        self._file[start : self._end] = frame
        record = Record(
            self._number, self._number * 10, LinkType.RAW, start, len(frame), len(frame)
        )
        return self.streams.feed(record)

    def finish(self) -> list[str]:
        """End the capture."""
        (window,) = self.streams.windows()
        return tell(window.events)


def tell(events: Iterable[FlowEvent]) -> list[str]:
    """Write events in short."""
    lines: list[str] = []
    for flow, event in events:
        if isinstance(event, Opened):
            lines.append(f"{flow} opened {event.opening.name} #{event.record}")
        elif isinstance(event, Run):
            lines.append(f"{flow} {event.start}-{event.stop} #{event.records[-1]}")
        elif isinstance(event, Gap):
            lines.append(f"{flow} {event.start}-{event.stop} {event.reason}")
        else:
            lines.append(f"{flow} end {event.position} {event.reason.name} #{event.record}")
    return lines


def connected() -> Script:
    """Begin with a handshake: records 1 to 3, sequence numbers 100 and 900."""
    script = Script()
    assert script.feed(SAID, 100, flags=TCP_SYN) == ["0 opened SYN #1"]
    assert script.feed(ANSWERED, 900, flags=TCP_SYN | TCP_ACK, ack=101) == ["1 opened SYN_ACK #2"]
    assert script.feed(SAID, 101, ack=901) == []
    return script


def test_a_whole_connection() -> None:
    script = connected()
    assert script.feed(SAID, 101, b"hello", ack=901) == ["0 0-5 #4"]
    assert script.feed(ANSWERED, 901, b"world!", ack=106) == ["1 0-6 #5"]
    assert script.feed(SAID, 106, b"bye", flags=TCP_FIN | TCP_ACK, ack=907) == [
        "0 5-8 #6",
        "0 end 8 FIN #6",
    ]
    assert script.feed(ANSWERED, 907, flags=TCP_FIN | TCP_ACK, ack=110) == ["1 end 6 FIN #7"]
    assert script.feed(SAID, 110, ack=908) == []
    assert script.finish() == []
    counters = script.streams.counters
    assert (counters.records, counters.segments, counters.unattached) == (8, 8, 0)
    assert [counters.flows[flow].delivered for flow in (0, 1)] == [8, 6]
    assert reverse_flow(0) == 1
    assert reverse_flow(1) == 0


def test_reset_ends_both_directions() -> None:
    script = connected()
    script.feed(SAID, 101, b"hello")
    assert script.feed(ANSWERED, 901, flags=TCP_RST) == ["1 end 0 RST #5", "0 end 5 RST #5"]
    assert script.feed(SAID, 106, b"in flight") == []
    assert script.streams.counters.flows[0].outside == 9


def test_ports_used_again_give_new_flows() -> None:
    script = connected()
    script.feed(SAID, 101, b"hello")
    script.feed(SAID, 106, flags=TCP_FIN | TCP_ACK)
    assert script.feed(SAID, 50_000, flags=TCP_SYN) == ["1 end 0 CAPTURE #2", "2 opened SYN #6"]
    assert script.feed(ANSWERED, 77, flags=TCP_SYN | TCP_ACK) == ["3 opened SYN_ACK #7"]
    assert script.feed(SAID, 50_001, b"again") == ["2 0-5 #8"]
    assert script.finish() == ["2 end 5 CAPTURE #8", "3 end 0 CAPTURE #7"]


def test_ports_used_again_far_away_without_an_end() -> None:
    script = connected()
    script.feed(SAID, 101, b"hello")
    assert script.feed(SAID, 1 << 30, flags=TCP_SYN) == [
        "0 end 5 CAPTURE #4",
        "1 end 0 CAPTURE #2",
        "2 opened SYN #5",
    ]


def test_the_other_side_connects_after_a_reset() -> None:
    script = Script()
    script.feed(SAID, 100, flags=TCP_SYN)
    reset = script.feed(ANSWERED, 0, flags=TCP_RST | TCP_ACK, ack=101)
    assert reset == ["0 end 0 RST #2"]
    assert script.feed(ANSWERED, 5, flags=TCP_SYN) == ["2 opened SYN #3"]


def test_payload_far_from_an_ended_stream_begins_a_connection() -> None:
    script = connected()
    script.feed(SAID, 101, flags=TCP_FIN)
    assert script.feed(SAID, 101 + 2 * tcp.FAR, b"hello") == ["1 end 0 CAPTURE #2"]
    assert script.finish() == ["2 opened MIDDLE #5", "2 0-5 #5", "2 end 5 CAPTURE #5"]


def test_a_capture_that_begins_in_the_middle() -> None:
    script = Script()
    assert script.feed(SAID, 100, ack=1) == []
    assert script.feed(SAID, 100, flags=TCP_RST) == []
    assert script.feed(SAID, 100, flags=TCP_FIN) == []
    assert script.streams.counters.unattached == 3
    assert script.feed(SAID, 105, b"later") == []
    assert script.feed(SAID, 100, b"early") == []
    assert script.finish() == ["0 opened MIDDLE #4", "0 0-10 #5", "0 end 10 CAPTURE #5"]


def test_acknowledgements_reach_the_other_direction() -> None:
    script = connected()
    script.feed(SAID, 101, b"hello", ack=901)
    script.feed(ANSWERED, 901, ack=131)
    assert script.finish() == [
        "0 5-30 segment missing",
        "0 end 30 CAPTURE #4",
        "1 end 0 CAPTURE #2",
    ]


def test_other_records_are_counted() -> None:
    script = Script()
    assert script.frame(b"\x00" * 40) == []
    packet = tcp_packet(TcpHeader(SAID, 1), b"x")
    assert script.frame(packet[:30]) == []
    udp = bytearray(packet)
    udp[9] = 17
    assert script.frame(bytes(udp)) == []
    assert script.streams.counters.skipped == {
        Skip.MALFORMED: 1,
        Skip.TRUNCATED: 1,
        Skip.NOT_TCP: 1,
    }


def test_old_holes_are_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SWEEP_RECORDS", 8)
    script = connected()
    script.feed(SAID, 111, b"waits")
    for _ in range(11):
        assert script.feed(SAID, 101) == []
    assert script.feed(SAID, 101) == ["0 0-10 segment missing", "0 10-15 #4"]


def test_ended_connections_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SWEEP_RECORDS", 8)
    script = connected()
    script.feed(SAID, 101, flags=TCP_RST)
    for _ in range(12):
        assert script.feed(SAID, 101) == []
    assert script.streams.counters.unattached == 0
    script.feed(SAID, 101)
    assert script.streams.counters.unattached == 1


def test_windows_and_damage() -> None:
    frame = tcp_packet(TcpHeader(SAID, 100, flags=TCP_SYN))
    data = tcp_packet(TcpHeader(SAID, 111), b"ahead")
    file = pcap.file_header(linktype=LinkType.RAW)
    file += b"".join(pcap.record(part, time_ns=5) for part in (frame, data, frame)) + b"\0" * 3
    buffer = memoryview(file)
    streams = ScalarStreams(buffer, pcap.read(buffer))
    windows = streams.windows(every=2)
    first = next(windows)
    assert tell(first.events) == ["0 opened SYN #1"]
    assert (first.last_record, first.low_watermark) == (2, 2)
    last = next(windows)
    assert tell(last.events) == [
        "0 0-10 segment missing",
        "0 10-15 #2",
        "0 end 15 CAPTURE #2",
    ]
    assert (last.last_record, last.low_watermark) == (3, None)
    with pytest.raises(CaptureError, match="ends inside this record's header"):
        next(windows)


def union_length(parts: list[tuple[int, int]]) -> int:
    """Count the positions that segments cover."""
    return len(set().union(*(range(start, stop) for start, stop in parts)))


@pytest.mark.parametrize("name", ["mtty-2dev-2ch-holes", "mtty-8ch-ipv6"])
def test_real_captures_agree_with_tshark(name: str) -> None:
    """The table is number, time, lengths, ports, sequence, ack, flags and payload length."""
    covered: defaultdict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    isn: dict[tuple[int, int], int] = {}
    table = (ROOT / "tests" / "golden" / "tshark" / f"{name}.tsv").read_text()
    for line in table.splitlines():
        fields = line.split("\t")
        ports, sequence = (int(fields[4]), int(fields[5])), int(fields[6])
        if int(fields[8], 16) & TCP_SYN:
            isn[ports] = sequence + 1
        start = sequence - isn[ports]
        covered[ports].append((start, start + int(fields[9])))

    buffer = memoryview(gzip.decompress((CAPTURES / f"{name}.pcap.gz").read_bytes()))
    streams = ScalarStreams(buffer, pcap.read(buffer))
    keys: dict[int, FlowKey] = {}
    ends: dict[int, int] = {}
    for window in streams.windows():
        for flow, event in window.events:
            if isinstance(event, Opened):
                keys[flow] = event.key
                server = event.key.source.port == 4444
                assert event.opening is (Opening.SYN_ACK if server else Opening.SYN)
            elif isinstance(event, End):
                ends[flow] = event.position
            else:
                assert isinstance(event, Run)
    assert len(keys) == len(covered) == len(ends)
    for flow, key in keys.items():
        length = union_length(covered[key.source.port, key.destination.port])
        assert streams.counters.flows[flow].delivered == ends[flow] == length


def test_a_stray_syn_answer_finds_its_connection() -> None:
    script = Script()
    assert script.feed(ANSWERED, 900, flags=TCP_SYN | TCP_ACK, ack=101) == ["0 opened SYN_ACK #1"]
    assert script.feed(SAID, 100, flags=TCP_SYN) == ["1 opened SYN #2"]
    assert script.feed(SAID, 101, b"hello") == ["1 0-5 #3"]
