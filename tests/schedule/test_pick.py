# SPDX-License-Identifier: GPL-2.0-or-later
"""Orders by dice: the same seed gives the same order, and every order can be had."""

from __future__ import annotations

import random
from itertools import pairwise, permutations

import pytest

from mfdtool.errors import ScheduleError
from mfdtool.loader.state import Outcome
from mfdtool.replay.driver import replay
from mfdtool.schedule.acts import Take
from mfdtool.schedule.pick import Picked, Priorities, Uniform, length_of, named, pick
from mfdtool.schedule.schedule import Pace, Schedule, parse_schedule
from mfdtool.schedule.trace import trace_of
from tests.explore.small import Lanes, destination, good_main, small_trace
from tests.support.legitimate import interleaved, random_sent
from tests.support.playbook import SYNC, packet

LANES: Lanes = [[SYNC, packet(0)], [SYNC, packet(1)], [SYNC, packet(2, config=True)]]


def picked(name: Picked) -> Schedule:
    trace = small_trace(good_main(), LANES)
    return pick(trace, destination(3), name.chooser(trace, random.Random(name.seed)))


def packets(schedule: Schedule) -> tuple[str, ...]:
    """Give the lanes of the device packets in their order."""
    lanes = [act.lane for act in schedule.acts or () if isinstance(act, Take) and act.lane != "m"]
    return tuple(lane for at, lane in enumerate(lanes) if lanes[:at].count(lane) == 2)


@pytest.mark.parametrize("depth", [None, 1, 3])
def test_all_orders_come_up(depth: int | None) -> None:
    found = {packets(picked(Picked(seed, depth))) for seed in range(80)}
    assert found == set(permutations("012"))


@pytest.mark.parametrize("depth", [None, 4])
def test_a_seed_stands_for_one_order(depth: int | None) -> None:
    assert picked(Picked(5, depth)) == picked(Picked(5, depth))
    assert picked(Picked(5, depth)) != picked(Picked(6, depth))


@pytest.mark.parametrize("seed", range(30))
def test_picked_orders_replay_to_the_same_end(seed: int) -> None:
    rng = random.Random(seed)
    sent = random_sent(rng)
    trace = trace_of(interleaved(rng, sent))
    for depth in (None, 3):
        chooser = Picked(seed, depth).chooser(trace, random.Random(seed))
        schedule = pick(trace, sent.destination, chooser)
        assert schedule.pace is Pace.STEPS
        run = replay(trace, sent.destination, parse_schedule(str(schedule)))
        assert run.outcome is Outcome.COMPLETED
        assert run.idle_steps == 0


def test_priorities_let_one_thread_run() -> None:
    chooser = Priorities(random.Random(1), depth=1, length=10)
    first = chooser([0, 1, 2])
    assert {chooser([0, 1, 2]) for _ in range(10)} == {first}
    assert chooser([first]) == first


def test_priorities_change_as_often_as_said() -> None:
    chooser = Priorities(random.Random(1), depth=3, length=10)
    chosen = [chooser([0, 1, 2]) for _ in range(10)]
    changes = sum(one != other for one, other in pairwise(chosen))
    assert 1 <= changes <= 2


def test_uniform_gives_all_a_chance() -> None:
    chooser = Uniform(random.Random(1))
    assert {chooser([3, 4, 5]) for _ in range(50)} == {3, 4, 5}


def test_length_is_no_less_than_a_run() -> None:
    trace = small_trace(good_main(), LANES)
    assert length_of(trace) >= len(trace.observed)


@pytest.mark.parametrize("text", ["random:0", "random:123456789", "pct:7,3", "pct:0,64"])
def test_names(text: str) -> None:
    found = named(text)
    assert found is not None
    assert str(found) == text


@pytest.mark.parametrize(
    "text", ["random:", "random:x", "random:-1", "pct:7", "pct:7,0", "pct:7,65", "pct:,3", "pct"]
)
def test_wrong_names(text: str) -> None:
    with pytest.raises(ScheduleError):
        named(text)


@pytest.mark.parametrize("text", ["recorded", "reverse", "mfd1:abc:steps:"])
def test_other_names(text: str) -> None:
    assert named(text) is None
