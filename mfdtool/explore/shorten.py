# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes from a witness what it does not need: looks for buffers that are not there, and the ends of
lanes and threads that play no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mfdtool.loader.state import Outcome
from mfdtool.schedule.acts import Load

if TYPE_CHECKING:
    from mfdtool.explore.classes import OutcomeClass
    from mfdtool.explore.search import Stop
    from mfdtool.explore.space import Space
    from mfdtool.schedule.acts import Act


def shortened(
    space: Space, acts: Sequence[Act], kind: OutcomeClass, *, stop: Stop = lambda: False
) -> tuple[Act, ...]:
    """Shorten a run of class ``kind`` so that it still ends alike.

    Steps of load threads go one by one. Where the destination gives up, as few acts of each lane
    and thread are kept as do it; elsewhere all that can happen has to happen. When ``stop`` says
    so, it stays as long as it is.
    """
    kept = list(acts)
    if kind.outcome in {Outcome.ABORTED, Outcome.FAILED}:
        kept = _without_tails(space, kept, kind, stop)
    for place in reversed(range(len(kept))):
        if stop():
            break
        if isinstance(kept[place], Load):
            less = [*kept[:place], *kept[place + 1 :]]
            if _end(space, less) == kind:
                kept = less
    return tuple(kept)


def _without_tails(space: Space, acts: list[Act], kind: OutcomeClass, stop: Stop) -> list[Act]:
    for act in dict.fromkeys(acts):
        low, high = 0, acts.count(act)
        while low < high and not stop():
            middle = (low + high) // 2
            if _end(space, _first(acts, act, middle)) == kind:
                high = middle
            else:
                low = middle + 1
        acts = _first(acts, act, high)
    return acts


def _first(acts: Sequence[Act], one: Act, count: int) -> list[Act]:
    """Leave out all but the first ``count`` of one act."""
    kept = []
    for act in acts:
        if act == one:
            if not count:
                continue
            count -= 1
        kept.append(act)
    return kept


def _end(space: Space, acts: Sequence[Act]) -> OutcomeClass | None:
    """Give the class of a run; None if an act of it cannot happen, or more could."""
    possible = space.possible
    numbers = {possible.act(move): move for move in range(possible.setup + 1)}
    node, made = space.start()
    for act in acts[len(made) :]:
        move = numbers.get(act)
        if move is None:
            return None
        if move != possible.setup and not possible.can(node.point, move):
            return None
        node = space.after(node, move)
    while (moves := space.moves(node)) and possible.act(moves[0]) is None:
        node = space.after(node, moves[0])
    return None if moves else space.verdict(node)
