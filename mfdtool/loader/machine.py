# SPDX-License-Identifier: GPL-2.0-or-later
"""The destination as a whole: ``step(state, event) -> (state, commands)``.

Three kinds of thread, because the bugs live between them: one receive thread per multifd channel,
the main thread, and one load thread per device. An event lets one of them go on. What a thread does
between two events nobody sees and nobody can come between; what it waits for, the state shows.

An event that cannot happen in a state changes nothing, and says why. No event raises an exception.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mfdtool.loader import device, mainstream, receive
from mfdtool.loader.errno import EINVAL
from mfdtool.loader.events import (
    MAIN,
    ActorKind,
    Connect,
    Deliver,
    End,
    FileHeader,
    Handshake,
    MainItem,
    MultiFDItem,
    Step,
    Unknown,
    loader,
    receiver,
)
from mfdtool.loader.finish import exit_early, fail_loading, join
from mfdtool.loader.moves import MainCause, MainPhase
from mfdtool.loader.state import Device, Main, State
from mfdtool.loader.turn import NO_ANSWERS, Answers, PendingWrite, Turn
from mfdtool.wire.constants import MULTIFD_INIT_SIZE, MULTIFD_MAGIC

if TYPE_CHECKING:
    from mfdtool.loader.commands import Command
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.events import Actor, Event
    from mfdtool.loader.turn import Moved

_GONE: Final = "the destination is gone"
_MAGIC_SIZE: Final = 4
_ACCEPT: Final = "socket_accept_incoming_migration"


class Loader:
    """A destination's rules; what it knows of one migration is in the states."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        numbers = range(len(destination.devices))
        self._steps = [Step(MAIN), *(Step(loader(number)) for number in numbers)]
        self.moved: Moved | None = None
        """Sees each move that an event makes, for whoever counts them."""

    def initial(self) -> State:
        """Give the state of a destination that listens."""
        return State(main=Main(), devices=tuple(Device() for _ in self.destination.devices))

    def step(
        self, state: State, event: Event, answers: Answers = NO_ANSWERS
    ) -> tuple[State, tuple[Command, ...]]:
        """Carry out an event; give the new state, and what the destination does about it.

        With ``answers``, writes end as they did on real devices.
        """
        turn = Turn(self.destination, state, answers)
        turn.moved = self.moved
        why = self.why_not(state, event)
        if why:
            turn.block(_actor_of(event), why)
            return state, tuple(turn.commands)
        _carry_out(turn, event)
        return turn.result()

    def pending_writes(
        self, state: State, event: Event, answers: Answers = NO_ANSWERS
    ) -> tuple[PendingWrite, ...]:
        """Give the writes that an event makes and ``answers`` does not have, in their order.

        How one ends may decide whether there are more: ask again with its answer. There are
        several where the cleanup lets load threads finish the writes that they are in.
        """
        if self.why_not(state, event):
            return ()
        turn = Turn(self.destination, state, answers)
        _carry_out(turn, event)
        return tuple(pending for pending in turn.writes if pending not in answers)

    def why_not(self, state: State, event: Event) -> str:
        """Say why an event cannot happen now; empty if it can."""
        if state.outcome is not None:
            return _GONE
        if isinstance(event, Connect):
            return ""
        if isinstance(event, Deliver):
            if event.channel is None:
                return mainstream.why_not(state.main, event.item)
            return receive.why_not(state, event.channel, event.item)
        actor = event.actor
        if actor.kind is ActorKind.MAIN:
            return "" if state.main.phase is MainPhase.SETUP else "there is nothing to set up"
        if actor.kind is ActorKind.RECEIVE:
            return "a receive thread goes on by reading"
        return device.why_not(self.destination, state, actor.number)

    def steps(self, state: State) -> list[Step]:
        """Give the steps that threads can take now without reading anything."""
        return [step for step in self._steps if not self.why_not(state, step)]


def _carry_out(turn: Turn, event: Event) -> None:
    if isinstance(event, Connect):
        _connect(turn, event)
    elif isinstance(event, Step):
        _step(turn, event.actor)
    elif isinstance(event.item, MultiFDItem) and event.channel is not None:
        receive.receive(turn, event.channel, event.item)
    elif isinstance(event.item, MainItem):
        mainstream.read(turn, event.item)
    join(turn)


def _actor_of(event: Event) -> Actor:
    if isinstance(event, Step):
        return event.actor
    if isinstance(event, Connect) or event.channel is None:
        return MAIN
    return receiver(event.channel)


def _step(turn: Turn, actor: Actor) -> None:
    if actor.kind is ActorKind.MAIN:
        mainstream.set_up(turn)
    elif device.step(turn, actor.number):
        receive.unlock(turn, actor.number)


# Connections (migration.c:migration_ioc_process_incoming).


def _connect(turn: Turn, event: Connect) -> None:
    first = event.first
    if _is_complete(turn):
        _drop(turn, first)
    elif isinstance(first, End) or (isinstance(first, Unknown) and len(first.head) < _MAGIC_SIZE):
        turn.violate("handshake-truncated", "the connection ends before its magic")
        exit_early(turn, "Failed to peek at channel")
    elif isinstance(first, FileHeader):
        _connect_main(turn)
    else:
        _connect_multifd(turn, first)
    if turn.outcome is None and turn.main.phase is MainPhase.CONNECTING and _is_complete(turn):
        turn.move_main(MainCause.CONNECTED, MainPhase.HEADER)


def _is_complete(turn: Turn) -> bool:
    """Whether all channels are there that are waited for."""
    count = sum(found is not None for found in turn.receivers)
    return turn.main.has_channel and count == turn.destination.channels


def _drop(turn: Turn, first: Handshake | FileHeader | Unknown | End) -> None:
    """Drop a connection that nobody waits for."""
    text = f"{_ACCEPT}: Extra incoming migration connection; ignoring"
    turn.violate("extra-connection", text)
    turn.print(text)
    if not isinstance(first, FileHeader):
        turn.receivers.append(None)


def _connect_main(turn: Turn) -> None:
    if not turn.main.has_channel:
        turn.set_main(has_channel=True)
        return
    turn.violate("second-main-channel", "there is a main channel already")
    if turn.profile.aborts_on_second_main:
        where = "migration/migration.c:migration_incoming_setup"
        turn.fail_assertion(where, "!mis->from_src_file")


def _connect_multifd(turn: Turn, first: Handshake | Unknown) -> None:
    handshake = _handshake_of(turn, first)
    if handshake is None:
        return
    if turn.destination.channels:
        receive.shake_hands(turn, handshake)
        return
    turn.violate("multifd-not-expected", "the destination has multifd off")
    if turn.profile.needs_multifd_magic:
        where = "migration/migration.c:migration_ioc_process_incoming"
        turn.fail_assertion(where, "migrate_multifd()")
    else:
        fail_loading(turn, EINVAL, printed=("Not a migration stream",))


def _handshake_of(turn: Turn, first: Handshake | Unknown) -> Handshake | None:
    """Give the handshake that a connection begins with; None if there is none."""
    if isinstance(first, Handshake):
        return first
    magic = int.from_bytes(first.head[:_MAGIC_SIZE])
    if magic != MULTIFD_MAGIC and turn.profile.needs_multifd_magic:
        text = f"unknown channel magic: {magic}"
        turn.violate("channel-magic-unknown", text)
        exit_early(turn, text)
        return None
    if len(first.head) < MULTIFD_INIT_SIZE:
        receive.cut_off_handshake(turn)
        return None
    return Handshake(0, magic)
