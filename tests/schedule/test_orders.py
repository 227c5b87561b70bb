# SPDX-License-Identifier: GPL-2.0-or-later
"""Named orders: permutations that keep what TCP keeps."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from mfdtool.errors import ScheduleError
from mfdtool.loader.events import Deliver, End
from mfdtool.loader.state import Outcome
from mfdtool.replay.driver import replay
from mfdtool.schedule.acts import Take
from mfdtool.schedule.orders import ORDERS, order, packets_of
from mfdtool.schedule.schedule import Pace, Schedule
from mfdtool.schedule.trace import Trace, is_sync, packet_of, trace_of
from tests.replay.test_vectors import run_vector
from tests.support.legitimate import Sent, interleaved, random_sent
from tests.support.vectors import observation, vector_observation

NAMES = (*ORDERS, "round-robin")
GOOD = "v01-inorder"


def made(seed: int) -> tuple[Sent, Trace]:
    rng = random.Random(seed)
    sent = random_sent(rng)
    return sent, trace_of(interleaved(rng, sent))


def arrived(trace: Trace, schedule: Schedule) -> list[tuple[int, int]]:
    """Give lane and place of what arrives, by the recording's own lanes."""
    places = {
        id(entry.event): (number, place)
        for number, lane in enumerate(trace.lanes)
        for place, entry in enumerate(lane.entries)
    }
    entries = [arrival.entry for arrival in schedule.arrivals(trace)]
    return [places[id(entry.event)] for entry in entries if entry is not None]


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("name", NAMES)
def test_an_order_is_a_permutation_that_keeps_lanes(seed: int, name: str) -> None:
    _, trace = made(seed)
    found = arrived(trace, order(trace, name))
    assert len(found) == len(trace.recording.entries)
    counts = Counter[int]()
    for lane, place in found:
        assert place == counts[lane]
        counts[lane] += 1


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("name", NAMES)
def test_reassigned_packets_stay_between_their_syncs(seed: int, name: str) -> None:
    _, trace = made(seed)
    schedule = order(trace, name, reassign=True)
    assert sorted(arrived(trace, schedule)) == sorted(arrived(trace, Schedule(trace.digest)))
    epochs = {packet.number: packet.epoch for packet in packets_of(trace)}
    numbers = {
        id(trace.entry(packet.lane, packet.place).event): packet.number
        for packet in packets_of(trace)
    }
    seen = Counter[str]()
    ended: set[str] = set()
    for _, entry in schedule.arrivals(trace):
        assert entry is not None
        if packet_of(entry) is not None:
            assert seen[entry.channel] == epochs[numbers[id(entry.event)]]
            assert entry.channel not in ended
        elif is_sync(entry):
            seen[entry.channel] += 1
        elif isinstance(entry.event, Deliver) and isinstance(entry.event.item, End):
            ended.add(entry.channel)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("reassign", [False, True])
def test_good_migrations_complete_in_every_order(seed: int, reassign: bool) -> None:  # noqa: FBT001
    sent, trace = made(seed)
    rng = random.Random(seed)
    for name in NAMES:
        pace = rng.choice([Pace.OBSERVED, Pace.EAGER, Pace.HELD])
        schedule = order(trace, name, pace=pace, reassign=reassign)
        run = replay(trace, sent.destination, schedule)
        assert run.outcome is Outcome.COMPLETED
        assert [each.size for each in run.written] == [len(data) for data in sent.data]


@pytest.mark.parametrize(
    ("name", "idx"),
    [
        ("in-order", [0, 1, 2, 3, 4, 5]),
        ("reverse", [5, 4, 3, 2, 1, 0]),
        ("last-first", [5, 4, 3, 2, 1, 0]),
        ("config-first", [5, 0, 1, 2, 3, 4]),
        ("round-robin", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_reassigned_order_is_the_one_that_is_named(name: str, idx: list[int]) -> None:
    trace = vector_observation(GOOD).trace
    schedule = order(trace, name, reassign=True)
    run = replay(trace, run_vector(GOOD)[1], schedule)
    incoming = [found.args[1] for found in run.traces if found.name.endswith("_buffer_incoming")]
    assert incoming == idx


@pytest.mark.parametrize(
    ("name", "idx"),
    [
        # Channels: 0 has idx 0 and 4, 1 has 1 and 5, 2 has 2, 3 has 3.
        ("reverse", [3, 2, 1, 5, 0, 4]),
        ("config-first", [0, 1, 5, 2, 3, 4]),
        ("round-robin", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_order_goes_as_far_as_the_channels_let_it(name: str, idx: list[int]) -> None:
    trace = vector_observation(GOOD).trace
    packets = {(packet.lane, packet.place): packet.idx for packet in packets_of(trace)}
    found = [packets[place] for place in arrived(trace, order(trace, name)) if place in packets]
    assert found == idx


def test_reassign_round_robin_uses_all_channels_in_turn() -> None:
    trace = observation("mtty-4ch-clean").trace
    schedule = order(trace, "round-robin", reassign=True)
    acts = [act for act in schedule.acts or () if isinstance(act, Take) and act.packet is not None]
    assert sorted(act.packet for act in acts if act.packet is not None) == [0, 1, 2, 3, 4, 5]
    assert [act.lane for act in acts] == ["2", "1", "0", "3", "2", "1"]


def test_unknown_names_are_told() -> None:
    with pytest.raises(ScheduleError, match="there is no order 'sideways'"):
        order(observation("mtty-4ch-clean").trace, "sideways")
