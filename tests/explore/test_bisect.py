# SPDX-License-Identifier: GPL-2.0-or-later
"""Failures of a real recording, reduced to what they take."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import pytest

from mfdtool.explore.bisect import Bisector, Candidate, Cause, bisect
from mfdtool.explore.reproduction import reproduction_of, schedule_of
from mfdtool.explore.sentence import sentence_of
from mfdtool.explore.shrink import units_of, without
from mfdtool.explore.signature import Signature, judge
from mfdtool.loader.assume import assume
from mfdtool.loader.destination import Destination
from mfdtool.loader.events import DevicePacket
from mfdtool.loader.options import DestinationOptions
from mfdtool.loader.recording import Entry
from mfdtool.schedule.acts import Load, SetUp, Take
from mfdtool.schedule.apply import apply
from mfdtool.schedule.faults import Fault, parse_fault
from mfdtool.schedule.orders import order
from mfdtool.schedule.schedule import Pace, Schedule, parse_schedule
from mfdtool.schedule.trace import Trace, packet_of
from tests.support.vectors import observation

NAME: Final = "mtty-4ch-clean"
DEVICE: Final = "dev=0000:00:05.0/vfio,idx="
LOWERED: Final = (
    "mfd1:cecfbc4e18ca:steps:2x2+1+0+3+m,m,2xs,30xm,18x2,16x1,18x0,22x3,8xm,2,1,2x0,2x3,2x1,"
    "2xd0,2x2,m,3,d0"
)
EARLY: Final = (
    "mfd1:fa23fc27b112:steps:2,1,0,3,3xm,2,1,0,3,2xs,30xm,18x2,16x1,18x0,22x3,8xm,2,1,2x0,2x3,2x2,"
    "2x1,100xm,2x3,6xd0,m"
)


@dataclass(frozen=True)
class Case:
    """A failure, and what it comes down to."""

    faults: tuple[str, ...]
    kept: tuple[str, ...]
    sentence: str
    schedule: str = ""


CASES: Final = {
    "config-lowered": Case(
        ("set:multifd-3#26:idx=0",),
        ("set:multifd-3#26:idx=0",),
        "config packet idx 0 on multifd-3 arrives while idx 1 is waited for",
        LOWERED,
    ),
    "lost-packet": Case(
        (f"drop:{DEVICE}2", "set:multifd-2#1:packet_num=77"),
        (f"drop:{DEVICE}2",),
        "idx 2 of 0000:00:05.0/vfio never arrives, and its load thread waits for it",
    ),
    "silent-loss": Case(
        ("drop:main#38",),
        ("drop:main#38",),
        "SWITCHOVER_START never arrives, so the packets of 0000:00:05.0/vfio are thrown away"
        " and the guest runs without them",
    ),
    "duplicate": Case(
        (f"duplicate:{DEVICE}2",),
        (f"duplicate:{DEVICE}2",),
        "idx 2 arrives twice: on multifd-0#22, then on multifd-0#23",
    ),
    "config-too-early": Case(
        (f"set:{DEVICE}5:idx=2",),
        (f"set:{DEVICE}5:idx=2",),
        "config packet idx 2 on multifd-3 ends the data of 0000:00:05.0/vfio, of which more was"
        " sent: the device got 56 bytes and cannot run with them",
        EARLY,
    ),
    "error-before-a-stall": Case(
        (f"truncate:{DEVICE}3:288",),
        (f"truncate:{DEVICE}3:288",),
        "multifd-1#21: Unexpected end-of-file before all data were read; so idx 2 of"
        " 0000:00:05.0/vfio never arrives, and its load thread waits for it",
    ),
    "error-before-a-flush": Case(
        ("corrupt:multifd-1#19:268+30",),
        ("corrupt:multifd-1#19:272+1",),
        "multifd-1#19: Unexpected end-of-file before all data were read; so flush 4 got no SYNC"
        " from multifd-2, multifd-1, multifd-0, multifd-3",
    ),
    "bytes": Case(
        (f"corrupt:{DEVICE}5:276+40",),
        (f"corrupt:{DEVICE}5:276+1",),
        "multifd-3#26: NAME: packet has unknown version 4278190080",
    ),
}


ERRORS: Final = ("error-before-a-stall", "error-before-a-flush")
"""What is left of these ends within a packet, which a capture alone does not show."""


@cache
def destination() -> Destination:
    return assume(observation(NAME).recording, DestinationOptions())[0]


@cache
def start(name: str) -> tuple[tuple[Fault, ...], Schedule, Signature]:
    case = CASES[name]
    faults = tuple(parse_fault(text) for text in case.faults)
    bad = apply(observation(NAME), faults)
    schedule = Schedule(bad.trace.digest)
    if case.schedule:
        schedule = parse_schedule(case.schedule)
    return faults, schedule, judge(bad.trace, destination(), schedule).signature


@cache
def cause_of(name: str) -> Cause:
    faults, schedule, _ = start(name)
    cause = bisect(observation(NAME), faults, schedule, lambda found: is_same(name, found))
    assert cause is not None
    return cause


def is_same(name: str, found: Candidate) -> bool:
    return judge(found.trace, destination(), found.schedule).signature == start(name)[2]


@pytest.mark.parametrize("name", CASES)
def test_the_fault_that_matters_is_left(name: str) -> None:
    cause = cause_of(name)
    assert tuple(str(fault) for fault in cause.candidate.faults) == CASES[name].kept


@pytest.mark.parametrize("name", CASES)
def test_the_cause_in_words(name: str) -> None:
    whole = cause_of(name).whole
    judged = judge(whole.trace, destination(), whole.schedule, keeps_moments=True)
    assert sentence_of(judged, destination()) == CASES[name].sentence


@pytest.mark.parametrize("name", CASES)
def test_nothing_that_is_left_can_go(name: str) -> None:
    found = cause_of(name).candidate
    assert is_same(name, found)
    for unit in units_of(found.trace):
        assert not is_same(name, less(found, unit))
    acts = found.schedule.acts or ()
    for number, act in enumerate(acts):
        if isinstance(act, Load | SetUp):
            rest = (*acts[:number], *acts[number + 1 :])
            assert not is_same(name, reordered(found, replace(found.schedule, acts=rest)))
    for number in range(len(found.faults)):
        others = (*found.faults[:number], *found.faults[number + 1 :])
        whole = apply(observation(NAME), others)
        simple = Schedule(whole.trace.digest, Pace.EAGER)
        assert judge(whole.trace, destination(), simple).signature != start(name)[2]


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_same_every_time(name: str) -> None:
    faults, schedule, _ = start(name)
    again = bisect(observation(NAME), faults, schedule, lambda found: is_same(name, found))
    assert again is not None
    cause = cause_of(name)
    assert str(again.candidate.schedule) == str(cause.candidate.schedule)
    assert again.candidate.shrunk.origin == cause.candidate.shrunk.origin
    assert again.tests == cause.tests


@pytest.mark.parametrize("name", [name for name in CASES if name not in ERRORS])
def test_the_small_capture_fails_in_the_same_way(name: str) -> None:
    found = cause_of(name).candidate
    reproduction = reproduction_of(found)
    small = reproduction.observation()
    assert small is not None
    schedule = schedule_of(found, small)
    assert judge(small.trace, destination(), schedule).signature == start(name)[2]
    assert len(reproduction.capture()) < 20_000


def test_moved_packets_are_in_the_small_capture_once_and_where_they_arrive() -> None:
    whole = observation(NAME)
    trace = whole.trace
    first = trace.packets[0]
    other = trace.lanes[(set(trace.by_token.values()) - {0, first[0]}).pop()].token
    taken = [trace.lanes[lane].token for lane in trace.observed]
    # The first packet arrives as the last of another channel; the others keep their channels.
    del taken[trace.observed.index(first[0])]
    acts = (*(Take(token) for token in taken), Take(other, 0))
    schedule = Schedule(trace.digest, Pace.STEPS, acts)
    found = Candidate(whole, (), without(trace, schedule, ()))
    small = reproduction_of(found).observation()
    assert small is not None
    arrived = brief(entry for _, entry in schedule.arrivals(trace) if entry is not None)
    assert len(arrived) == len(trace.packets)
    assert arrived[-1] == (trace.lanes[trace.by_token[other]].name, 0)
    assert brief(small.trace.entry(*place) for place in small.trace.packets) == arrived


def test_a_move_that_matters_is_left() -> None:
    whole = observation(NAME)
    trace = whole.trace
    schedule = order(trace, "reverse", reassign=True)
    first = packets_of(schedule, trace)[0]
    (entry,) = (trace.entry(*at) for at in trace.packets if packet_of(trace.entry(*at)) == first[1])
    assert entry.channel != first[0]

    def begins_alike(found: Candidate) -> bool:
        packets = packets_of(found.schedule, found.trace)
        if len(packets) < 2:
            return False
        channel, packet = packets[0]
        small = reproduction_of(found).observation()
        is_whole = small is not None and "m" in small.trace.by_token
        return is_whole and channel == first[0] and packet.data.key == first[1].data.key

    cause = bisect(whole, (), schedule, begins_alike)
    assert cause is not None
    found = cause.candidate
    found.schedule.check(found.trace)
    # The packet that is moved, and one more, which need not be moved any more.
    assert str(found.schedule).count("@") == 1
    assert len(found.trace.packets) == 2
    small = reproduction_of(found).observation()
    assert small is not None
    again = schedule_of(found, small)
    assert not again.moves_packets
    assert [
        (channel, packet.idx, packet.is_config)
        for channel, packet in packets_of(again, small.trace)
    ] == [
        (channel, packet.idx, packet.is_config)
        for channel, packet in packets_of(found.schedule, found.trace)
    ]


def packets_of(schedule: Schedule, trace: Trace) -> list[tuple[str, DevicePacket]]:
    """Give the device packets that arrive, each with its channel."""
    return [
        (entry.channel, packet)
        for _, entry in schedule.arrivals(trace)
        if entry is not None and (packet := packet_of(entry)) is not None
    ]


def brief(entries: Iterable[Entry]) -> list[tuple[str, int | None]]:
    """Give the channel and the idx of the device packets among some entries."""
    return [
        (entry.channel, packet.idx) for entry in entries if (packet := packet_of(entry)) is not None
    ]


@pytest.mark.parametrize("name", ERRORS)
def test_the_error_before_a_stall_is_still_there(name: str) -> None:
    found = cause_of(name).candidate
    judged = judge(found.trace, destination(), found.schedule)
    assert judged.error is not None
    assert judged.error.channel == "multifd-1"


def test_a_sentence_is_no_code_in_the_written_test() -> None:
    name = "lost-packet"
    reproduction = reproduction_of(cause_of(name).candidate)
    for idstr in ('"""\nassert False\n"""', "'''", "\\", "a\nassert False", "{words}", "\x00"):
        sentence = f"idx 2 of {idstr} never arrives"
        text = reproduction.test(start(name)[2], sentence, ("--destination", f"device={idstr}"))
        module = ast.parse(text)
        assert ast.get_docstring(module, clean=False) == sentence
        words = [node.value for node in ast.walk(module) if isinstance(node, ast.Constant)]
        assert f"device={idstr}" in words
        kinds = {type(statement) for statement in module.body}
        assert kinds == {ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.FunctionDef}


def test_the_order_counts_only_where_it_matters() -> None:
    assert cause_of("config-lowered").candidate.schedule.pace is Pace.STEPS
    for name in ("lost-packet", "silent-loss"):
        assert cause_of(name).candidate.schedule.acts is None


def test_what_does_not_fail_has_no_cause() -> None:
    good = observation(NAME)
    assert bisect(good, (), Schedule(good.trace.digest), lambda found: False) is None


def test_idx_close_up_where_a_packet_goes() -> None:
    trace = observation(NAME).trace
    schedule = Schedule(trace.digest)
    first = trace.packets[0]
    shrunk = without(trace, schedule, [first])
    left = [packet_of(shrunk.trace.entry(*place)) for place in shrunk.trace.packets]
    assert sorted(packet.idx or 0 for packet in left if packet is not None) == [0, 1, 2, 3, 4]
    shrunk.schedule.check(shrunk.trace)


def less(found: Candidate, unit: Sequence[tuple[int, int]]) -> Candidate:
    return replace(found, shrunk=without(found.trace, found.schedule, unit))


def reordered(found: Candidate, schedule: Schedule) -> Candidate:
    return replace(found, shrunk=replace(found.shrunk, schedule=schedule))


@pytest.mark.parametrize("name", CASES)
def test_what_is_foreseen_takes_few_tries(name: str) -> None:
    faults, schedule, _ = start(name)
    cause = cause_of(name)
    bisector = Bisector(observation(NAME), lambda found: is_same(name, found))
    again = bisector.reduce(bisector.start(faults, schedule), foreseen=cause)
    assert again.candidate.shrunk.origin == cause.candidate.shrunk.origin
    assert again.candidate.schedule == cause.candidate.schedule
    assert again.tests < cause.tests


def test_what_was_foreseen_wrongly_does_no_harm() -> None:
    """Neither a whole that does not fail, nor a rest that does not."""
    faults, schedule, _ = start("lost-packet")
    cause = cause_of("lost-packet")
    empty = less(cause.candidate, units_of(cause.candidate.trace)[0])
    other = cause_of("silent-loss")
    for wrong in (replace(cause, candidate=empty), replace(cause, whole=other.whole)):
        bisector = Bisector(observation(NAME), lambda found: is_same("lost-packet", found))
        again = bisector.reduce(bisector.start(faults, schedule), foreseen=wrong)
        assert again.candidate.shrunk.origin == cause.candidate.shrunk.origin


def test_a_reproduction_moves_nothing() -> None:
    """What was moved to another channel is sent there."""
    whole = observation(NAME)
    moving = order(whole.trace, "reverse", pace=Pace.OBSERVED, reassign=True)
    assert moving.moves_packets
    bisector = Bisector(whole, lambda _: True)
    candidate = bisector.start((), moving)
    small = reproduction_of(candidate).observation()
    assert small is not None
    schedule = schedule_of(candidate, small)
    schedule.check(small.trace)
    assert not schedule.moves_packets
    judged = judge(small.trace, destination(), schedule)
    assert judged.signature == judge(whole.trace, destination(), moving).signature
    assert idx_of(small.trace, schedule) == idx_of(whole.trace, moving) == [1, 0, 5, 4, 3, 2]


def idx_of(trace: Trace, schedule: Schedule) -> list[int | None]:
    packets = [packet_of(entry) for _, entry in schedule.arrivals(trace) if entry is not None]
    return [packet.idx for packet in packets if packet is not None]
