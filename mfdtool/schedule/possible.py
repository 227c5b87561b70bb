# SPDX-License-Identifier: GPL-2.0-or-later
"""What can happen next to a destination, given what lanes still hold.

From every point lead *moves*: a thread reads the next item of its lane, a load thread takes a step,
the setup goes on. Connections are accepted in their recorded order, before anything is read.

A move is a number: that of the lane whose next item is read; then come the load threads, the setup,
and the end of a main stream that has no description.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from mfdtool.loader.events import (
    MAIN,
    Connect,
    Deliver,
    End,
    Event,
    FileHeader,
    Step,
    loader,
)
from mfdtool.loader.machine import Loader
from mfdtool.loader.moves import MainPhase
from mfdtool.loader.state import State
from mfdtool.schedule.acts import Act, Load, SetUp, Take
from mfdtool.stream.span import EndReason

if TYPE_CHECKING:
    from mfdtool.loader.commands import Command
    from mfdtool.loader.destination import Destination
    from mfdtool.schedule.trace import Lane, Trace

_END: Final = Deliver(None, End(EndReason.CAPTURE))


class Point(NamedTuple):
    """How far things have come: a destination's state, and how many items of each lane are read."""

    state: State
    places: tuple[int, ...]


class Possible:
    """All that can happen to a destination with the items of one trace.

    Attributes:
        lanes: the number of lanes; moves below it read one.
        setup: the move that goes on with the setup; those between are load threads.
        events: each lane's events, numbered as the lanes connect; none if a lane never does.
        numbers: the number of each lane's connection; None for the main channel.
        main: the main channel's lane; None if there is none.
    """

    def __init__(self, trace: Trace, destination: Destination) -> None:
        self.loader = Loader(destination)
        self.lanes = len(trace.lanes)
        self.setup = self.lanes + len(destination.devices)
        self.numbers = _channel_numbers(trace)
        self.events = tuple(
            tuple(_numbered(lane, number))
            for lane, number in zip(trace.lanes, self.numbers, strict=True)
        )
        self.main = next((n for n, lane in enumerate(trace.lanes) if lane.is_main), None)
        self._end = self.setup + 1
        self._acts: list[Act | None] = [Take(lane.token) for lane in trace.lanes]
        self._acts += [Load(number) for number in range(len(destination.devices))]
        self._acts += [SetUp(), None]
        threads = range(self.lanes, self.setup)
        self._steps = {move: Step(loader(move - self.lanes)) for move in threads}

    def start(self) -> Point:
        """Give the point at which nothing has happened."""
        return Point(self.loader.initial(), (0,) * self.lanes)

    def connections(self) -> list[int]:
        """Give the moves that accept all connections; they come first."""
        return [lane for lane, events in enumerate(self.events) if events]

    def moves(self, point: Point) -> list[int]:
        """Give all moves that are possible, once the connections are accepted."""
        if point.state.outcome is not None:
            return []
        found = [move for move in range(self.setup) if self.can(point, move)]
        phase = point.state.main.phase
        if phase is MainPhase.SETUP:
            found.append(self.setup)
        if not found and phase is MainPhase.DESCRIPTION:
            found.append(self._end)
        return found

    def can(self, point: Point, move: int) -> bool:
        """Whether a lane can be read, or a load thread take a step."""
        if move >= self.lanes:
            return not self.loader.why_not(point.state, self._steps[move])
        events, place = self.events[move], point.places[move]
        return place < len(events) and not self.loader.why_not(point.state, events[place])

    def event(self, point: Point, move: int) -> Event:
        """Give what happens in a move."""
        if move < self.lanes:
            return self.events[move][point.places[move]]
        if move == self._end:
            return _END
        return Step(MAIN) if move == self.setup else self._steps[move]

    def after(self, point: Point, move: int) -> tuple[Point, tuple[Command, ...]]:
        """Make a move; give where it leads, and what the destination does."""
        state, commands = self.loader.step(point.state, self.event(point, move))
        places = point.places
        if move < self.lanes:
            places = (*places[:move], places[move] + 1, *places[move + 1 :])
        return Point(state, places), commands

    def act(self, move: int) -> Act | None:
        """Give a move as an act of a schedule; None if a replay makes it by itself."""
        return self._acts[move]


def _channel_numbers(trace: Trace) -> list[int | None]:
    """Give the number that each lane's connection gets; None to the main channel."""
    numbers: list[int | None] = []
    count = 0
    for lane in trace.lanes:
        event = lane.entries[0].event
        if isinstance(event, Connect) and not isinstance(event.first, FileHeader):
            numbers.append(count)
            count += 1
        else:
            numbers.append(None)
    return numbers


def _numbered(lane: Lane, number: int | None) -> Iterator[Connect | Deliver]:
    """Give a lane's events as they are if it gets this number; none if it never connects."""
    if not isinstance(lane.entries[0].event, Connect):
        return
    for entry in lane.entries:
        event = entry.event
        if isinstance(event, Deliver) and event.channel != number:
            event = replace(event, channel=number)
        yield event
