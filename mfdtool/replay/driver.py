# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives the reference destination through a recording, in the order in which it was observed.

A channel's items keep their order; an item that arrives while its thread is busy waits, and is
read as soon as the thread can. What a recording cannot show is how fast the load threads are. They
are taken to take one step for every item that some other thread reads, and to catch up in a pause
of the network. Other paces can be asked for.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from mfdtool.loader.blob import Key
from mfdtool.loader.commands import Command, Print, Trace, Violate, WriteBuffer
from mfdtool.loader.destination import Destination
from mfdtool.loader.events import (
    MAIN,
    Connect,
    Deliver,
    DevicePacket,
    End,
    Event,
    SectionStart,
    Step,
)
from mfdtool.loader.findings import Finding, finding
from mfdtool.loader.machine import Loader
from mfdtool.loader.moves import MainPhase
from mfdtool.loader.recording import Entry, Recording
from mfdtool.loader.stall import Stall, why_stalled
from mfdtool.loader.state import Outcome, State
from mfdtool.stream.span import EndReason

PAUSE_NS: Final = 10_000_000
"""Silence in which the load threads do all that they can."""


class Pace(Enum):
    """How fast load threads are."""

    OBSERVED = "observed"
    """A step for every item, and all they can in a pause."""
    EAGER = "eager"
    """All they can after every item."""
    HELD = "held"
    """Nothing, until nobody else can go on."""


class Priority(Enum):
    """Who reads first, where several could."""

    ARRIVAL = "arrival"
    """Whose item came first."""
    MULTIFD = "multifd"
    """The receive threads: the main thread is as slow as can be."""


@dataclass(slots=True)
class Written:
    """All that was written to a device; ``complete`` is False if some bytes were not captured."""

    size: int = 0
    complete: bool = True
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, command: WriteBuffer) -> None:
        """Count and digest the bytes of a write."""
        self.size += command.data.length
        self.complete &= not command.data.missing
        for piece in command.data.pieces():
            self.digest.update(piece)

    @property
    def sha256(self) -> str | None:
        """The digest of all bytes; None if they are not all known."""
        return self.digest.hexdigest() if self.complete else None


@dataclass(slots=True)
class Run:
    """What came of driving a destination through a recording.

    Attributes:
        state: where it ended.
        outcome: how it ended; a destination that merely waits has stalled.
        traces: the trace events in order.
        stderr: the lines that it printed.
        written: what the devices got, by number.
        findings: rules that were broken.
    """

    state: State
    outcome: Outcome = Outcome.STALLED
    traces: list[Trace] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


class Driver:
    """One run; use :func:`drive`."""

    def __init__(
        self,
        recording: Recording,
        destination: Destination,
        *,
        pace: Pace = Pace.OBSERVED,
        priority: Priority = Priority.ARRIVAL,
        digests: bool = True,
    ) -> None:
        self.recording = recording
        self.destination = destination
        self.loader = Loader(destination)
        self.run = Run(self.loader.initial())
        self.run.written = [Written() for _ in destination.devices]
        self._pace = pace
        self._priority = priority
        self._digests = digests
        self._queues: dict[int | None, deque[tuple[int, Entry]]] = {}
        self._entry: Entry | None = None
        self._origins: dict[Key, Entry] = {}

    def drive(self) -> Run:
        """Go through the recording, then as far as it goes by itself."""
        last_time = -1
        for position, entry in enumerate(self.recording.entries):
            self._pause(last_time, entry.time_ns)
            last_time = entry.time_ns
            self._arrive(position, entry)
            if self.run.state.outcome is not None:
                break
        self._run_out()
        self._conclude()
        return self.run

    # Order

    def _arrive(self, position: int, entry: Entry) -> None:
        event = entry.event
        if isinstance(event, Connect):
            self._take(entry, event)
            return
        queue = self._queues.setdefault(event.channel, deque())
        queue.append((position, entry))
        if len(queue) == 1 or self._priority is Priority.MULTIFD:
            self._drain(event.channel)

    def _drain(self, channel: int | None) -> None:
        """Let threads read what waits for them, beginning with one channel's."""
        if self._priority is Priority.ARRIVAL and not self._deliver(channel):
            return
        while self.run.state.outcome is None:
            waiting = [
                (queue[0][0], channel)
                for channel, queue in self._queues.items()
                if queue and self._can(queue[0][1])
            ]
            if self._priority is Priority.MULTIFD:
                waiting = [entry for entry in waiting if entry[1] is not None]
            if not waiting:
                return
            self._deliver(min(waiting)[1])

    def _can(self, entry: Entry) -> bool:
        return not self.loader.why_not(self.run.state, entry.event)

    def _deliver(self, channel: int | None) -> bool:
        queue = self._queues[channel]
        if not queue or not self._can(queue[0][1]):
            return False
        _, entry = queue.popleft()
        self._take(entry, entry.event)
        return True

    # Load threads

    def _take(self, entry: Entry, event: Event) -> None:
        self._entry = entry
        if isinstance(event, Deliver) and isinstance(event.item, DevicePacket):
            self._origins[event.item.data.key] = entry
        self._do(event)
        self._set_up()
        if self._pace is Pace.EAGER:
            self._catch_up()
        elif self._pace is Pace.OBSERVED:
            for step in self.loader.steps(self.run.state):
                self._do(step)

    def _set_up(self) -> None:
        while self.run.state.main.phase is MainPhase.SETUP and self.run.state.outcome is None:
            self._do(Step(MAIN))

    def _catch_up(self) -> None:
        while steps := self.loader.steps(self.run.state):
            for step in steps:
                self._do(step)

    def _pause(self, before: int, now: int) -> None:
        """Let the load threads catch up if nothing arrived for a while, and that is believable."""
        if self._pace is not Pace.OBSERVED or not self.recording.is_whole or before < 0:
            return
        if now - before >= PAUSE_NS:
            self._entry = None
            self._catch_up()

    def _run_out(self) -> None:
        """Do what can be done when nothing more arrives."""
        priority, self._priority = self._priority, Priority.ARRIVAL
        while self.run.state.outcome is None:
            before = self.run.state
            if priority is Priority.MULTIFD:
                self._run_out_slowly()
            else:
                self._drain_all()
            self._entry = None
            self._catch_up()
            if self.run.state is before:
                break
        phase = self.run.state.main.phase
        if self.run.state.outcome is None and phase is MainPhase.DESCRIPTION:
            self._do(Deliver(None, End(EndReason.CAPTURE)))

    def _drain_all(self) -> None:
        for channel in list(self._queues):
            self._drain(channel)

    def _run_out_slowly(self) -> None:
        """Let the main thread read one item, then all receive threads what they can."""
        if None in self._queues:
            self._deliver(None)
        for channel in self._queues:
            while channel is not None and self._deliver(channel):
                pass

    # Commands

    def _do(self, event: Event) -> None:
        state, commands = self.loader.step(self.run.state, event)
        self.run.state = state
        for command in commands:
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        run = self.run
        if isinstance(command, Trace):
            run.traces.append(command)
        elif isinstance(command, Print):
            run.stderr.append(command.text)
        elif isinstance(command, Violate):
            run.findings.append(self._finding(command))
        elif isinstance(command, WriteBuffer) and self._digests:
            run.written[command.device].add(command)

    def _finding(self, command: Violate) -> Finding:
        entry = self._entry
        if command.origin is not None:
            entry = self._origins.get(command.origin, entry)
        device = None
        if command.device is not None:
            device = self.destination.devices[command.device].idstr
        elif entry is not None and isinstance(entry.event, Deliver):
            item = entry.event.item
            device = item.idstr if isinstance(item, DevicePacket | SectionStart) else None
        return finding(
            command.rule,
            command.message,
            migration=self.recording.migration,
            entry=entry,
            device=device,
        )

    def _conclude(self) -> None:
        run = self.run
        if run.state.outcome is not None:
            run.outcome = run.state.outcome
            return
        for stall in why_stalled(self.destination, run.state, self.recording.names):
            run.findings.append(self._stall_finding(stall))

    def _stall_finding(self, stall: Stall) -> Finding:
        device = None
        if stall.device is not None:
            device = self.destination.devices[stall.device].idstr
        return finding(stall.rule, stall.message, migration=self.recording.migration, device=device)


def drive(
    recording: Recording,
    destination: Destination,
    *,
    pace: Pace = Pace.OBSERVED,
    priority: Priority = Priority.ARRIVAL,
    digests: bool = True,
) -> Run:
    """Drive a destination through a recording; without ``digests`` no payload byte is touched."""
    driver = Driver(recording, destination, pace=pace, priority=priority, digests=digests)
    return driver.drive()
