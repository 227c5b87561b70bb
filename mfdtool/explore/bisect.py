# SPDX-License-Identifier: GPL-2.0-or-later
"""Reduces a failure to what it takes to fail, as long as it stays the same failure.

Faults go first, then bytes of what a fault corrupts, each of them with all packets there: with
other faults it is another migration, of which nothing was taken out yet. Then, again and again
until nothing can go: packets and sections, deviations from the recorded order, steps of the load
threads, and moves to other channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final

from mfdtool.explore.align import adapted
from mfdtool.explore.reduce import minimal
from mfdtool.explore.shrink import Shrunk, Unit, rounds_of, units_of, without
from mfdtool.schedule.acts import Act, Load, SetUp, Take
from mfdtool.schedule.apply import apply
from mfdtool.schedule.faults import Corrupt, Fault
from mfdtool.schedule.schedule import Pace, Schedule

if TYPE_CHECKING:
    from mfdtool.schedule.observation import Observation
    from mfdtool.schedule.trace import Trace

SIMPLE: Final = (Pace.EAGER, Pace.OBSERVED, Pace.HELD)
"""Paces that are tried with what was recorded: if one will do, the order is no cause."""


@dataclass(frozen=True)
class Candidate:
    """A migration that may fail in the same way.

    Attributes:
        observation: what was captured, with the faults but with all packets.
        faults: what was done to it.
        shrunk: what is left of it, and in which order it arrives.
    """

    observation: Observation
    faults: tuple[Fault, ...]
    shrunk: Shrunk

    @property
    def trace(self) -> Trace:
        """What arrives."""
        return self.shrunk.trace

    @property
    def schedule(self) -> Schedule:
        """In which order."""
        return self.shrunk.schedule


Fails = Callable[[Candidate], bool]
"""Whether a candidate fails in the same way; what cannot be told counts as no."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: candidates tried, and what is left of faults and items."""

    tests: int
    faults: int
    items: int


@dataclass(frozen=True)
class Cause:
    """What it takes to fail.

    Attributes:
        candidate: what is left.
        whole: the same faults and order with all packets, which fails in the same way.
        tests: candidates tried.
    """

    candidate: Candidate
    whole: Candidate
    tests: int


class Bisector:
    """Reduces one failure; use :func:`bisect`."""

    def __init__(
        self,
        observation: Observation,
        fails: Fails,
        *,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._original = observation
        self._fails = fails
        self._progress = progress
        self._tests = 0
        self._chunk: int | None = None
        self._applied: dict[tuple[Fault, ...], Observation] = {}

    def start(self, faults: tuple[Fault, ...], schedule: Schedule) -> Candidate:
        """Make the candidate that everything begins with.

        Raises:
            ScheduleError: a fault or the schedule is not one of this recording.
        """
        bad = self._with(faults)
        schedule.check(bad.trace)
        return Candidate(bad, faults, without(bad.trace, schedule, ()))

    def fails(self, candidate: Candidate) -> bool:
        """Try a candidate."""
        self._tests += 1
        if self._progress is not None:
            items = len(candidate.trace.observed)
            self._progress(Progress(self._tests, len(candidate.faults), items))
        return self._fails(candidate)

    def reduce(self, first: Candidate, *, foreseen: Cause | None = None) -> Cause:
        """Reduce a candidate that fails.

        ``foreseen`` is what it is expected to come down to. If that does fail, it is begun with,
        and chunks of it are not tried, only its single elements.
        """
        if foreseen is not None and self.fails(foreseen.whole):
            first = foreseen.whole
        whole = self._simpler_order(self._fewer_faults(first))
        whole = self._fewer_bytes(whole)
        if foreseen is not None and whole is foreseen.whole and self.fails(foreseen.candidate):
            found = foreseen.candidate
            self._chunk = 1
        else:
            found = self._cut_off(whole)
        while True:
            before = found
            found = self._fewer_items(found)
            found = self._simpler_order(found)
            found = self._fewer_steps(found)
            found = self._fewer_moves(found)
            found = self._recorded_order(found)
            if _size(found) == _size(before):
                return Cause(found, whole, self._tests)

    def _with(self, faults: tuple[Fault, ...]) -> Observation:
        known = self._applied.get(faults)
        if known is None:
            known = self._applied[faults] = apply(self._original, faults)
        return known

    # Faults

    def _fewer_faults(self, found: Candidate) -> Candidate:
        if not found.faults:
            return found
        kept = minimal(
            found.faults, lambda faults: self.fails(self._refaulted(found, tuple(faults)))
        )
        return self._refaulted(found, kept)

    def _refaulted(self, found: Candidate, faults: tuple[Fault, ...]) -> Candidate:
        """Give the same with other faults, of which nothing was taken out yet."""
        if faults == found.faults:
            return found
        bad = self._with(faults)
        schedule = adapted(found.schedule, found.trace, bad.trace)
        return Candidate(bad, faults, without(bad.trace, schedule, ()))

    def _fewer_bytes(self, found: Candidate) -> Candidate:
        """Keep those bytes of a corruption that matter."""
        for fault in found.faults:
            if isinstance(fault, Corrupt) and fault.length > 1:
                others = tuple(other for other in found.faults if other is not fault)
                found = self._fewer_bytes_of(found, fault, others)
        return found

    def _fewer_bytes_of(
        self, found: Candidate, fault: Corrupt, others: tuple[Fault, ...]
    ) -> Candidate:
        def with_bytes(offsets: Sequence[int]) -> Candidate:
            return self._refaulted(found, (*others, *_corruptions(fault, offsets)))

        offsets = range(fault.offset, fault.offset + fault.length)
        kept = minimal(offsets, lambda some: bool(some) and self.fails(with_bytes(some)))
        return with_bytes(kept)

    # Order

    def _simpler_order(self, found: Candidate) -> Candidate:
        """Use the recorded order, with threads as fast as they can, if it will do."""
        if found.schedule.acts is None and found.schedule.pace is SIMPLE[0]:
            return found
        for pace in SIMPLE:
            simple = _rescheduled(found, Schedule(found.trace.digest, pace))
            if simple.schedule == found.schedule:
                return found
            if self.fails(simple):
                return simple
        return found

    def _fewer_steps(self, found: Candidate) -> Candidate:
        """Take out steps of load threads."""
        acts = found.schedule.acts
        if acts is None:
            return found
        steps = [number for number, act in enumerate(acts) if isinstance(act, Load | SetUp)]

        def with_steps(kept: Sequence[int]) -> Candidate:
            gone = set(steps).difference(kept)
            left = tuple(act for number, act in enumerate(acts) if number not in gone)
            return _rescheduled(found, replace(found.schedule, acts=left))

        kept = minimal(steps, lambda some: self.fails(with_steps(some)), size=self._chunk)
        return with_steps(kept)

    def _fewer_moves(self, found: Candidate) -> Candidate:
        """Leave packets in their channels, where that they were moved to others plays no part."""
        acts, trace = found.schedule.acts, found.trace
        if acts is None:
            return found
        homes = {
            at: Take(trace.lanes[trace.packets[act.packet][0]].token)
            for at, act in enumerate(acts)
            if isinstance(act, Take) and act.packet is not None
        }

        def with_moves(kept: Sequence[int]) -> Candidate:
            left = tuple(act if at in kept else homes.get(at, act) for at, act in enumerate(acts))
            return _rescheduled(found, replace(found.schedule, acts=left))

        return with_moves(minimal(tuple(homes), lambda some: self.fails(with_moves(some))))

    def _recorded_order(self, found: Candidate) -> Candidate:
        """Undo what is not as recorded, neighbour by neighbour, until each that is left matters.

        Steps of load threads go forward as far as they can.
        """
        if found.schedule.acts is None:
            return found
        ranks = _ranks(found.trace, found.schedule.acts)
        acts = list(found.schedule.acts)
        changed = True
        while changed:
            changed = False
            for at in range(1, len(acts)):
                if ranks[at] >= ranks[at - 1]:
                    continue
                swapped = [*acts[: at - 1], acts[at], acts[at - 1], *acts[at + 1 :]]
                other = _rescheduled(found, replace(found.schedule, acts=tuple(swapped)))
                if self.fails(other):
                    found, acts, changed = other, swapped, True
                    ranks[at - 1], ranks[at] = ranks[at], ranks[at - 1]
        return found

    # Items

    def _cut_off(self, found: Candidate) -> Candidate:
        """Leave out what arrives after the destination's end, if it has one."""
        acts = found.schedule.acts_on(found.trace)
        low, high = 0, len(acts)
        if self.fails(_until(found, acts, 0)):
            return _until(found, acts, 0)
        while high - low > 1:
            middle = (low + high) // 2
            if self.fails(_until(found, acts, middle)):
                high = middle
            else:
                low = middle
        shorter = _until(found, acts, high)
        return shorter if high < len(acts) and self.fails(shorter) else found

    def _fewer_items(self, found: Candidate) -> Candidate:
        found = self._fewer_of_units(found, rounds_of(found.trace))
        return self._fewer_of_units(found, units_of(found.trace))

    def _fewer_of_units(self, found: Candidate, units: tuple[Unit, ...]) -> Candidate:
        trace, schedule = found.trace, found.schedule

        def with_units(kept: Sequence[Unit]) -> Candidate:
            left = {place for unit in kept for place in unit}
            gone = [place for unit in units for place in unit if place not in left]
            return replace(found, shrunk=_composed(found.shrunk, without(trace, schedule, gone)))

        kept = minimal(units, lambda some: self.fails(with_units(some)), size=self._chunk)
        return with_units(kept)


def bisect(
    observation: Observation,
    faults: Sequence[Fault],
    schedule: Schedule,
    fails: Fails,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> Cause | None:
    """Reduce a failure; None if it does not fail to begin with.

    ``schedule`` is one of the recording with the faults; that packets are held back is part of it.
    If ``fails`` gives the same answer to the same question, so does this.

    Raises:
        ScheduleError: a fault or the schedule is not one of this recording.
    """
    bisector = Bisector(observation, fails, progress=progress)
    first = bisector.start(tuple(faults), schedule)
    return bisector.reduce(first) if bisector.fails(first) else None


def _size(found: Candidate) -> tuple[int, int, str]:
    return len(found.trace.observed), len(found.faults), str(found.schedule)


def _rescheduled(found: Candidate, schedule: Schedule) -> Candidate:
    return replace(found, shrunk=replace(found.shrunk, schedule=schedule))


def _until(found: Candidate, acts: tuple[Act, ...], stop: int) -> Candidate:
    """Give what arrives with the first acts; the rest is no longer part of the trace."""
    trace, schedule = found.trace, found.schedule
    places = Schedule(trace.digest, schedule.pace, acts).places(trace)
    arrived = set(islice(places, stop))
    gone = [
        (number, place)
        for number, lane in enumerate(trace.lanes)
        for place in range(len(lane.entries))
        if (number, place) not in arrived
    ]
    if schedule.acts is not None:
        schedule = replace(schedule, acts=acts[:stop])
    return replace(found, shrunk=_composed(found.shrunk, without(trace, schedule, gone)))


def _composed(first: Shrunk, second: Shrunk) -> Shrunk:
    """Tell where entries come from that were taken out twice."""
    origin = tuple(
        tuple(first.origin[lane][place] for lane, place in places) for places in second.origin
    )
    idx = {}
    for lane, places in enumerate(second.origin):
        for at, place in enumerate(places):
            original = origin[lane][at]
            new = second.idx.get(place, first.idx.get(original))
            if new is not None:
                idx[original] = new
    return replace(second, origin=origin, idx=idx)


def _corruptions(fault: Corrupt, offsets: Sequence[int]) -> tuple[Corrupt, ...]:
    """Give a corruption of some of the bytes only, one fault for each stretch."""
    stretches: list[list[int]] = []
    for offset in offsets:
        if stretches and stretches[-1][-1] == offset - 1:
            stretches[-1].append(offset)
        else:
            stretches.append([offset])
    found = []
    for stretch in stretches:
        start, length = stretch[0], len(stretch)
        data = fault.data
        if data is not None:
            data = data[start - fault.offset : start - fault.offset + length]
        found.append(replace(fault, offset=start, length=length, data=data))
    return tuple(found)


def _ranks(trace: Trace, acts: Sequence[Act]) -> list[int]:
    """Say where each act belongs: items where they were recorded, steps before everything."""
    positions: list[list[int]] = [[] for _ in trace.lanes]
    for position, lane in enumerate(trace.observed):
        positions[lane].append(position)
    places = Schedule(trace.digest, Pace.STEPS, tuple(acts)).places(trace)
    return [-1 if at is None else positions[at[0]][at[1]] for at in places]
