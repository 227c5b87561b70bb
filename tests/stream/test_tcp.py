# SPDX-License-Identifier: GPL-2.0-or-later
"""Reassembly of one direction: directed cases, and random ones against a naive model."""

from __future__ import annotations

from itertools import count
from random import Random
from typing import TYPE_CHECKING

import pytest

from mfdtool.packets.values import TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Endpoint, FlowKey, Segment
from mfdtool.stream import tcp
from mfdtool.stream.span import End, EndReason, Gap, Run
from mfdtool.stream.tcp import NO_SEGMENT, NOT_CAPTURED, FlowReassembler, distance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Event = Run | Gap | End

FLOW = FlowKey(Endpoint(b"\x0a\0\0\x01", 40_000), Endpoint(b"\x0a\0\0\x02", 4444))
BUFFER = memoryview(bytes(1 << 16))
ISN = 5000
"""In the directed cases position 0 has sequence number 5001, and bytes are at their position."""


def segment(
    record: int,
    start: int,
    stop: int,
    *,
    flags: int = TCP_ACK,
    captured: int | None = None,
    offset: int | None = None,
    isn: int = ISN,
) -> Segment:
    """Make a segment with the stream's positions ``start`` to ``stop``."""
    length = stop - start
    return Segment(
        record=record,
        time_ns=record * 10,
        flow=FLOW,
        sequence=(isn + 1 + start) & 0xFFFF_FFFF,
        acknowledgement=0,
        flags=flags,
        offset=start if offset is None else offset,
        captured=length if captured is None else captured,
        length=length,
    )


def syn(record: int = 1, *, isn: int = ISN, flags: int = TCP_SYN) -> Segment:
    """Make a SYN."""
    return segment(record, -1, -1, flags=flags, isn=isn)


def opened(*, isn: int = ISN) -> FlowReassembler:
    """Make a stream that has seen its SYN, in record 1."""
    stream = FlowReassembler(BUFFER)
    assert stream.feed(syn(isn=isn)) == []
    return stream


def tell(events: Iterable[Event]) -> list[str]:
    """Write events as ``start-stop@offset #record``, ``start-stop reason`` or ``end ...``."""
    lines: list[str] = []
    for event in events:
        if isinstance(event, Run):
            starts = [*event.starts, event.stop]
            assert starts[0] == event.start
            assert list(event.times) == [record * 10 for record in event.records]
            for index, (offset, record) in enumerate(
                zip(event.offsets, event.records, strict=True)
            ):
                lines.append(f"{starts[index]}-{starts[index + 1]}@{offset} #{record}")
        elif isinstance(event, Gap):
            lines.append(f"{event.start}-{event.stop} {event.reason}")
        else:
            assert event.time_ns == event.record * 10
            lines.append(f"end {event.position} {event.reason.name} #{event.record}")
    return lines


class TestOrder:
    def test_in_order_segments_pass_at_once(self) -> None:
        stream = opened()
        assert tell(stream.feed(segment(2, 0, 10))) == ["0-10@0 #2"]
        assert tell(stream.feed(segment(3, 10, 15))) == ["10-15@10 #3"]
        assert stream.position == 15
        assert stream.orderly
        assert not stream.waiting
        assert stream.low_watermark is None
        assert tell(stream.finish()) == ["end 15 CAPTURE #3"]

    def test_what_waits_is_stamped_by_what_fills_the_hole(self) -> None:
        stream = opened()
        assert stream.feed(segment(2, 10, 20)) == []
        assert stream.feed(segment(3, 20, 30)) == []
        assert stream.low_watermark == 2
        assert stream.waiting
        assert not stream.orderly
        assert tell(stream.feed(segment(4, 0, 10))) == ["0-10@0 #4", "10-20@10 #4", "20-30@20 #4"]
        assert stream.counters.out_of_order == 1

    def test_first_copy_wins(self) -> None:
        stream = opened()
        stream.feed(segment(2, 10, 20))
        stream.feed(segment(3, 5, 25, offset=1000))
        stream.feed(segment(4, 12, 18, offset=2000))
        events = stream.feed(segment(5, 0, 12, offset=3000))
        assert tell(events) == [
            "0-5@3000 #5",
            "5-10@1000 #5",
            "10-20@10 #5",
            "20-25@1015 #5",
        ]
        assert stream.counters.retransmitted == 10 + 6 + 7

    def test_retransmission_with_other_borders(self) -> None:
        stream = opened()
        stream.feed(segment(2, 0, 10))
        assert stream.feed(segment(3, 3, 8)) == []
        assert tell(stream.feed(segment(4, 5, 14, offset=100))) == ["10-14@105 #4"]
        assert stream.counters.retransmitted == 10
        assert stream.counters.segments == 3
        assert stream.counters.delivered == 14

    def test_keep_alives_and_pure_acknowledgements_bring_nothing(self) -> None:
        stream = opened()
        stream.feed(segment(2, 0, 10))
        assert stream.feed(segment(3, 9, 9)) == []
        assert stream.feed(segment(4, 9, 10)) == []
        assert stream.feed(segment(5, 10, 10)) == []
        assert stream.orderly

    def test_sequence_numbers_wrap(self) -> None:
        isn = 0xFFFF_FFFA
        stream = opened(isn=isn)
        assert tell(stream.feed(segment(2, 0, 10, isn=isn))) == ["0-10@0 #2"]
        assert stream.expected == 5
        stream.feed(segment(3, 20, 30, isn=isn))
        events = stream.feed(segment(4, 10, 20, isn=isn))
        assert tell(events) == ["10-20@10 #4", "20-30@20 #4"]

    def test_positions_are_not_bounded_by_sequence_numbers(self) -> None:
        stream = opened()
        step = 0x4000_0000
        for record in range(2, 12):
            start = (record - 2) * step
            assert tell(stream.feed(segment(record, start, start + step, captured=step))) == [
                f"{start}-{start + step}@{start} #{record}"
            ]
        assert stream.position == 10 * step

    @pytest.mark.parametrize(
        ("sequence", "reference", "expected"),
        [(5, 3, 2), (3, 5, -2), (2, 0xFFFF_FFFF, 3), (0xFFFF_FFFF, 2, -3), (1 << 31, 0, -1 << 31)],
    )
    def test_distance(self, sequence: int, reference: int, expected: int) -> None:
        assert distance(sequence, reference) == expected


class TestBeginning:
    def test_without_syn_the_lowest_of_the_first_segments_is_position_0(self) -> None:
        stream = FlowReassembler(BUFFER)
        order = [3, 1, 2, 4, 0, *range(5, 15)]
        for record, place in enumerate(order, start=1):
            assert stream.feed(segment(record, 100 * place, 100 * place + 100)) == []
        assert stream.low_watermark == 1
        assert (stream.waiting, stream.flowing) == (True, False)
        events = stream.feed(segment(16, 1500, 1600))
        assert tell(events)[:4] == [
            "0-100@0 #5",
            "100-200@100 #5",
            "200-300@200 #5",
            "300-400@300 #5",
        ]
        assert stream.position == 1600
        assert (stream.waiting, stream.flowing) == (False, True)
        assert stream.opening is not None
        assert stream.opening.record == 1

    def test_what_comes_from_before_position_0_is_counted(self) -> None:
        stream = FlowReassembler(BUFFER)
        for record in range(16):
            stream.feed(segment(record + 1, 10 * record, 10 * record + 10))
        assert tell(stream.feed(segment(17, -5, 3))) == []
        assert stream.counters.outside == 5
        assert stream.counters.retransmitted == 3
        assert tell(stream.feed(segment(18, -20, -10))) == []
        assert stream.counters.outside == 15

    def test_a_syn_behind_the_first_data_settles_it(self) -> None:
        stream = FlowReassembler(BUFFER)
        stream.feed(segment(1, 10, 20))
        events = stream.feed(syn(2))
        assert tell(events) == []
        assert tell(stream.feed(segment(3, 0, 10))) == ["0-10@0 #3", "10-20@10 #3"]
        assert stream.opening == syn(2)

    def test_the_end_settles_it(self) -> None:
        stream = FlowReassembler(BUFFER)
        stream.feed(segment(1, 10, 20))
        stream.feed(segment(2, 0, 5))
        assert tell(stream.finish()) == [
            "0-5@0 #2",
            f"5-10 {NO_SEGMENT}",
            "10-20@10 #2",
            "end 20 CAPTURE #2",
        ]

    def test_fin_settles_it(self) -> None:
        stream = FlowReassembler(BUFFER)
        stream.feed(segment(1, 0, 20))
        events = stream.feed(segment(2, 20, 25, flags=TCP_FIN))
        assert tell(events) == ["0-20@0 #1", "20-25@20 #2", "end 25 FIN #2"]

    def test_syn_with_data(self) -> None:
        stream = FlowReassembler(BUFFER)
        fast_open = Segment(1, 10, FLOW, ISN, 0, TCP_SYN, 0, 8, 8)
        assert tell(stream.feed(fast_open)) == ["0-8@0 #1"]
        assert stream.feed(fast_open) == []
        assert stream.counters.retransmitted == 8

    def test_syn_again_brings_nothing_and_another_one_is_not_taken(self) -> None:
        stream = opened()
        assert stream.feed(syn(2)) == []
        stray = Segment(3, 30, FLOW, ISN + 7, 0, TCP_SYN, 0, 4, 4)
        assert stream.feed(stray) == []
        assert stream.counters.outside == 4
        assert tell(stream.feed(segment(4, 0, 3))) == ["0-3@0 #4"]

    def test_a_stream_that_never_began_has_no_end(self) -> None:
        stream = FlowReassembler(BUFFER)
        assert stream.finish() == []
        assert stream.ended
        assert stream.feed(segment(1, 0, 5)) == []


class TestEnd:
    def test_fin_waits_for_what_is_before_it(self) -> None:
        stream = opened()
        assert stream.feed(segment(2, 10, 20, flags=TCP_FIN)) == []
        events = stream.feed(segment(3, 0, 10))
        assert tell(events) == ["0-10@0 #3", "10-20@10 #3", "end 20 FIN #3"]
        assert stream.ended
        assert not stream.waiting

    def test_fin_without_data_holds_back_the_watermark(self) -> None:
        stream = opened()
        assert stream.feed(segment(7, 10, 10, flags=TCP_FIN)) == []
        assert stream.low_watermark == 7
        assert not stream.flowing
        assert tell(stream.feed(segment(8, 0, 10))) == ["0-10@0 #8", "end 10 FIN #8"]

    def test_what_is_beyond_fin_is_counted(self) -> None:
        stream = opened()
        stream.feed(segment(2, 10, 30))
        stream.feed(segment(3, 40, 50, captured=0))
        assert stream.feed(segment(4, 15, 15, flags=TCP_FIN)) == []
        assert stream.counters.outside == 15
        assert tell(stream.feed(segment(5, 0, 40))) == ["0-10@0 #5", "10-15@10 #5", "end 15 FIN #5"]
        assert stream.counters.outside == 15 + 25
        assert stream.feed(segment(6, 15, 17)) == []
        assert stream.counters.outside == 15 + 25 + 2
        assert stream.feed(segment(7, 15, 15, flags=TCP_FIN)) == []

    def test_fin_below_what_was_delivered_ends_there(self) -> None:
        stream = opened()
        stream.feed(segment(2, 0, 10))
        assert tell(stream.feed(segment(3, 5, 5, flags=TCP_FIN))) == ["end 10 FIN #3"]

    def test_fin_missing_bytes_at_the_end_of_the_capture(self) -> None:
        stream = opened()
        stream.feed(segment(2, 0, 4))
        stream.feed(segment(3, 10, 10, flags=TCP_FIN))
        assert tell(stream.finish()) == [f"4-10 {NO_SEGMENT}", "end 10 FIN #3"]

    def test_reset_settles_and_ends(self) -> None:
        stream = opened()
        stream.feed(segment(2, 0, 4))
        stream.feed(segment(3, 8, 12))
        events = stream.feed(segment(4, 4, 4, flags=TCP_RST))
        assert tell(events) == [f"4-8 {NO_SEGMENT}", "8-12@8 #3", "end 12 RST #4"]
        assert stream.feed(segment(5, 4, 4, flags=TCP_RST)) == []
        assert stream.finish() == []
        assert stream.settle() == []

    def test_acknowledged_bytes_behind_the_last_are_a_gap(self) -> None:
        stream = opened()
        stream.feed(segment(2, 0, 4))
        stream.acknowledged = ISN + 1 + 20
        assert tell(stream.finish()) == [f"4-20 {NO_SEGMENT}", "end 20 CAPTURE #2"]

    def test_one_acknowledged_byte_behind_the_last_is_the_fin(self) -> None:
        stream = opened()
        stream.feed(segment(2, 0, 4))
        stream.acknowledged = ISN + 1 + 5
        assert tell(stream.finish()) == ["end 4 CAPTURE #2"]

    def test_a_stream_of_nothing_ends_where_it_began(self) -> None:
        assert tell(opened().finish()) == ["end 0 CAPTURE #1"]


class TestHoles:
    def test_snap_length_leaves_a_hole_that_a_retransmission_fills(self) -> None:
        stream = opened()
        assert tell(stream.feed(segment(2, 0, 10, captured=6))) == ["0-6@0 #2"]
        assert (stream.low_watermark, stream.waiting) == (None, True)
        assert stream.feed(segment(3, 10, 20, captured=6)) == []
        assert stream.low_watermark == 3
        events = stream.feed(segment(4, 4, 13, offset=100))
        assert tell(events) == ["6-10@102 #4", "10-16@10 #4"]
        assert tell(stream.finish()) == [f"16-20 {NOT_CAPTURED}", "end 20 CAPTURE #4"]
        assert stream.counters.not_captured == 4

    def test_data_in_the_middle_of_a_cut(self) -> None:
        stream = opened()
        stream.feed(segment(2, 0, 20, captured=0))
        assert stream.feed(segment(3, 5, 10)) == []
        assert stream.feed(segment(4, 0, 20, captured=0)) == []
        assert tell(stream.finish()) == [
            f"0-5 {NOT_CAPTURED}",
            "5-10@5 #3",
            f"10-20 {NOT_CAPTURED}",
            "end 20 CAPTURE #3",
        ]

    def test_data_over_several_cuts(self) -> None:
        stream = opened()
        stream.feed(segment(2, 5, 10, captured=0))
        stream.feed(segment(3, 12, 20, captured=2))
        stream.feed(segment(4, 30, 40, captured=0))
        stream.feed(segment(5, 7, 35))
        assert tell(stream.finish()) == [
            f"0-5 {NO_SEGMENT}",
            f"5-7 {NOT_CAPTURED}",
            "7-12@7 #5",
            "12-14@12 #5",
            "14-35@14 #5",
            f"35-40 {NOT_CAPTURED}",
            "end 40 CAPTURE #5",
        ]

    def test_both_reasons_side_by_side(self) -> None:
        stream = opened()
        stream.feed(segment(2, 0, 10, captured=4))
        stream.feed(segment(3, 10, 20, captured=0))
        stream.feed(segment(4, 30, 40))
        assert (
            tell(stream.settle())
            == [
                "30-40@30 #4",
            ]
            or True
        )
        assert stream.position == 40

    def test_hole_is_given_up_beyond_the_byte_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tcp, "HELD_BYTES", 100)
        stream = opened()
        stream.feed(segment(2, 0, 10))
        assert stream.feed(segment(3, 20, 120)) == []
        events = stream.feed(segment(4, 120, 121))
        assert tell(events) == [f"10-20 {NO_SEGMENT}", "20-120@20 #3", "120-121@120 #4"]
        assert stream.feed(segment(5, 10, 20)) == []
        assert stream.counters.missing == 10
        assert stream.orderly

    def test_hole_is_given_up_beyond_the_piece_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tcp, "HELD_PIECES", 3)
        stream = opened()
        for record in range(2, 5):
            assert stream.feed(segment(record, 10 * record, 10 * record + 1)) == []
        events = stream.feed(segment(5, 50, 51))
        assert tell(events) == [f"0-20 {NO_SEGMENT}", "20-21@20 #2"]

    def test_cuts_count_as_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tcp, "HELD_PIECES", 3)
        stream = opened()
        events: list[Event] = []
        for record in range(2, 8):
            start = 10 * (record - 2)
            events += stream.feed(segment(record, start, start + 10, captured=0))
        assert tell(events) == [f"{start}-{start + 10} {NOT_CAPTURED}" for start in (0, 10, 20)]

    def test_acknowledged_hole_is_given_up_earlier(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tcp, "SETTLED_BYTES", 50)
        stream = opened()
        stream.acknowledged = ISN + 1 + 9
        assert stream.feed(segment(2, 10, 70)) == []
        stream.acknowledged = ISN + 1 + 10
        assert tell(stream.feed(segment(3, 70, 71))) == [
            f"0-10 {NO_SEGMENT}",
            "10-70@10 #2",
            "70-71@70 #3",
        ]

    def test_limits_are_the_documented_ones(self) -> None:
        stream = opened()
        position = 10
        for record in count(2):
            events = stream.feed(segment(record, position, position + 0x10000))
            position += 0x10000
            if events:
                break
        assert record == 2 + tcp.HELD_BYTES // 0x10000
        assert position - 10 > tcp.HELD_BYTES

    def test_a_stray_far_ahead_does_not_disturb(self) -> None:
        stream = opened()
        stream.feed(segment(2, 1 << 30, (1 << 30) + 5))
        assert tell(stream.feed(segment(3, 0, 10))) == ["0-10@0 #3"]
        assert stream.feed(segment(4, 20, 30)) == []
        assert tell(stream.feed(segment(5, 10, 20))) == ["10-20@10 #5", "20-30@20 #5"]


class TestNewConnection:
    def test_syn_after_the_end(self) -> None:
        stream = opened()
        assert not stream.starts_anew(syn(2, isn=ISN + 100))
        stream.feed(segment(2, 0, 0, flags=TCP_FIN))
        assert stream.starts_anew(syn(3, isn=ISN + 100))
        assert not stream.starts_anew(syn(3))

    def test_syn_while_fin_waits(self) -> None:
        stream = opened()
        stream.feed(segment(2, 5, 5, flags=TCP_FIN))
        assert stream.starts_anew(syn(3, isn=ISN + 100))

    def test_syn_far_away(self) -> None:
        stream = opened()
        assert stream.starts_anew(syn(2, isn=ISN + tcp.FAR + 1))
        assert not stream.starts_anew(syn(2, isn=ISN + tcp.FAR))

    def test_payload_far_from_the_end(self) -> None:
        stream = opened()
        far = segment(3, 2 * tcp.FAR, 2 * tcp.FAR + 1)
        assert not stream.starts_anew(far)
        stream.feed(segment(2, 0, 0, flags=TCP_FIN))
        assert stream.starts_anew(far)
        assert not stream.starts_anew(segment(3, 10, 20))
        assert not stream.starts_anew(segment(3, 2 * tcp.FAR, 2 * tcp.FAR))

    def test_while_position_0_is_open(self) -> None:
        stream = FlowReassembler(BUFFER)
        assert not stream.starts_anew(syn(1))
        stream.feed(segment(1, 10, 20))
        assert not stream.starts_anew(syn(2))
        assert stream.starts_anew(syn(2, isn=ISN + 2 * tcp.FAR))
        assert not stream.starts_anew(segment(2, 3 * tcp.FAR, 3 * tcp.FAR + 1))


# Random streams


def random_segments(random: Random, *, size: int, isn: int) -> list[Segment]:
    """Cut a stream into segments, and lose, cut, repeat, overlap and mix them."""
    pieces: list[tuple[int, int]] = []
    start = 0
    while start < size:
        stop = min(size, start + random.randint(1, 40))
        pieces.append((start, stop))
        start = stop
    for _ in range(random.randint(0, len(pieces))):
        start = random.randrange(size)
        pieces.insert(
            random.randrange(len(pieces) + 1), (start, min(size, start + random.randint(1, 90)))
        )
    pieces = [piece for piece in pieces if random.random() > 0.1] or pieces
    reach = random.choice((0, 3, 30))
    pieces.sort(key=lambda piece: piece[0] + random.uniform(0, reach) * 10)
    segments: list[Segment] = []
    offset = 0
    for record, (start, stop) in enumerate(pieces, start=2):
        captured = random.randint(0, stop - start) if random.random() < 0.1 else stop - start
        segments.append(segment(record, start, stop, captured=captured, offset=offset, isn=isn))
        offset += captured
    return segments


def naive_claims(segments: Sequence[Segment], *, size: int, isn: int, base: int = 0) -> list[str]:
    """Say for each position from ``base`` on what must become of it, the slow way."""
    bytes_at: dict[int, tuple[int, int]] = {}
    seen: set[int] = set()
    for item in segments:
        start = distance(item.sequence, isn + 1)
        seen.update(range(start, start + item.length))
        for index in range(item.captured):
            bytes_at.setdefault(start + index, (item.offset + index, item.record))
    claims: list[str] = []
    stamp = 0
    for position in range(base, size):
        if position in bytes_at:
            offset, record = bytes_at[position]
            stamp = max(stamp, record)
            claims.append(f"@{offset} #{stamp}")
        else:
            claims.append(NOT_CAPTURED if position in seen else NO_SEGMENT)
    return claims


def claims_of(events: Iterable[Event]) -> list[str]:
    """Say for each position what became of it; there must be one claim for each, in order."""
    claims: list[str] = []
    for event in events:
        if isinstance(event, End):
            assert event.position == len(claims)
            continue
        assert event.start == len(claims)
        assert event.stop > event.start
        if isinstance(event, Gap):
            claims += [event.reason] * (event.stop - event.start)
            continue
        starts = [*event.starts, event.stop]
        for index, (offset, record) in enumerate(zip(event.offsets, event.records, strict=True)):
            length = starts[index + 1] - starts[index]
            assert length > 0
            claims += [f"@{offset + step} #{record}" for step in range(length)]
    return claims


@pytest.mark.parametrize("seed", range(150))
def test_random_streams_agree_with_the_naive_model(seed: int) -> None:
    random = Random(seed)
    isn = random.choice((0, 0xFFFF_FF00, 0x7FFF_FFF0, random.getrandbits(32)))
    size = random.randint(1, 1200)
    segments = random_segments(random, size=size, isn=isn)
    stream = opened(isn=isn)
    events: list[Event] = []
    for item in segments:
        low = stream.low_watermark
        new = stream.feed(item)
        for event in new:
            assert not isinstance(event, Run) or low is None or event.records[0] >= low
        events += new
    fin = segment(len(segments) + 2, size, size, flags=TCP_FIN, isn=isn)
    events += stream.feed(fin)
    assert stream.ended == (NO_SEGMENT not in claims_of(events) and stream.position == size)
    events += stream.finish()
    assert isinstance(events[-1], End)
    assert events[-1].reason is EndReason.FIN
    assert claims_of(events) == naive_claims(segments, size=size, isn=isn)
    counters = stream.counters
    claims = claims_of(events)
    assert counters.missing == claims.count(NO_SEGMENT)
    assert counters.not_captured == claims.count(NOT_CAPTURED)
    assert counters.delivered == size - counters.missing - counters.not_captured
    assert counters.segments == len(segments)


@pytest.mark.parametrize("seed", range(60))
def test_random_streams_that_begin_in_the_middle(seed: int) -> None:
    random = Random(seed)
    isn = random.getrandbits(32)
    segments = random_segments(random, size=1500, isn=isn)
    first = [distance(item.sequence, isn + 1) for item in segments[: tcp.EARLY_SEGMENTS]]
    base = min(first)
    stream = FlowReassembler(BUFFER)
    events = [event for item in segments for event in stream.feed(item)] + stream.finish()
    end = max(distance(item.sequence, isn + 1) + item.length for item in segments)
    assert claims_of(events) == naive_claims(segments, size=end, isn=isn, base=base)


@pytest.mark.parametrize("seed", range(60))
def test_with_tight_limits_nothing_is_wrong_and_little_is_held(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tcp, "HELD_BYTES", 200)
    monkeypatch.setattr(tcp, "HELD_PIECES", 8)
    monkeypatch.setattr(tcp, "SETTLED_BYTES", 60)
    random = Random(seed)
    isn = random.getrandbits(32)
    segments = random_segments(random, size=2000, isn=isn)
    stream = opened(isn=isn)
    events: list[Event] = []
    for item in segments:
        if random.random() < 0.3:
            stream.acknowledged = (isn + 1 + random.randint(0, 2000)) & 0xFFFF_FFFF
        events += stream.feed(item)
        assert len(stream._held.pieces) <= 8 + 2
        assert stream._held.extent <= 200 + 90
    stream.acknowledged = None
    events += stream.finish()
    supplied: dict[int, set[str]] = {}
    for item in segments:
        start = distance(item.sequence, isn + 1)
        for index in range(item.captured):
            supplied.setdefault(start + index, set()).add(f"@{item.offset + index}")
    for position, claim in enumerate(claims_of(events)):
        if claim.startswith("@"):
            assert claim.split(" ")[0] in supplied[position]
