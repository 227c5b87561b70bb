# SPDX-License-Identifier: GPL-2.0-or-later
"""The space that a search walks: what can happen next, and what need not be tried both ways.

A node is a point that the destination has come to. From it lead the moves that are possible there.
Most moves decide nothing, and are made at once (:meth:`Space.settle`):

1. RAM packets, the end of a channel between packets: they change what nobody looks at. SYNC
   packets: their channel can do nothing else, and what they bring about, the end of a flush, takes
   a lock away from others but gives nobody one. Whoever could prevent them by failing keeps his
   own SYNC back, so that the flush does not end in any order.
2. What only the main thread sees of its stream. It also starts load threads, which may be as slow
   as they like afterwards, and writes to devices that have no load thread yet. It begins a flush
   if no device packet can come during it, for all that a flush prevents is loading a config.
3. Steps of a load thread whose packets can come in any order: one config, all data below it, no
   idx twice, so that it reaches the same place whenever it runs. And in any case a write, as soon
   as it has begun, and all steps as soon as no more packets can come.

None of these is made at once if it ends something or an error is recorded; then all orders are
tried. Delivering a device packet is never one of them: orders of device packets are what is
counted. A step of group 3 makes room, so none is made where the queue's limit or the memory could
be reached.

Beyond that, devices and lanes that have nothing to do with each other before the next SYNC are
walked through one after the other (:meth:`Space.branches`), unless an error can occur at all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from mfdtool.explore.classes import NO_BLAME, Blame, Judge, OutcomeClass, blame_of
from mfdtool.explore.statics import UNKNOWN_DEVICE, Statics
from mfdtool.loader.events import Deliver, DevicePacket, Eof
from mfdtool.loader.moves import LoadPhase, MainPhase, ReceivePhase
from mfdtool.loader.state import Device, Main, Outcome, Receiver, State
from mfdtool.schedule.possible import Point, Possible

if TYPE_CHECKING:
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.turn import Moved
    from mfdtool.schedule.trace import Trace

_MAIN_GOES_ON: Final = frozenset(
    {
        MainPhase.HEADER,
        MainPhase.CONFIGURATION,
        MainPhase.SETUP,
        MainPhase.ELEMENT,
        MainPhase.SECTION,
        MainPhase.FOOTER,
    }
)
_MAIN_WAITS: Final = frozenset({MainPhase.SYNCING, MainPhase.JOINING})
_NOT_STARTED: Final = frozenset({LoadPhase.IDLE, LoadPhase.SPAWNED})


class Node(NamedTuple):
    """A place in the space: how far things have come, and what explains the recorded error."""

    point: Point
    blame: Blame = NO_BLAME

    @property
    def state(self) -> State:
        """The destination's state."""
        return self.point.state

    @property
    def places(self) -> tuple[int, ...]:
        """How many items of each lane have been read."""
        return self.point.places


class Space:
    """All that can happen to a destination with the items of one trace.

    Attributes:
        separates: whether :meth:`branches` may leave something for later.
        has_separated: whether it ever did.
    """

    def __init__(self, trace: Trace, destination: Destination, moved: Moved | None = None) -> None:
        self.trace = trace
        self.destination = destination
        self.possible = Possible(trace, destination)
        self.possible.loader.moved = moved
        self.statics = Statics(trace, destination)
        self.separates = True
        self.has_separated = False
        self._chains: dict[tuple[int, Main], tuple[int, Main]] = {}
        self._judge = Judge(trace, destination)
        self._lanes = len(trace.lanes)
        self._main = self.possible.main
        self._setup = self.possible.setup

    # What can happen

    def start(self) -> tuple[Node, tuple[int, ...]]:
        """Give the node at which all connections are accepted, and the moves that lead there."""
        node = Node(self.possible.start())
        moves = []
        for lane in self.possible.connections():
            if node.state.outcome is None:
                node = self.after(node, lane)
                moves.append(lane)
        return node, tuple(moves)

    def moves(self, node: Node) -> list[int]:
        """Give all moves that are possible."""
        return self.possible.moves(node.point)

    def after(self, node: Node, move: int) -> Node:
        """Make a move."""
        point, commands = self.possible.after(node.point, move)
        event = self.possible.event(node.point, move)
        blame = blame_of(self.destination, node.blame, event, commands, point.state)
        return Node(point, blame)

    def is_packet(self, node: Node, move: int) -> bool:
        """Whether a move delivers a device packet."""
        return move < self._lanes and self.statics.is_packet(move, node.places[move])

    def packets_read(self, node: Node) -> int:
        """Count the device packets that have been delivered."""
        return sum(
            self.statics.packets_before(lane, place) for lane, place in enumerate(node.places)
        )

    def verdict(self, node: Node) -> OutcomeClass:
        """Give the class of a node from which no move leads."""
        return self._judge.judge(node.state, node.blame)

    # What decides nothing

    def settle(self, node: Node) -> tuple[Node, tuple[int, ...]]:
        """Make all moves that decide nothing; give them too."""
        made: list[int] = []
        refused: set[int] = set()
        before = -1
        while before < len(made):
            before = len(made)
            node = self._settle_main(node, made)
            for move in range(self._setup + 1):
                while move not in refused and self._is_candidate(node, move):
                    after = self.after(node, move)
                    if self._is_local(node, after, move):
                        node = after
                        made.append(move)
                    else:
                        refused.add(move)
        return node, tuple(made)

    def _settle_main(self, node: Node, made: list[int]) -> Node:
        """Let the main thread read what concerns nobody else, as often before from there."""
        main, state = self._main, node.state
        if main is None or state.outcome is not None or not self._is_plain(node):
            return node
        start = node.places[main]
        key = start, state.main
        known = self._chains.get(key)
        if known is None:
            far = self._read_plain(node)
            known = self._chains[key] = far.places[main], far.state.main
        stop, after = known
        made += [main] * (stop - start)
        places = (*node.places[:main], stop, *node.places[main + 1 :])
        return Node(Point(replace(state, main=after), places), node.blame)

    def _read_plain(self, node: Node) -> Node:
        main = self._main
        assert main is not None
        while self._is_plain(node) and self.possible.can(node.point, main):
            after = self.after(node, main)
            if after.state.devices != node.state.devices or not self._is_local(node, after, main):
                break
            node = after
        return node

    def _is_plain(self, node: Node) -> bool:
        """Whether what the main thread makes of its next item depends on itself only."""
        assert self._main is not None
        place = node.places[self._main]
        return self.statics.is_plain(place)

    def _is_candidate(self, node: Node, move: int) -> bool:
        """Whether a move is possible and may decide nothing."""
        if move == self._setup:
            is_next = node.state.main.phase is MainPhase.SETUP and node.state.outcome is None
            return is_next and not self._has_packets_ahead(node)
        if not self.possible.can(node.point, move):
            return False
        if move < self._lanes:
            return self._may_be_local(node, move)
        return self.statics.is_calm and self._is_free(node, move - self._lanes)

    def _may_be_local(self, node: Node, lane: int) -> bool:
        place = node.places[lane]
        event = self.possible.events[lane][place]
        if not isinstance(event, Deliver):
            return False
        if lane != self._main:
            return not isinstance(event.item, DevicePacket)
        if isinstance(event.item, Eof):
            return False
        return not (self.statics.may_flush(place) and self._has_packets_ahead(node))

    def _is_free(self, node: Node, device: int) -> bool:
        """Whether a load thread's next step can be taken whenever one likes."""
        if self.statics.is_regular[device]:
            return True
        if self._main is not None and self.statics.main_writes_from(node.places[self._main]):
            return False
        if node.state.devices[device].phase is LoadPhase.WRITING:
            return True
        return not self._can_get_packets(node, device)

    def _can_get_packets(self, node: Node, device: int) -> bool:
        """Whether any packet for a device may still come."""
        for lane, place in enumerate(node.places):
            found = self._receiver(node.state, lane)
            if found is None or found.phase is ReceivePhase.ENDED:
                continue
            if found.phase is ReceivePhase.LOCKED or device in self.statics.devices_from(
                lane, place
            ):
                return True
        return False

    def _receiver(self, state: State, lane: int) -> Receiver | None:
        number = self.possible.numbers[lane]
        if number is None or number >= len(state.receivers):
            return None
        return state.receivers[number]

    def _ahead(self, node: Node, lane: int) -> frozenset[int]:
        """Give the devices that a lane may have packets for before its next SYNC."""
        found = self._receiver(node.state, lane)
        if found is None or found.phase in {ReceivePhase.ENDED, ReceivePhase.SYNCING}:
            return frozenset()
        if found.phase is ReceivePhase.LOCKED:
            return frozenset({UNKNOWN_DEVICE})
        return self.statics.devices_before_sync(lane, node.places[lane])

    def _has_packets_ahead(self, node: Node) -> bool:
        return any(self._ahead(node, lane) for lane in range(self._lanes))

    def _is_local(self, before: Node, after: Node, move: int) -> bool:
        """Whether a move that was made decides nothing."""
        old, new = before.state, after.state
        if new.outcome is not None or new.error is not old.error or new.exiting != old.exiting:
            return False
        if self._lanes <= move < self._setup:
            return new.main is old.main and new.receivers == old.receivers
        if move != self._main and move != self._setup:
            return True
        if new.main.flushes != old.main.flushes or new.main.phase is MainPhase.SYNCING:
            return not self._has_packets_ahead(before)
        if new.main.phase not in _MAIN_GOES_ON:
            return False
        return all(
            self._is_untouched(number, known, changed)
            for number, (known, changed) in enumerate(zip(old.devices, new.devices, strict=True))
        )

    def _is_untouched(self, number: int, before: Device, after: Device) -> bool:
        """Whether the main thread changed nothing of a device that a load thread could meet."""
        if before is after:
            return True
        if before.phase is LoadPhase.IDLE and after.phase in _NOT_STARTED:
            return True
        return self.statics.is_regular[number]

    # What has nothing to do with each other

    def branches(self, node: Node) -> list[int]:
        """Give the moves that must be tried from a settled node."""
        moves = self.moves(node)
        if not self.separates or len(moves) < 2:
            return moves
        chosen = self._first_component(node, moves)
        if chosen is None or len(chosen) == len(moves):
            return moves
        self.has_separated = True
        return chosen

    def _first_component(self, node: Node, moves: list[int]) -> list[int] | None:
        """Give the moves of the first set of lanes and devices that is by itself."""
        lanes = self._lanes
        if not all(self.is_packet(node, move) for move in moves if move < lanes):
            others = [move for move in moves if move < lanes and not self.is_packet(node, move)]
            if others != [self._main]:
                return None
        ahead = {lane: self._ahead(node, lane) for lane in range(lanes)}
        if any(UNKNOWN_DEVICE in found for found in ahead.values()):
            return None
        first = next((move for move in moves if move < lanes and move != self._main), None)
        if first is None:
            return None
        inside, devices = _closure(first, ahead)
        regular = all(self.statics.is_regular[device] for device in devices)
        if not regular and node.state.main.phase not in _MAIN_WAITS:
            return None
        return [
            move
            for move in moves
            if move in inside or (lanes <= move < self._setup and move - lanes in devices)
        ]


def _closure(first: int, ahead: dict[int, frozenset[int]]) -> tuple[set[int], set[int]]:
    """Give the lanes that are connected with the first one by devices, and these devices."""
    inside, devices = {first}, set(ahead[first])
    while more := [
        lane
        for lane, found in ahead.items()
        if lane not in inside and not devices.isdisjoint(found)
    ]:
        inside.update(more)
        for lane in more:
            devices |= ahead[lane]
    return inside, devices


def is_loud(before: Node, after: Node) -> bool:
    """Whether a move recorded an error, or ended the destination otherwise than well."""
    if after.state.error is not before.state.error:
        return True
    return after.state.outcome not in {None, Outcome.COMPLETED}
