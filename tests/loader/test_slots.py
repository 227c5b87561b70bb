# SPDX-License-Identifier: GPL-2.0-or-later
"""The persistent table of waiting buffers, against a dictionary."""

from __future__ import annotations

import random

import pytest

from mfdtool.loader.blob import blob_of
from mfdtool.loader.slots import NO_SLOTS, Slots


@pytest.mark.parametrize("seed", range(10))
def test_behaves_like_a_dictionary(seed: int) -> None:
    rng = random.Random(seed)
    model: dict[int, bytes] = {}
    slots = NO_SLOTS
    for _ in range(300):
        idx = rng.choice((rng.randrange(40), rng.randrange(1 << 32), 0xFFFFFFFE))
        if idx in model:
            del model[idx]
            slots = slots.without(idx)
        else:
            model[idx] = rng.randbytes(4)
            slots = slots.put(idx, blob_of(model[idx]))
        assert len(slots) == len(model)
        assert idx in slots if idx in model else slots.get(idx) is None
    assert sorted(slots) == sorted(model)
    for idx, data in model.items():
        assert slots.get(idx) == blob_of(data)


def test_equal_contents_are_equal_whatever_the_history() -> None:
    one = NO_SLOTS.put(1, blob_of(b"a")).put(70_000, blob_of(b"b"))
    other = NO_SLOTS.put(70_000, blob_of(b"b")).put(5, blob_of(b"c"))
    other = other.without(5).put(1, blob_of(b"a"))
    assert one == other
    assert hash(one) == hash(other)
    assert one != one.without(1)
    assert one.without(1).without(70_000) == NO_SLOTS == Slots()
    assert one != "no table"
    assert repr(one) == "Slots([1, 70000])"


def test_old_tables_stay_as_they_were() -> None:
    old = NO_SLOTS.put(3, blob_of(b"x"))
    old.put(4, blob_of(b"y"))
    old.without(3)
    assert list(old) == [3]
