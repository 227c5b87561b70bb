# SPDX-License-Identifier: GPL-2.0-or-later
"""The deepest queue: that of load threads that do nothing until all packets are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mfdtool.explore.space import is_loud

if TYPE_CHECKING:
    from mfdtool.explore.search import Stop
    from mfdtool.explore.space import Space


class Deepest(NamedTuple):
    """Bytes that wait for the load thread of a device, and the moves that lead there."""

    size: int
    device: int
    moves: tuple[int, ...]


def deepest(space: Space, stop: Stop | None = None) -> Deepest:
    """Let lanes be read as far as they go, with load threads that do nothing.

    ``stop`` ends it early, with the deepest queue that was met by then.

    Nothing makes a queue shorter but its load thread, so this is as deep as it gets, unless errors
    depend on the order: what leads to one is put off.
    """
    node, made = space.start()
    moves = list(made)
    best = Deepest(0, 0, ())
    while True:
        loads = range(space.possible.lanes, space.possible.setup)
        after = None
        for move in space.moves(node):
            if move not in loads and not is_loud(node, found := space.after(node, move)):
                after = found
                moves.append(move)
                break
        if after is None or (stop is not None and stop()):
            return best
        node = after
        for number, device in enumerate(node.state.devices):
            if device.queued > best.size:
                best = Deepest(device.queued, number, tuple(moves))
