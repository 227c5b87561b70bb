# SPDX-License-Identifier: GPL-2.0-or-later
"""Phases of a migration, told by what arrives on the main stream.

=============  ===================================================================================
setup          from the first byte: handshakes, configuration, START sections, capability exchange
precopy        from the first PART section or page of RAM, while the guest runs
switchover     from SWITCHOVER_START (before 10.0 the first END or FULL section): the guest stands
completion     behind EOF: vmdescription, last SYNC packets, end of the connections
=============  ===================================================================================

Device state packets may arrive in any phase; the sender sends them after SWITCHOVER_START.
See QEMU migration.c:migration_thread, savevm.c:qemu_savevm_state_complete_precopy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.values import CommandRecord
from mfdtool.wire.constants import Command


class Phase(StrEnum):
    """Phases, in order."""

    SETUP = "setup"
    PRECOPY = "precopy"
    SWITCHOVER = "switchover"
    COMPLETION = "completion"


@dataclass(frozen=True, slots=True)
class PhaseTimes:
    """When a phase began and ended, nanoseconds since the epoch; -1 if no time is known."""

    phase: Phase
    start_ns: int
    stop_ns: int


_ORDER: Final = {phase: number for number, phase in enumerate(Phase)}
_BEGINS: Final = {
    Kind.MULTIFD_RAM: Phase.PRECOPY,
    Kind.MAIN_SECTION_PART: Phase.PRECOPY,
    Kind.MAIN_SECTION_END: Phase.SWITCHOVER,
    Kind.MAIN_SECTION_FULL: Phase.SWITCHOVER,
}


class PhaseTracker:
    """Follows one migration; frames must come in the order of arrival.

    Attributes:
        phase: the current one.
        switchover: whether the main stream had SWITCHOVER_START.
        ended: whether the main stream had its EOF.
        iterations: PART sections of RAM so far.
    """

    __slots__ = ("_first", "_last", "_starts", "ended", "iterations", "phase", "switchover")

    def __init__(self) -> None:
        self.phase = Phase.SETUP
        self.switchover = False
        self.ended = False
        self.iterations = 0
        self._first = -1
        self._last = -1
        self._starts: dict[Phase, int] = {}

    def add(self, frame: Frame) -> Phase:
        """Take the next frame; give the phase that it belongs to."""
        if self._first < 0:
            self._first = frame.time_first
        if frame.time_last > self._last:
            self._last = frame.time_last
        kind = frame.kind
        begins = _BEGINS.get(kind)
        if begins is not None:
            if begins is not self.phase:
                self._begin(begins, frame.time_first)
            if kind is Kind.MAIN_SECTION_PART and frame.section is not None:
                self.iterations += frame.section.idstr == "ram"
        elif kind is Kind.MAIN_COMMAND:
            if _is_switchover(frame):
                self.switchover = True
                self._begin(Phase.SWITCHOVER, frame.time_last)
        elif kind is Kind.MAIN_EOF:
            phase = self.phase
            self.ended = True
            self._begin(Phase.COMPLETION, frame.time_last)
            return phase
        return self.phase

    def times(self, *, first_ns: int = -1, last_ns: int = -1) -> tuple[PhaseTimes, ...]:
        """Give the phases that were seen; the arguments widen the first and the last one."""
        starts = {Phase.SETUP: self._first if first_ns < 0 else first_ns, **self._starts}
        bounds = [*starts.values(), max(self._last, last_ns)]
        return tuple(
            PhaseTimes(phase, bounds[number], bounds[number + 1])
            for number, phase in enumerate(starts)
        )

    def _begin(self, phase: Phase, time_ns: int) -> None:
        if _ORDER[phase] > _ORDER[self.phase]:
            self.phase = phase
            self._starts[phase] = time_ns


def _is_switchover(frame: Frame) -> bool:
    value = frame.value
    return isinstance(value, CommandRecord) and value.header.cmd == Command.SWITCHOVER_START
