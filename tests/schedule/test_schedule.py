# SPDX-License-Identifier: GPL-2.0-or-later
"""Schedules: their text, and what they make arrive."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from mfdtool.errors import ScheduleError
from mfdtool.loader.assume import assume
from mfdtool.loader.options import DestinationOptions
from mfdtool.loader.state import Outcome
from mfdtool.replay.driver import replay
from mfdtool.schedule.acts import Load, SetUp, Take
from mfdtool.schedule.orders import ORDERS, order
from mfdtool.schedule.schedule import Pace, Schedule, is_schedule, parse_schedule
from mfdtool.schedule.trace import Trace, trace_of
from tests.replay.test_vectors import idx_list
from tests.support.legitimate import interleaved, random_sent
from tests.support.vectors import observation

SAMPLES = Path(__file__).parents[1] / "data" / "schedules"
CLEAN = "mtty-4ch-clean"


def made(seed: int) -> Trace:
    rng = random.Random(seed)
    return trace_of(interleaved(rng, random_sent(rng)))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("pace", list(Pace))
def test_round_trip(seed: int, pace: Pace) -> None:
    trace = made(seed)
    for name in (*ORDERS, "round-robin", "recorded"):
        schedule = order(trace, name, pace=pace, reassign=name != "recorded")
        again = parse_schedule(str(schedule))
        assert again == schedule
        again.check(trace)
        assert again.moves_packets == (name != "recorded" and bool(trace.packets))


def test_every_truncation_is_told() -> None:
    trace = observation(CLEAN).trace
    text = str(order(trace, "reverse"))
    for length in range(text.rindex(":") + 1):
        with pytest.raises(ScheduleError):
            parse_schedule(text[:length]).check(trace)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is no schedule"),
        ("hello", "it is no schedule"),
        ("mfd2:0:observed:m", "version mfd2 is not known"),
        ("mfdddddddddddddddddddd:0:observed:m", "it is no schedule"),
        ("mfd1", "cut off"),
        ("mfd1:0:observed", "cut off"),
        ("mfd1:0:fast:m", "'fast' is no pace"),
        ("mfd1:0:observed:m:0", "no step of a schedule"),
        ("mfd1:0:observed:recordedm", "made for trace 0"),
    ],
)
def test_what_is_no_schedule(text: str, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        parse_schedule(text).check(observation(CLEAN).trace)


@pytest.mark.parametrize(
    ("acts", "message"),
    [
        ((Take("9"),), "the trace has no channel 9"),
        ((Take("m"),) * 10_000, "main has [0-9]+ items, the schedule wants more"),
        ((Take("0", 0), Take("1", 0)), "moves a packet twice"),
        ((Take("0", 6),), "the trace has 6 device packets, not 7"),
        ((Take("m", 0),), "main carries no device packets"),
    ],
)
def test_acts_that_are_not_of_the_trace(acts: tuple[Take, ...], message: str) -> None:
    trace = observation(CLEAN).trace
    with pytest.raises(ScheduleError, match=message):
        Schedule(trace.digest, acts=acts).check(trace)


def test_schedule_of_another_trace() -> None:
    trace = observation(CLEAN).trace
    with pytest.raises(ScheduleError, match="made for trace 000000000000, this is"):
        Schedule("000000000000").check(trace)
    destination, _ = assume(trace.recording, DestinationOptions())
    with pytest.raises(ScheduleError, match="made for trace"):
        replay(trace, destination, Schedule("000000000000"))


@pytest.mark.parametrize(
    ("digest", "message"),
    [
        ("zz", "made for trace zz, this is d6fae27a86cb"),
        ("f" * 100_000, "made for trace f{40}[.]{3}, this is d6fae27a86cb"),
        ("d6fae27a86cb", "more than [0-9]{4} steps"),
    ],
    ids=["short", "long", "right"],
)
@pytest.mark.parametrize(
    "acts",
    ["99999999xm", "d0," * 99_999, "9x" + "d0+" * 99_999 + "d0"],
    ids=["repeated", "single", "grouped"],
)
def test_steps_that_cannot_be_of_the_trace_are_not_made(
    digest: str, message: str, acts: str
) -> None:
    trace = observation(CLEAN).trace
    assert trace.digest == "d6fae27a86cb"
    text = f"mfd1:{digest}:steps:{acts}"
    tracemalloc.start()
    with pytest.raises(ScheduleError, match=message):
        parse_schedule(text, trace)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * len(text) + 1_000_000


@pytest.mark.parametrize("name", ORDERS)
def test_every_order_can_be_of_its_trace(name: str) -> None:
    trace = observation(CLEAN).trace
    schedule = order(trace, name)
    assert parse_schedule(str(schedule), trace) == schedule


@pytest.mark.parametrize("text", ["mfd1:", "mfd2:a:b:c", "mfd1:0:observed:m"])
def test_a_schedule_is_known_by_its_beginning(text: str) -> None:
    assert is_schedule(text)
    assert not is_schedule(text[1:])
    assert not is_schedule(text.partition(":")[0])


@pytest.mark.parametrize("seed", range(20))
def test_recorded_is_the_order_of_arrival(seed: int) -> None:
    trace = made(seed)
    arrived = [arrival.entry for arrival in Schedule(trace.digest).arrivals(trace)]
    assert arrived == list(trace.recording.entries)


def test_steps_are_no_arrivals() -> None:
    trace = made(1)
    schedule = Schedule(trace.digest, Pace.STEPS, (Load(0), Take("m"), SetUp()))
    first, second, third = schedule.arrivals(trace)
    assert (first.entry, third.entry) == (None, None)
    assert second.entry is not None
    assert second.entry.channel == "main"


def test_moved_packet_keeps_all_but_its_channel() -> None:
    trace = observation(CLEAN).trace
    schedule = Schedule(trace.digest, acts=(Take("3", 0), Take("1")))
    moved, _ = schedule.arrivals(trace)
    assert moved.entry is not None
    recorded = trace.entry(*trace.packets[0])
    assert moved.entry == replace(recorded, channel="multifd-3")


KEPT = {
    "recorded": (Outcome.COMPLETED, [0, 1, 2, 3, 4]),
    "reverse-held": (Outcome.COMPLETED, [0, 1, 2, 3, 4]),
    "reverse-reassigned": (Outcome.COMPLETED, [0, 1, 2, 3, 4]),
    "round-robin-eager": (Outcome.COMPLETED, [0, 1, 2, 3, 4]),
    "steps": (Outcome.COMPLETED, [0, 1, 2, 3, 4]),
    "steps-cut": (Outcome.STALLED, [0, 1]),
}
"""Schedules of captures/mtty-4ch-clean that version mfd1 has written, and what they give."""


@pytest.mark.parametrize("name", KEPT)
def test_kept_samples_are_read_and_give_what_they_gave(name: str) -> None:
    trace = observation(CLEAN).trace
    text = (SAMPLES / f"{name}.txt").read_text().strip()
    schedule = parse_schedule(text)
    assert str(schedule) == text
    destination, _ = assume(trace.recording, DestinationOptions())
    run = replay(trace, destination, schedule)
    assert (run.outcome, idx_list(run, "load_end")) == KEPT[name]


def test_every_kept_sample_is_tried() -> None:
    assert {path.stem for path in SAMPLES.glob("*.txt")} == set(KEPT)


@pytest.mark.parametrize("seed", range(20))
def test_the_rest_comes_behind(seed: int) -> None:
    """Whatever a schedule leaves out arrives as it was recorded, once and no more."""
    trace = made(seed)
    rng = random.Random(seed)
    for name in ("recorded", "reverse"):
        whole = order(trace, name, pace=Pace.STEPS, reassign=name != "recorded")
        acts = whole.acts_on(trace)
        cut = replace(whole, acts=acts[: rng.randint(0, len(acts))])
        if whole.acts is None:
            assert whole.with_rest(trace) is whole
            assert cut.with_rest(trace).acts == acts
        longer = cut.with_rest(trace)
        longer.check(trace)
        assert longer.acts is not None
        assert cut.acts is not None
        assert longer.acts[: len(cut.acts)] == cut.acts
        arrived = [id(found.event) for _, found in longer.arrivals(trace) if found is not None]
        assert len(set(arrived)) == len(arrived) == len(trace.observed)
