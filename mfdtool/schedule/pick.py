# SPDX-License-Identifier: GPL-2.0-or-later
"""Orders that somebody picks, move by move: at random, or as PCT does.

``random:SEED`` gives each thread that can go on the same chance at every move. ``pct:SEED,DEPTH``
gives threads random priorities, lets the first one run as long as it can, and moves a thread to the
end of the queue at DEPTH - 1 random moves: a bug that takes DEPTH ordered moves is found with a
probability that does not shrink with their distance (Burckhardt et al., ASPLOS 2010).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from mfdtool.errors import ScheduleError
from mfdtool.schedule.acts import Act
from mfdtool.schedule.possible import Possible
from mfdtool.schedule.schedule import Pace, Schedule

if TYPE_CHECKING:
    import random

    from mfdtool.loader.destination import Destination
    from mfdtool.schedule.trace import Trace

MAX_DEPTH: Final = 64

_NAMED: Final = re.compile(r"random:([0-9]{1,18})|pct:([0-9]{1,18}),([0-9]{1,3})")
_STEPS_PER_PACKET: Final = 2
"""A load thread looks for a buffer and writes it."""


@dataclass(frozen=True, slots=True)
class Picked:
    """The name of a picked order: ``random:SEED``, or ``pct:SEED,DEPTH`` with a depth."""

    seed: int
    depth: int | None = None

    def __str__(self) -> str:
        return f"random:{self.seed}" if self.depth is None else f"pct:{self.seed},{self.depth}"

    def chooser(self, trace: Trace, rng: random.Random) -> Chooser:
        """Make what picks this order; ``rng`` has to be seeded with ``seed``."""
        if self.depth is None:
            return Uniform(rng)
        return Priorities(rng, depth=self.depth, length=length_of(trace))


def named(text: str) -> Picked | None:
    """Read the name of a picked order; None if it is none.

    Raises:
        ScheduleError: it begins like one, but its numbers are not right.
    """
    kind = text.partition(":")[0]
    if kind not in {"random", "pct"}:
        return None
    match = _NAMED.fullmatch(text)
    if match is None:
        raise ScheduleError(f"{text!r} is not random:SEED or pct:SEED,DEPTH")
    if match[1] is not None:
        return Picked(int(match[1]))
    depth = int(match[3])
    if not 1 <= depth <= MAX_DEPTH:
        raise ScheduleError(f"{text!r}: the depth is from 1 to {MAX_DEPTH}")
    return Picked(int(match[2]), depth)


class Chooser(Protocol):
    """Picks one of several moves; each is known by its thread's number."""

    def __call__(self, moves: Sequence[int]) -> int:
        """Give one of them."""


class Uniform:
    """Gives all moves the same chance."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __call__(self, moves: Sequence[int]) -> int:
        """Give one of them."""
        return self._rng.choice(moves)


class Priorities:
    """Gives threads random priorities, and changes one at ``depth`` - 1 of ``length`` moves."""

    def __init__(self, rng: random.Random, *, depth: int, length: int) -> None:
        self._rng = rng
        self._priorities: dict[int, float] = {}
        self._changes = {rng.randrange(length): -number for number in range(1, depth)}
        self._made = 0

    def __call__(self, moves: Sequence[int]) -> int:
        """Give the one with the highest priority."""
        for move in moves:
            if move not in self._priorities:
                self._priorities[move] = self._rng.random()
        chosen = max(moves, key=self._priorities.__getitem__)
        lower = self._changes.get(self._made)
        self._made += 1
        if lower is not None:
            self._priorities[chosen] = lower
            chosen = max(moves, key=self._priorities.__getitem__)
        return chosen


def length_of(trace: Trace) -> int:
    """Tell how many moves a run of a trace takes at the most, about."""
    return len(trace.observed) + _STEPS_PER_PACKET * len(trace.packets) + 1


def pick(trace: Trace, destination: Destination, chooser: Chooser) -> Schedule:
    """Let somebody pick each move of a run on the model; give the order as a schedule."""
    possible = Possible(trace, destination)
    point = possible.start()
    acts: list[Act] = []
    connections = possible.connections()
    while point.state.outcome is None:
        moves = [connections.pop(0)] if connections else possible.moves(point)
        if not moves:
            break
        move = moves[0] if len(moves) == 1 else chooser(moves)
        point, _ = possible.after(point, move)
        act = possible.act(move)
        if act is not None:
            acts.append(act)
    return Schedule(trace.digest, Pace.STEPS, tuple(acts))
