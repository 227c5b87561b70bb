# SPDX-License-Identifier: GPL-2.0-or-later
"""Pieces beyond a hole: where they overlap, the first copy stays."""

from __future__ import annotations

from random import Random

import pytest

from mfdtool.stream.held import Held, Piece


def piece(start: int, stop: int, offset: int = 1000) -> Piece:
    """Make a piece with bytes."""
    return Piece(start, stop, offset, record=offset, time_ns=0)


def cut(start: int, stop: int) -> Piece:
    """Make a piece without."""
    return Piece.cut(start, stop, record=1, time_ns=0)


def tell(held: Held) -> list[tuple[int, int, int | None]]:
    """List start, stop and offset (None: cut)."""
    assert held.extent == sum(item.stop - item.start for item in held.pieces)
    return [(item.start, item.stop, None if item.is_cut else item.offset) for item in held.pieces]


def test_a_piece_is_laid_around_others() -> None:
    held = Held()
    assert held.add(piece(10, 20, 100)) == 0
    assert held.add(piece(30, 40, 200)) == 0
    assert held.add(piece(5, 45, 500)) == 20
    assert tell(held) == [
        (5, 10, 500),
        (10, 20, 100),
        (20, 30, 515),
        (30, 40, 200),
        (40, 45, 535),
    ]


def test_bytes_take_the_place_of_a_cut() -> None:
    held = Held()
    held.add(cut(0, 20))
    assert held.add(piece(5, 10, 100)) == 0
    assert tell(held) == [(0, 5, None), (5, 10, 100), (10, 20, None)]
    assert held.add(cut(0, 30)) == 0
    assert tell(held) == [(0, 5, None), (5, 10, 100), (10, 20, None), (20, 30, None)]


def test_take_and_truncate() -> None:
    held = Held()
    for start in (0, 10, 20, 40):
        held.add(piece(start, start + 10, start))
    held.add(cut(50, 60))
    assert held.count_ready(0) == 3
    assert held.count_ready(5) == 0
    assert [item.start for item in held.take(2)] == [0, 10]
    assert held.truncate(45) == 5
    assert tell(held) == [(20, 30, 20), (40, 45, 40)]
    assert held.truncate(45) == 0
    assert held.truncate(0) == 15
    assert tell(held) == []
    assert held.count_ready(0) == 0


def test_all_pieces_may_be_ready() -> None:
    held = Held()
    held.add(piece(0, 5))
    assert held.count_ready(0) == 1
    held.add(cut(5, 9))
    assert held.count_ready(0) == 1


@pytest.mark.parametrize("seed", range(50))
def test_random_pieces(seed: int) -> None:
    random = Random(seed)
    held = Held()
    model: dict[int, int | None] = {}
    for number in range(40):
        start = random.randrange(100)
        stop = start + random.randint(1, 30)
        if random.random() < 0.3:
            held.add(cut(start, stop))
            for position in range(start, stop):
                model.setdefault(position, None)
            continue
        before = sum(model.get(position) is not None for position in range(start, stop))
        assert held.add(piece(start, stop, 1000 * number)) == before
        for position in range(start, stop):
            if model.get(position) is None:
                model[position] = 1000 * number + position - start
    found: dict[int, int | None] = {}
    for item in held.pieces:
        for position in range(item.start, item.stop):
            assert position not in found
            found[position] = None if item.is_cut else item.offset + position - item.start
    assert list(found) == sorted(found)
    assert found == model
    assert held.extent == len(model)
