# SPDX-License-Identifier: GPL-2.0-or-later
"""Delta debugging on plain numbers."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from mfdtool.explore.reduce import minimal


@pytest.mark.parametrize("seed", range(50))
def test_what_is_needed_is_found(seed: int) -> None:
    rng = random.Random(seed)
    size = rng.randint(1, 200)
    needed = set(rng.sample(range(size), rng.randint(0, min(size, 6))))
    assert set(minimal(range(size), lambda some: needed <= set(some))) == needed


@pytest.mark.parametrize("seed", range(50))
def test_the_rest_is_1_minimal(seed: int) -> None:
    rng = random.Random(seed)
    pairs = [tuple(rng.sample(range(60), 2)) for _ in range(12)]

    def holds(some: Sequence[int]) -> bool:
        return any(first in some and second in some for first, second in pairs) or len(some) > 40

    kept = minimal(range(60), holds)
    assert holds(kept)
    assert list(kept) == sorted(kept)
    for at in range(len(kept)):
        assert not holds(kept[:at] + kept[at + 1 :])


@pytest.mark.parametrize("size", [1, 3, 100])
def test_chunks_may_begin_small(size: int) -> None:
    tried: list[int] = []

    def holds(some: Sequence[int]) -> bool:
        tried.append(len(some))
        return 7 in some

    assert minimal(range(20), holds, size=size) == (7,)
    assert tried[0] == max(0, 20 - size)
    assert minimal((), holds, size=size) == ()


def test_many_elements_take_few_tries() -> None:
    tries = 0

    def holds(some: Sequence[int]) -> bool:
        nonlocal tries
        tries += 1
        return {1234, 8765} <= set(some)

    assert minimal(range(10_000), holds) == (1234, 8765)
    assert tries < 200


def test_of_nothing_nothing_is_left() -> None:
    assert minimal((), lambda some: True) == ()
    assert minimal((1, 2, 3), lambda some: True) == ()
    assert minimal((1, 2, 3), lambda some: False) == (1, 2, 3)
