# SPDX-License-Identifier: GPL-2.0-or-later
"""A schedule: in which order a trace's items arrive, and what moves the load threads.

Its text is one word: version, digest of the trace, pace, steps::

    mfd1:4f0c21a7be93:steps:36xm,4x0+1,d0,m
    mfd1:4f0c21a7be93:observed:recorded
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Final, NamedTuple

from mfdtool.errors import ScheduleError
from mfdtool.loader.events import Connect, Deliver
from mfdtool.schedule.acts import MAX_ACTS, Act, Take, read_acts, takes, write_acts

if TYPE_CHECKING:
    from mfdtool.loader.recording import Entry
    from mfdtool.schedule.trace import Place, Trace

VERSION: Final = "mfd1"
RECORDED: Final = "recorded"
_FIELDS: Final = 4
_BEGINNING: Final = re.compile(r"mfd[0-9]{1,4}:")
_LONGEST_SHOWN: Final = 40
_STEPS_PER_ITEM: Final = 16
"""A thread takes fewer steps for an item; others may be there that it cannot take."""

_OTHER_STEPS: Final = 1000


class Pace(Enum):
    """How fast load threads are."""

    OBSERVED = "observed"
    """A step for every item, and all they can in a pause."""
    EAGER = "eager"
    """All they can after every item."""
    HELD = "held"
    """Nothing, until nobody else can go on."""
    STEPS = "steps"
    """What the schedule says, and nothing else."""


class Arrival(NamedTuple):
    """An act that was carried out on a trace: what arrives, None for a step of a thread."""

    act: Act
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """An order of one trace.

    Attributes:
        digest: the trace's.
        pace: what moves load threads; with ``Pace.STEPS`` only acts do.
        acts: what happens, in this order; None for what was recorded, with its times.
    """

    digest: str
    pace: Pace = Pace.OBSERVED
    acts: tuple[Act, ...] | None = None

    def __str__(self) -> str:
        acts = RECORDED if self.acts is None else write_acts(self.acts)
        return f"{VERSION}:{self.digest}:{self.pace.value}:{acts}"

    @property
    def moves_packets(self) -> bool:
        """Whether device packets are moved to other channels (``reassign``)."""
        return any(isinstance(act, Take) and act.packet is not None for act in self.acts or ())

    def acts_on(self, trace: Trace) -> tuple[Act, ...]:
        """Give the acts, written out."""
        if self.acts is not None:
            return self.acts
        return takes(trace.lanes[lane].token for lane in trace.observed)

    def with_rest(self, trace: Trace) -> Schedule:
        """Give the same, and behind it all that it leaves out, in the order of the recording."""
        if self.acts is None:
            return self
        arrived = set(self.places(trace))
        following = [0] * len(trace.lanes)
        rest: list[Act] = []
        for lane in trace.observed:
            if (lane, following[lane]) not in arrived:
                rest.append(Take(trace.lanes[lane].token))
            following[lane] += 1
        return replace(self, acts=(*self.acts, *rest))

    def check(self, trace: Trace) -> None:
        """Check that this is an order of a trace; what it leaves out does not arrive.

        Raises:
            ScheduleError: it was made for another trace, or its steps are not of this one.
        """
        _check_digest(self.digest, trace)
        for _ in self.arrivals(trace):
            pass

    def arrivals(self, trace: Trace) -> Iterator[Arrival]:
        """Give what each act makes arrive.

        Raises:
            ScheduleError: an act is not one of this trace.
        """
        for act, place in zip(self.acts_on(trace), self.places(trace), strict=True):
            if place is None or not isinstance(act, Take):
                yield Arrival(act, None)
            else:
                entry = trace.entry(*place)
                yield Arrival(act, entry if act.packet is None else _moved(act, entry, trace))

    def places(self, trace: Trace) -> Iterator[Place | None]:
        """Give the lane and the place there of what each act makes arrive; None for a step.

        A moved packet's are where it was recorded.

        Raises:
            ScheduleError: an act is not one of this trace.
        """
        acts = self.acts_on(trace)
        moved = _moved_places(acts, trace)
        following = [0] * len(trace.lanes)
        for act in acts:
            if not isinstance(act, Take):
                yield None
            elif act.packet is None:
                yield _next(trace, _lane(act, trace), following, moved)
            else:
                yield trace.packets[act.packet]


def is_schedule(text: str) -> bool:
    """Whether a text begins as a schedule's does, of whatever version."""
    return _BEGINNING.match(text) is not None


def parse_schedule(text: str, trace: Trace | None = None) -> Schedule:
    """Read a schedule's text; with a trace only if it was made for that.

    Raises:
        ScheduleError: it is none, of a version that is not known, made for another trace, or has
            more steps than one of this trace can have.
    """
    fields = text.strip().split(":", _FIELDS - 1)
    if fields[0] != VERSION:
        version = fields[0] if fields[0].startswith("mfd") and len(fields[0]) < 8 else ""
        what = f"version {version} is not known" if version else "it is no schedule"
        raise ScheduleError(f"{what}: {VERSION}:DIGEST:PACE:STEPS is wanted")
    if len(fields) < _FIELDS:
        raise ScheduleError("the schedule is cut off")
    _, digest, pace, acts = fields
    try:
        known = Pace(pace)
    except ValueError:
        raise ScheduleError(f"{pace!r} is no pace of load threads") from None
    most = MAX_ACTS
    if trace is not None:
        _check_digest(digest, trace)
        most = min(most, _OTHER_STEPS + _STEPS_PER_ITEM * len(trace.observed))
    return Schedule(digest, known, None if acts == RECORDED else read_acts(acts, most))


def _check_digest(digest: str, trace: Trace) -> None:
    if digest != trace.digest:
        raise ScheduleError(
            f"the schedule was made for trace {_shown(digest)}, this is {trace.digest}"
            " (the same capture, --migration and --fault options are needed)"
        )


def _shown(digest: str) -> str:
    return digest if len(digest) <= _LONGEST_SHOWN else f"{digest[:_LONGEST_SHOWN]}..."


def _lane(act: Take, trace: Trace) -> int:
    lane = trace.by_token.get(act.lane)
    if lane is None:
        raise ScheduleError(f"the trace has no channel {act.lane}")
    return lane


def _next(trace: Trace, lane: int, following: list[int], moved: frozenset[Place]) -> Place:
    """Find a lane's next item that stays in it."""
    while (lane, following[lane]) in moved:
        following[lane] += 1
    place = following[lane]
    count = len(trace.lanes[lane].entries)
    if place >= count:
        name = trace.lanes[lane].name
        raise ScheduleError(f"{name} has {count} items, the schedule wants more")
    following[lane] = place + 1
    return lane, place


def _moved_places(acts: tuple[Act, ...], trace: Trace) -> frozenset[Place]:
    """Give the places of packets that are moved to another channel."""
    found = [act.packet for act in acts if isinstance(act, Take) and act.packet is not None]
    if len(set(found)) < len(found):
        raise ScheduleError("the schedule moves a packet twice")
    packets = trace.packets
    if found and max(found) >= len(packets):
        raise ScheduleError(f"the trace has {len(packets)} device packets, not {max(found) + 1}")
    return frozenset(packets[number] for number in found)


def _moved(act: Take, entry: Entry, trace: Trace) -> Entry:
    """Give a packet's entry as if it had been sent on another channel."""
    lane = trace.lanes[_lane(act, trace)]
    if lane.is_main or not isinstance(lane.entries[0].event, Connect):
        raise ScheduleError(f"{lane.name} carries no device packets")
    assert isinstance(entry.event, Deliver)
    return replace(entry, channel=lane.name)
