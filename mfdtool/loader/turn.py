# SPDX-License-Identifier: GPL-2.0-or-later
"""One event being carried out: parts of the state that change, and commands that collect.

Nothing of this outlives :meth:`Turn.result`, so that the step as a whole is a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mfdtool.loader.commands import Abort, Blocked, Command, Print, Record, Trace, Violate
from mfdtool.loader.errno import strerror
from mfdtool.loader.events import MAIN, receiver
from mfdtool.loader.models import write
from mfdtool.loader.moves import (
    LOAD_MOVES,
    MAIN_MOVES,
    RECEIVE_MOVES,
    Cause,
    LoadCause,
    LoadPhase,
    MainCause,
    MainPhase,
    Phase,
    ReceiveCause,
    ReceivePhase,
)
from mfdtool.loader.state import Device, Main, Outcome, Receiver, State
from mfdtool.wire.quick import quick_replacer

if TYPE_CHECKING:
    from mfdtool.loader.blob import Blob, Key
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.events import Actor


@dataclass(frozen=True, slots=True)
class PendingWrite:
    """Bytes that an event hands to a device; ``idx`` is None for those of the main stream."""

    device: int
    idx: int | None
    data: Blob


Answers: TypeAlias = Mapping[PendingWrite, int]
"""What real devices said to writes: an errno, 0 if all was taken. The model answers the others."""

NO_ANSWERS: Final[Answers] = {}

_changed_main: Final = quick_replacer(Main)
_changed_device: Final = quick_replacer(Device)
_changed_receiver: Final = quick_replacer(Receiver)

Moved: TypeAlias = Callable[[Phase, Cause, Phase], None]
"""Sees each move of a table of moves."""


class Turn:
    """A state that is being changed."""

    def __init__(
        self, destination: Destination, state: State, answers: Answers = NO_ANSWERS
    ) -> None:
        self.destination = destination
        self.profile = destination.profile
        self.main = state.main
        self.devices = list(state.devices)
        self.receivers = list(state.receivers)
        self.exiting = state.exiting
        self.outcome = state.outcome
        self.error = state.error
        self.printed = state.printed
        self.commands: list[Command] = []
        self.writes: list[PendingWrite] = []
        self.moved: Moved | None = None
        self._answers = answers

    def result(self) -> tuple[State, tuple[Command, ...]]:
        """Give the new state and the commands."""
        state = State(
            main=self.main,
            devices=tuple(self.devices),
            receivers=tuple(self.receivers),
            exiting=self.exiting,
            outcome=self.outcome,
            error=self.error,
            printed=self.printed,
        )
        return state, tuple(self.commands)

    # Parts of the state

    def set_main(self, **changes: Any) -> None:
        """Change the main thread's variables."""
        self.main = _changed_main(self.main, **changes)

    def set_device(self, number: int, **changes: Any) -> Device:
        """Change a device's variables."""
        self.devices[number] = device = _changed_device(self.devices[number], **changes)
        return device

    def set_receiver(self, channel: int, **changes: Any) -> Receiver:
        """Change a channel's variables."""
        self.receivers[channel] = changed = _changed_receiver(self.receiver(channel), **changes)
        return changed

    def receiver(self, channel: int) -> Receiver:
        """Give a channel that is one."""
        found = self.receivers[channel]
        assert found is not None
        return found

    def write(self, number: int, idx: int | None, data: Blob) -> tuple[int, str]:
        """Hand bytes to a device; give the errno, and what to say of it if it is not 0."""
        pending = PendingWrite(number, idx, data)
        self.writes.append(pending)
        spec = self.destination.devices[number]
        answer = self._answers.get(pending)
        what = f"{data.length} bytes" if idx is None else f"buffer {idx}"
        if answer:
            return answer, f"write of {what} failed: errno {answer} ({strerror(answer)})"
        if answer is not None:
            # A real device took them, whatever the model would have said.
            spec = replace(spec, mtty_ports=None)
        intake, errno = write(spec, self.devices[number].intake, data)
        self.set_device(number, intake=intake)
        return errno, f"the device refuses {what}"

    # Moves

    def move_main(self, cause: MainCause, phase: MainPhase) -> None:
        """Move the main thread, if the table of moves has it."""
        assert phase in MAIN_MOVES[self.main.phase, cause], (self.main.phase, cause, phase)
        if self.moved is not None:
            self.moved(self.main.phase, cause, phase)
        self.set_main(phase=phase)

    def move_device(self, number: int, cause: LoadCause, phase: LoadPhase) -> None:
        """Move a device's loader, if the table of moves has it."""
        before = self.devices[number].phase
        assert phase in LOAD_MOVES[before, cause], (before, cause, phase)
        if self.moved is not None:
            self.moved(before, cause, phase)
        self.set_device(number, phase=phase)

    def move_receiver(self, channel: int, cause: ReceiveCause, phase: ReceivePhase) -> None:
        """Move a receive thread, if the table of moves has it."""
        before = self.receiver(channel).phase
        assert phase in RECEIVE_MOVES[before, cause], (before, cause, phase)
        if self.moved is not None:
            self.moved(before, cause, phase)
        self.set_receiver(channel, phase=phase)
        if phase is ReceivePhase.ENDED:
            ended = self.receiver(channel)
            self.trace(receiver(channel), "multifd_recv_thread_end", ended.id, ended.packets)

    # Commands

    def do(self, command: Command) -> None:
        """Give a command."""
        self.commands.append(command)

    def trace(self, actor: Actor, name: str, *args: int | str) -> None:
        """Reach a trace event."""
        self.commands.append(Trace(actor, name, args))

    def print(self, text: str) -> None:
        """Write a line to stderr."""
        self.commands.append(Print(text))

    def violate(
        self, rule: str, message: str, device: int | None = None, origin: Key | None = None
    ) -> None:
        """Say that a rule is broken; ``origin`` is what was received earlier and broke it."""
        self.commands.append(Violate(rule, message, device, origin))

    def block(self, actor: Actor, why: str) -> None:
        """Say that the event cannot happen."""
        self.commands.append(Blocked(actor, why))

    def record(self, text: str) -> None:
        """Record an error; only the first is kept (migration.c:migrate_set_error)."""
        if self.error is None:
            self.error = text
            self.commands.append(Record(text))

    # Ends of the process

    def abort(self, text: str | None) -> None:
        """Die by a signal."""
        if text is not None:
            self.print(text)
        self.printed = text
        self.outcome = Outcome.ABORTED
        self.move_main(MainCause.ASSERTION, MainPhase.CRASHED)
        self.do(Abort(text))

    def fail_assertion(self, where: str, expression: str, line: int | None = None) -> None:
        """Die by an assertion; ``where`` is ``file.c:function``, lines differ between releases."""
        file, _, function = where.partition(":")
        place = file if line is None else f"{file}:{line}"
        self.abort(f"{place}: {function}: Assertion `{expression}' failed.")

    def fail_allocation(self, size: int, *, line: int | None = None) -> None:
        """Die because memory cannot be had (glib/gmem.c)."""
        place = "" if line is None else f"../../../glib/gmem.c:{line}: "
        self.abort(f"GLib: {place}failed to allocate {size} bytes")


def main_trace(turn: Turn, name: str, *args: int | str) -> None:
    """Reach a trace event of the main thread."""
    turn.trace(MAIN, name, *args)
