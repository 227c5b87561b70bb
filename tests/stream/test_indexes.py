# SPDX-License-Identifier: GPL-2.0-or-later
"""Sets of packet indexes, against plain sets."""

from __future__ import annotations

from random import Random

import pytest

from mfdtool.stream.indexes import IdxRange, IdxSet


def test_empty() -> None:
    seen = IdxSet()
    assert (seen.count, seen.highest) == (0, -1)
    assert list(seen.missing(0)) == []
    assert list(seen.missing(3)) == [IdxRange(0, 2)]
    assert 0 not in seen


def test_holes_and_duplicates() -> None:
    seen = IdxSet()
    assert [seen.add(idx) for idx in (0, 1, 2, 2, 4, 1023, 1024, 0)] == [
        True, True, True, False, True, True, True, False,
    ]  # fmt: skip
    assert (seen.count, seen.highest) == (6, 1024)
    assert [str(hole) for hole in seen.missing(1026)] == ["3", "5-1022", "1025"]
    assert seen.count_missing(1026) == 1020
    assert list(seen.missing(4)) == [IdxRange(3, 3)]
    assert 1023 in seen
    assert 3 not in seen


def test_full_chunks() -> None:
    seen = IdxSet()
    for idx in range(4096):
        seen.add(idx)
    assert list(seen.missing(4096)) == []
    assert list(seen.missing(5000)) == [IdxRange(4096, 4999)]


def test_largest_idx_costs_nothing() -> None:
    seen = IdxSet()
    seen.add(0xFFFFFFFF)
    assert list(seen.missing(1 << 32)) == [IdxRange(0, 0xFFFFFFFE)]


@pytest.mark.parametrize("seed", range(10))
def test_against_a_set(seed: int) -> None:
    random = Random(seed)
    seen, known = IdxSet(), set[int]()
    for _ in range(500):
        idx = random.randrange(3000)
        assert seen.add(idx) is (idx not in known)
        known.add(idx)
    stop = random.randrange(3500)
    holes = {idx for hole in seen.missing(stop) for idx in range(hole.first, hole.last + 1)}
    assert holes == set(range(stop)) - known
    assert seen.count_missing(stop) == len(holes)
    assert seen.count == len(known)
