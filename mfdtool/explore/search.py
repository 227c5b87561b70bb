# SPDX-License-Identifier: GPL-2.0-or-later
"""Walks a space breadth-first, each state once, and keeps a smallest run for every outcome class.

Nodes are expanded in the order of the number of acts that lead to them, so the first run that ends
in a class is one of the shortest. What is kept of a node is a short key, made of numbers for the
parts that states share, its parent and its edges; its state goes when it has been expanded.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final, TypeAlias

from mfdtool.explore.space import Node, is_loud
from mfdtool.loader.slots import NO_SLOTS, Slots

if TYPE_CHECKING:
    from mfdtool.explore.classes import OutcomeClass
    from mfdtool.explore.space import Space
    from mfdtool.loader.state import State
    from mfdtool.schedule.acts import Act

NO_LIMIT: Final = (1 << 62) - 1
_LOOK_EVERY: Final = 64

Stop: TypeAlias = Callable[[], bool]
"""Asked now and then; True ends the search where it is."""

Path: TypeAlias = tuple[int, ...]
"""The moves that decide something, from the start; all others are made by themselves."""


@dataclass(slots=True)
class Graph:
    """What was found, as numbers.

    Attributes:
        roots: the nodes at which the search began.
        starts: per node, where its edges begin in ``edges``; -1 if it was not expanded.
        degrees: per node, how many edges it has.
        edges: target times ``lanes`` plus one, plus the lane whose device packet was delivered
            and one, or zero if none was.
        ends: the classes of those nodes where runs end.
    """

    lanes: int
    roots: list[int] = field(default_factory=list)
    starts: array[int] = field(default_factory=lambda: array("q"))
    degrees: array[int] = field(default_factory=lambda: array("H"))
    edges: array[int] = field(default_factory=lambda: array("q"))
    ends: dict[int, OutcomeClass] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Worst:
    """The deepest queue: bytes that wait for a device's load thread, and moves that lead there."""

    size: int = 0
    device: int = 0
    path: Path = ()


@dataclass(slots=True)
class Result:
    """What a search found.

    Attributes:
        graph: the states, without the states.
        witnesses: a shortest path for each class.
        worst: the deepest queue that was met.
        is_complete: whether there is nothing more to find.
        states: how many states were looked at.
        steps: how many moves were made, those that decide nothing included.
    """

    graph: Graph
    witnesses: dict[OutcomeClass, Path]
    worst: Worst
    is_complete: bool
    states: int
    steps: int


class Search:
    """One search; it ends early after ``limit`` states, or when ``stop`` says so.

    With ``packets``, it does not go beyond that many device packets.
    """

    def __init__(
        self,
        space: Space,
        *,
        limit: int = NO_LIMIT,
        stop: Stop | None = None,
        packets: int | None = None,
    ) -> None:
        self._space = space
        self._limit = limit
        self._stop = stop
        self._packets = packets
        self._walk = _Walk(space, limit, stop, packets)

    def run(self, roots: Sequence[Path] = ((),)) -> Result:
        """Search from the ends of some paths."""
        self._walk.run(roots)
        if self._walk.must_not_separate:
            self._space.separates = False
            self._walk = _Walk(self._space, self._limit, self._stop, self._packets)
            self._walk.run(roots)
        return self._walk.result()

    def path_to(self, number: int) -> Path:
        """Give a shortest path to a node of the graph."""
        return self._walk.path_to(number)


class _Walk:
    """One walk through the space."""

    def __init__(self, space: Space, limit: int, stop: Stop | None, packets: int | None) -> None:
        self._space = space
        self._limit = limit
        self._stop = stop
        self._packets = packets
        self._graph = Graph(len(space.trace.lanes) + 1)
        self._keys = _Keys(space.statics.idxs)
        self._index: dict[bytes, int] = {}
        self._parents = array("q")
        self._via = array("H")
        self._depths = array("q")
        self._open: dict[int, Node] = {}
        self._heap: list[tuple[int, int]] = []
        self._root_paths: dict[int, Path] = {}
        self._witnesses: dict[OutcomeClass, Path] = {}
        self._worst = (0, 0, -1, 0)
        self._steps = 0
        self._was_cut = False
        self.must_not_separate = False
        space.has_separated = False

    def run(self, roots: Iterable[Path]) -> None:
        for path in roots:
            node, made = follow(self._space, path)
            number = self._add(node, len(made), -1, 0)
            self._root_paths[number] = path
            self._graph.roots.append(number)
            self._note_queue(node.state, number, None)
        expanded = 0
        while self._heap:
            depth, number = heappop(self._heap)
            if number not in self._open or depth > self._depths[number]:
                continue
            if self._is_over(expanded):
                heappush(self._heap, (depth, number))
                return
            expanded += 1
            self._expand(number, self._open.pop(number))
            if self.must_not_separate:
                return

    def _is_over(self, expanded: int) -> bool:
        if len(self._index) >= self._limit:
            return True
        return self._stop is not None and expanded % _LOOK_EVERY == 0 and self._stop()

    def _expand(self, number: int, node: Node) -> None:
        space, graph = self._space, self._graph
        is_far = self._packets is not None and space.packets_read(node) >= self._packets
        if is_far and space.moves(node):
            self._was_cut = True
            return
        moves = space.branches(node)
        graph.starts[number] = len(graph.edges)
        graph.degrees[number] = len(moves)
        if not moves:
            found = space.verdict(node)
            graph.ends[number] = found
            self._witnesses.setdefault(found, self.path_to(number))
            return
        depth = self._depths[number]
        for move in moves:
            after = space.after(node, move)
            settled, made = space.settle(after)
            self._steps += 1 + len(made)
            if space.has_separated and (is_loud(node, settled)):
                self.must_not_separate = True
                return
            self._note_queue(after.state, number, move)
            letter = move + 1 if space.is_packet(node, move) else 0
            target = self._add(settled, depth + 1 + len(made), number, move)
            graph.edges.append(target * graph.lanes + letter)

    def _add(self, node: Node, depth: int, parent: int, move: int) -> int:
        """Give a node's number; note how to get there if that is the shortest way so far."""
        key = self._keys.key(node)
        number = self._index.get(key)
        if number is None:
            number = self._index[key] = len(self._parents)
            self._parents.append(parent)
            self._via.append(move)
            self._depths.append(depth)
            self._graph.starts.append(-1)
            self._graph.degrees.append(0)
            self._open[number] = node
        elif depth >= self._depths[number] or number not in self._open:
            return number
        else:
            self._parents[number] = parent
            self._via[number] = move
            self._depths[number] = depth
        heappush(self._heap, (depth, number))
        return number

    def _note_queue(self, state: State, number: int, move: int | None) -> None:
        for device, found in enumerate(state.devices):
            if found.queued > self._worst[0]:
                self._worst = found.queued, device, number, -1 if move is None else move

    def path_to(self, number: int) -> Path:
        """Give the path to a node by way of its parents."""
        moves: list[int] = []
        while self._parents[number] >= 0:
            moves.append(self._via[number])
            number = self._parents[number]
        return self._root_paths.get(number, ()) + tuple(reversed(moves))

    def result(self) -> Result:
        size, device, number, move = self._worst
        path = () if number < 0 else self.path_to(number)
        if move >= 0:
            path = (*path, move)
        is_complete = not self._open and not self._was_cut
        return Result(
            graph=self._graph,
            witnesses=self._witnesses,
            worst=Worst(size, device, path if number >= 0 else ()),
            is_complete=is_complete,
            states=len(self._index),
            steps=self._steps,
        )


class _Keys:
    """Makes keys of nodes: equal for equal nodes, and much smaller.

    What waits in a device's slots is different in nearly every state, so no slots are kept.
    """

    def __init__(self, idxs: Sequence[Sequence[int]]) -> None:
        self._idxs = idxs
        self._numbers: dict[Hashable, int] = {}

    def key(self, node: Node) -> bytes:
        """Give a node's key."""
        state = node.state
        rest = (state.exiting, state.outcome, state.error, state.printed, node.blame)
        parts = array("I", [self._number(state.main), self._number(rest)])
        parts.extend(self._number(receiver) for receiver in state.receivers)
        parts.extend(node.places)
        for device, idxs in zip(state.devices, self._idxs, strict=True):
            parts.append(self._number(replace(device, slots=NO_SLOTS)))
            self._add_slots(parts, device.slots, idxs)
        return parts.tobytes()

    def _add_slots(self, parts: array[int], slots: Slots, idxs: Sequence[int]) -> None:
        left = len(slots)
        parts.append(left)
        for idx in idxs:
            if not left:
                return
            blob = slots.get(idx)
            if blob is not None:
                left -= 1
                parts.extend((idx, self._number(blob)))

    def _number(self, part: Hashable) -> int:
        return self._numbers.setdefault(part, len(self._numbers))


def follow(space: Space, path: Path) -> tuple[Node, Path]:
    """Go a path, and make all moves on the way that decide nothing; give all moves."""
    node, made = space.start()
    node, more = space.settle(node)
    moves = [*made, *more]
    for move in path:
        node, more = space.settle(space.after(node, move))
        moves += [move, *more]
    return node, tuple(moves)


def acts_of(space: Space, moves: Iterable[int]) -> tuple[Act, ...]:
    """Give moves as the acts of a schedule."""
    acts = (space.possible.act(move) for move in moves)
    return tuple(act for act in acts if act is not None)
