# SPDX-License-Identifier: GPL-2.0-or-later
"""The cursor: what it says of data, gaps and the end; what it remembers and what it forgets."""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import TypeVar

import pytest

from mfdtool.stream.reader import Extent, Reader, Stamp, State, pieces_of
from mfdtool.stream.span import End, EndReason, Gap, Run, run_of

T = TypeVar("T")
DATA = bytes(range(100))
END = End(100, EndReason.FIN, 9, 90)


def reader_of(*items: Run | Gap | End, keeps: bool = False) -> Reader:
    reader = Reader(keeps=keeps)
    for item in items:
        reader.feed(item)
    return reader


def piece(start: int, stop: int, record: int = 1) -> Run:
    return run_of(DATA[start:stop], start=start, record=record, time_ns=10 * record)


def finish(step: Generator[None, None, T]) -> T:
    """Run a step that need not wait."""
    with pytest.raises(StopIteration) as stopped:
        next(step)
    value: T = stopped.value.value
    return value


def many_pieces() -> Run:
    """Give a run of four pieces in a buffer where they lie in another order."""
    buffer = memoryview(DATA[50:100] + b"..." + DATA[:50])
    return Run(buffer, 0, 100, [0, 20, 50, 60], [53, 73, 0, 10], [1, 2, 5, 5], [10, 20, 50, 50])


def test_states() -> None:
    reader = reader_of(piece(0, 10))
    assert [reader.state(count) for count in (0, 1, 10, 11)] == [
        State.READY,
        State.READY,
        State.READY,
        State.WAIT,
    ]
    reader.feed(piece(10, 20))
    assert reader.state(20) is State.READY
    reader.feed(Gap(20, 30, "lost"))
    assert reader.state(21) is State.GAP
    assert reader.available() == 20
    reader.feed(piece(30, 40))
    assert reader.state(35) is State.GAP
    reader.move_to(20)
    assert (reader.state(1), reader.available()) == (State.GAP, 0)
    reader.move_to(25)
    assert (reader.state(1), reader.available()) == (State.GAP, 0)
    reader.move_to(30)
    assert (reader.state(10), reader.available()) == (State.READY, 10)
    assert reader.state(11) is State.WAIT
    reader.feed(End(40, EndReason.FIN, 1, 1))
    assert reader.state(11) is State.END
    reader.advance(10)
    assert (reader.state(0), reader.state(1)) == (State.READY, State.END)


def test_stretches_must_follow_each_other() -> None:
    reader = reader_of(piece(0, 10))
    with pytest.raises(ValueError, match="begins at 11, 10 was expected"):
        reader.feed(piece(11, 12))
    with pytest.raises(ValueError, match="begins at 9"):
        reader.feed(Gap(9, 12, "lost"))


def test_need_waits() -> None:
    reader = reader_of(piece(0, 10))
    step = reader.need(15)
    assert next(step) is None
    reader.feed(piece(10, 12))
    assert next(step) is None
    reader.feed(piece(12, 20))
    assert finish(step) is State.READY


@pytest.mark.parametrize("cuts", [[], [50], [1, 2, 3, 49, 50, 51, 99], list(range(1, 100))])
def test_reading_across_runs(cuts: list[int]) -> None:
    bounds = [0, *cuts, 100]
    reader = reader_of(*map(piece, bounds[:-1], bounds[1:]))
    assert reader.peek(0) == b""
    assert reader.peek(100) == DATA
    assert reader.read(3) + reader.read(60) == DATA[:63]
    assert reader.peek_at(70, 10) == DATA[70:80]
    assert reader.peek_at(90, 1000) == DATA[90:]
    assert reader.peek_at(100, 1) == b""
    assert reader.position == 63
    assert reader.read(37) == DATA[63:]


def test_reading_across_pieces() -> None:
    run = many_pieces()
    assert b"".join(pieces_of(run, 0, 100)) == DATA
    assert b"".join(pieces_of(run, 19, 61)) == DATA[19:61]
    for start in range(100):
        reader = reader_of(run)
        reader.move_to(start)
        assert reader.peek(100 - start) == DATA[start:]
        reader.advance(min(37, 100 - start))
        assert reader.position == min(start + 37, 100)


def test_stamps() -> None:
    reader = reader_of(many_pieces())
    assert reader.last_stamp() == Stamp(0, -1)
    assert reader.stamp() == Stamp(1, 10)
    reader.advance(20)
    assert reader.last_stamp() == Stamp(1, 10)
    assert reader.stamp() == Stamp(2, 20)
    reader.advance(31)
    assert reader.last_stamp() == Stamp(5, 50)
    reader.move_to(100)
    assert reader.last_stamp() == Stamp(5, 50)
    assert reader.stamp() == Stamp(5, 50)


def test_stamp_behind_a_gap_is_that_of_the_last_byte_there() -> None:
    reader = reader_of(piece(0, 10, 3), Gap(10, 20, "lost"), piece(20, 30, 7))
    assert finish(reader.skip(15)) == 5
    assert (reader.position, reader.last_stamp()) == (15, Stamp(3, 30))
    reader.move_to(20)
    assert reader.last_stamp() == Stamp(3, 30)
    assert reader.stamp() == Stamp(7, 70)


def test_no_byte_to_peek_at_or_to_move_over() -> None:
    reader = reader_of(Gap(0, 5, "lost"), piece(5, 10))
    with pytest.raises(ValueError, match="no byte at 0"):
        reader.peek(1)
    with pytest.raises(ValueError, match="moved to 3, 10 bytes were fed"):
        reader.advance(3)


def test_skip_counts_what_is_missing() -> None:
    reader = reader_of(piece(0, 10))
    step = reader.skip(60)
    assert next(step) is None
    reader.feed(Gap(10, 15, "lost"))
    reader.feed(piece(15, 20))
    assert next(step) is None
    reader.feed(Gap(20, 70, "lost"))
    assert finish(step) == 5 + 40
    assert (reader.position, reader.available()) == (60, 0)


def test_skip_stops_at_the_end() -> None:
    reader = reader_of(piece(0, 100), END)
    assert finish(reader.skip(1 << 64)) == (1 << 64) - 100
    assert reader.position == 100


def test_gaps_are_given_once_and_when_reached() -> None:
    first, second = Gap(10, 20, "lost"), Gap(30, 40, "lost")
    reader = reader_of(piece(0, 10), first, piece(20, 30), second)
    assert reader.take_gaps() == []
    reader.advance(10)
    assert reader.take_gaps() == [first]
    assert reader.take_gaps() == []
    reader.move_to(40)
    assert reader.take_gaps() == [second]


def test_extents() -> None:
    reader = reader_of(piece(0, 10), Gap(10, 20, "lost"), piece(20, 30), piece(30, 50), keeps=True)
    reader.move_to(50)
    assert reader.take_extents(5, 35) == (
        Extent(5, memoryview(DATA[5:10])),
        Extent(20, memoryview(DATA[20:30])),
        Extent(30, memoryview(DATA[30:35])),
    )
    assert reader.take_extents(35, 50) == (Extent(35, memoryview(DATA[35:50])),)
    assert reader.take_extents(0, 50) == ()
    assert reader_of(piece(0, 10)).take_extents(0, 10) == ()


@pytest.mark.parametrize("size", [1, 7, 300, 70_000])
def test_find_at_every_place_and_across_runs(size: int) -> None:
    data = b"ab" * 100_000 + b"needle" + b"n" * 50
    runs = [run_of(data[at : at + size], start=at) for at in range(199_000, len(data), size)]
    reader = reader_of(run_of(data[:199_000]), *runs)
    assert reader.find(b"needle", 0) == 200_000
    assert reader.find(b"needle", 200_000) == 200_000
    assert reader.find(b"needle", 200_001) == -1
    assert reader.find(b"n", len(data) - 1) == len(data) - 1


def test_find_does_not_look_across_a_gap() -> None:
    reader = reader_of(run_of(b"nee"), Gap(3, 4, "lost"), run_of(b"dle needle", start=4))
    assert reader.find(b"needle", 0) == 8
    assert reader.find(b"dle", 0) == 4
    assert reader.peek_at(1, 10) == b"ee"
    assert reader.peek_at(3, 10) == b""
    assert reader.stretches(0, 100) == [(0, 3), (4, 14)]
    assert reader.stretches(2, 6) == [(2, 3), (4, 6)]
    assert reader.stretches(3, 4) == []
    assert reader.stretches(14, 20) == []


def test_random_walk_against_the_plain_bytes() -> None:
    for seed in range(100):
        random = Random(seed)
        cuts = sorted({0, 100, *random.sample(range(100), random.randint(0, 20))})
        reader = reader_of(*map(piece, cuts[:-1], cuts[1:]), END)
        position = 0
        while position < 100:
            count = random.randint(1, 100 - position)
            assert reader.peek(count) == DATA[position : position + count]
            if random.random() < 0.5:
                reader.advance(count)
            else:
                assert finish(reader.skip(count)) == 0
            position += count
        assert reader.state(1) is State.END


def test_memory_does_not_grow_with_a_payload() -> None:
    block = bytes(100)
    reader = Reader()
    step = reader.skip(10_000 * 100)
    for start in range(0, 10_000 * 100, 100):
        reader.feed(run_of(block, start=start))
        next(step, None)
    assert reader.position == 10_000 * 100
    assert len(reader._runs) == 0
    assert len(reader._runs._items) <= 130
    assert not reader._kept


def test_waiting_over_many_runs_looks_at_none_of_them() -> None:
    """Each search costs what is new, not what is held: 30,000 runs would take a minute else."""
    reader = Reader()
    found = 0
    for start in range(0, 30_000 * 10, 10):
        reader.feed(run_of(b"0123456789", start=start))
        found += reader.find(b"90", max(0, start - 1)) == start - 1
        assert reader.state(1 << 40) is State.WAIT
    assert found == 30_000
