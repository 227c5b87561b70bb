# SPDX-License-Identifier: GPL-2.0-or-later
"""Phases of a migration, told by what arrives on the main stream.

=============  ===================================================================================
setup          from the first byte: handshakes, configuration, START sections, capability exchange
precopy        from the first PART section or page of RAM, while the guest runs
snapshot       of a background snapshot: FULL sections, the devices' state from when it began
switchover     from SWITCHOVER_START (before 10.0 the first END section): the guest stands
postcopy       from POSTCOPY_RUN, which starts the guest at the destination: the rest of its RAM
completion     behind EOF: vmdescription, last SYNC packets, end of the connections
=============  ===================================================================================

Device state packets may arrive in any phase; the sender sends them after SWITCHOVER_START.
A FULL section during the setup is of a device that has to be loaded early (virtio-mem); it begins
nothing. A background snapshot has no switchover: the guest goes on, no section has an END, and the
devices' state, put aside at the start, comes last. Where the capture lacks bytes of the main stream
before the first FULL section, END may be among them: then a switchover is assumed.
See QEMU migration.c:migration_thread, bg_migration_thread, postcopy_start,
savevm.c:qemu_savevm_state_setup, qemu_savevm_state_complete_precopy.
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
    SNAPSHOT = "snapshot"
    SWITCHOVER = "switchover"
    POSTCOPY = "postcopy"
    COMPLETION = "completion"


@dataclass(frozen=True, slots=True)
class PhaseTimes:
    """One phase.

    Attributes:
        phase: which.
        start_ns: when it began, nanoseconds since the epoch; -1 if no time is known.
        stop_ns: when it ended.
        bytes: captured bytes of the frames that belong to it, in both directions.
    """

    phase: Phase
    start_ns: int
    stop_ns: int
    bytes: int = 0


_ORDER: Final = {phase: number for number, phase in enumerate(Phase)}
_BEGINS: Final = {
    Kind.MULTIFD_RAM: Phase.PRECOPY,
    Kind.MAIN_SECTION_PART: Phase.PRECOPY,
    Kind.MAIN_SECTION_END: Phase.SWITCHOVER,
}

BEFORE_SWITCHOVER: Final = frozenset({Phase.SETUP, Phase.PRECOPY, Phase.SNAPSHOT})
"""Phases in which the guest runs at the source."""


class PhaseTracker:
    """Follows one migration; frames must come in the order of arrival.

    Attributes:
        phase: the current one.
        switchover: whether the main stream had SWITCHOVER_START.
        ended: whether the main stream had its EOF.
        iterations: PART sections of RAM before the switchover.
    """

    __slots__ = (
        "_bytes",
        "_first",
        "_last",
        "_lost",
        "_main_end",
        "_starts",
        "ended",
        "iterations",
        "phase",
        "switchover",
    )

    def __init__(self) -> None:
        self.phase = Phase.SETUP
        self.switchover = False
        self.ended = False
        self.iterations = 0
        self._first = -1
        self._last = -1
        self._lost = False
        self._main_end = 0
        self._starts: dict[Phase, int] = {}
        self._bytes = dict.fromkeys(Phase, 0)

    def add(self, frame: Frame) -> Phase:
        """Take the next frame, gaps as well; give the phase that it belongs to."""
        if frame.channel.name == "main":
            self._watch(frame)
        phase = self._advance(frame)
        self._bytes[phase] += frame.length - frame.missing
        return phase

    def _advance(self, frame: Frame) -> Phase:
        if self._first < 0:
            self._first = frame.time_first
        if frame.time_last > self._last:
            self._last = frame.time_last
        kind = frame.kind
        begins = _BEGINS.get(kind)
        if begins is not None:
            if begins is not self.phase:
                self._begin(begins, frame.time_first)
            if kind is Kind.MAIN_SECTION_PART and self.phase is Phase.PRECOPY:
                self.iterations += frame.section is not None and frame.section.idstr == "ram"
        elif kind is Kind.MAIN_SECTION_FULL:
            if self.phase is Phase.PRECOPY:
                begins = Phase.SWITCHOVER if self._lost else Phase.SNAPSHOT
                self._begin(begins, frame.time_first)
        elif kind is Kind.MAIN_COMMAND:
            command = _command(frame)
            if command == Command.SWITCHOVER_START:
                self.switchover = True
                self._begin(Phase.SWITCHOVER, frame.time_last)
            elif command == Command.POSTCOPY_RUN:
                phase = self.phase
                self._begin(Phase.POSTCOPY, frame.time_last)
                return phase
        elif kind is Kind.MAIN_EOF:
            phase = self.phase
            self.ended = True
            self._begin(Phase.COMPLETION, frame.time_last)
            return phase
        return self.phase

    def _watch(self, frame: Frame) -> None:
        """Note whether there was anything on the main stream that no frame shows."""
        if frame.kind is Kind.GAP:
            self._lost |= frame.offset >= self._main_end
        else:
            self._lost |= frame.kind is Kind.UNDECODED
            self._main_end = frame.end

    def times(self, *, first_ns: int = -1, last_ns: int = -1) -> tuple[PhaseTimes, ...]:
        """Give the phases that were seen; the arguments widen the first and the last one."""
        starts = {Phase.SETUP: self._first if first_ns < 0 else first_ns, **self._starts}
        bounds = [*starts.values(), max(self._last, last_ns)]
        return tuple(
            PhaseTimes(phase, bounds[number], bounds[number + 1], self._bytes[phase])
            for number, phase in enumerate(starts)
        )

    def _begin(self, phase: Phase, time_ns: int) -> None:
        if _ORDER[phase] > _ORDER[self.phase]:
            self.phase = phase
            self._starts[phase] = time_ns


def _command(frame: Frame) -> int | None:
    value = frame.value
    return value.header.cmd if isinstance(value, CommandRecord) else None
