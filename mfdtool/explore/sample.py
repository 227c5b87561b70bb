# SPDX-License-Identifier: GPL-2.0-or-later
"""Orders at random, for what is too large to be tried in all orders."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from mfdtool.explore.classes import OutcomeClass
from mfdtool.explore.space import Node, Space
from mfdtool.schedule.acts import Act
from mfdtool.schedule.schedule import Pace, Schedule

if TYPE_CHECKING:
    import random

    from mfdtool.explore.search import Stop
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.turn import Moved
    from mfdtool.schedule.pick import Chooser, Picked
    from mfdtool.schedule.trace import Trace


_MARK_SIZE: Final = 8
"""Bytes that tell an order from others: among a million, two look alike once in 10**7 times."""


@dataclass(slots=True)
class Drawn:
    """What random runs came to.

    Attributes:
        runs: how many there were.
        orders: marks of the orders of device packets in which runs of each class came; the same
            order has the same mark in every job and process.
        witnesses: the shortest run of each class.
        worst: the deepest queue: bytes, device, and the run up to there.
        steps: moves in all.
    """

    worst: tuple[int, int, Schedule]
    runs: int = 0
    orders: dict[OutcomeClass, set[int]] = field(default_factory=dict)
    witnesses: dict[OutcomeClass, Schedule] = field(default_factory=dict)
    steps: int = 0


def sample(
    trace: Trace,
    destination: Destination,
    picks: Sequence[Picked],
    *,
    dice: Callable[[int], random.Random],
    moved: Moved | None = None,
    stop: Stop | None = None,
) -> Drawn:
    """Run the orders that are picked, and say how they end."""
    space = Space(trace, destination, moved)
    drawn = Drawn((0, 0, Schedule(trace.digest, Pace.STEPS, ())))
    for picked in picks:
        if stop is not None and stop():
            break
        kind, order = _run(space, picked.chooser(trace, dice(picked.seed)), drawn)
        drawn.runs += 1
        drawn.orders.setdefault(kind, set()).add(_mark(order))
    return drawn


def _mark(order: Sequence[int]) -> int:
    mark = blake2b(array("I", order).tobytes(), digest_size=_MARK_SIZE)
    return int.from_bytes(mark.digest(), "little")


def _run(space: Space, chooser: Chooser, drawn: Drawn) -> tuple[OutcomeClass, list[int]]:
    """Make a run; give its class, and the lanes of its device packets in their order."""
    node, made = space.start()
    acts: list[Act] = [act for move in made if (act := space.possible.act(move)) is not None]
    order: list[int] = []
    while moves := space.moves(node):
        move = moves[0] if len(moves) == 1 else chooser(moves)
        if space.is_packet(node, move):
            order.append(move)
        node = space.after(node, move)
        act = space.possible.act(move)
        if act is not None:
            acts.append(act)
        drawn.steps += 1
        _note_queue(space, node, acts, drawn)
    kind = space.verdict(node)
    known = drawn.witnesses.get(kind)
    if known is None or len(acts) < len(known.acts or ()):
        drawn.witnesses[kind] = Schedule(space.trace.digest, Pace.STEPS, tuple(acts))
    return kind, order


def _note_queue(space: Space, node: Node, acts: list[Act], drawn: Drawn) -> None:
    for number, device in enumerate(node.state.devices):
        if device.queued > drawn.worst[0]:
            schedule = Schedule(space.trace.digest, Pace.STEPS, tuple(acts))
            drawn.worst = device.queued, number, schedule
