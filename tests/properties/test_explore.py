# SPDX-License-Identifier: GPL-2.0-or-later
"""The search finds what trying everything finds, and its witnesses end as it says."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from mfdtool.explore.count import count_orders, orders_in
from mfdtool.explore.search import Result, Search, acts_of, follow
from mfdtool.explore.shorten import shortened
from mfdtool.explore.signature import judge
from mfdtool.explore.slowest import deepest
from mfdtool.explore.space import Space
from mfdtool.loader.destination import Destination
from mfdtool.schedule.schedule import Pace, Schedule, parse_schedule
from mfdtool.schedule.trace import Trace
from tests.explore.small import Dice, all_classes, all_runs, prepared, tiny


@pytest.mark.parametrize("seed", range(250))
def test_reduced_search_finds_what_all_states_have(seed: int) -> None:
    trace, destination = Dice(random.Random(seed), packets=4, lanes=3).draw()
    classes, queue = all_classes(Space(trace, destination))
    space = Space(trace, destination)
    result = Search(space).run()
    assert result.is_complete
    assert set(result.witnesses) == classes
    assert max(result.worst.size, deepest(Space(trace, destination)).size) == queue
    check_witnesses(trace, destination, space, result)


def check_witnesses(trace: Trace, destination: Destination, space: Space, result: Result) -> None:
    for kind, path in result.witnesses.items():
        acts = acts_of(space, follow(space, path)[1])
        for made in (acts, shortened(space, acts, kind)):
            text = str(Schedule(trace.digest, Pace.STEPS, made))
            judged = judge(trace, destination, parse_schedule(text))
            assert judged.signature.kind == kind
            assert judged.run.idle_steps == 0


@pytest.mark.parametrize("seed", range(12))
def test_search_finds_and_counts_what_all_runs_have(seed: int) -> None:
    trace, destination = tiny(random.Random(seed))
    space = Space(trace, destination)
    orders = all_runs(space, prepared(space))
    whole = {order for order in orders if not any(_goes_on(order, other) for other in orders)}
    space.separates = False
    result = Search(space).run()
    counts = count_orders(result.graph)
    assert counts.explored == len(whole)
    assert counts.ends == Counter(kind for kinds in orders.values() for kind in kinds)
    assert set(result.witnesses) == set(counts.ends)
    total = orders_in(trace)
    assert total is not None
    assert total >= len(whole)


def _goes_on(order: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(other) > len(order) and other[: len(order)] == order
