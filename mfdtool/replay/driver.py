# SPDX-License-Identifier: GPL-2.0-or-later
"""Drives the reference destination through a recording, in the order that a schedule says.

A channel's items keep their order; an item that arrives while its thread is busy waits, and is
read as soon as the thread can. What a recording cannot show is how fast the load threads are. They
are taken to take one step for every item that some other thread reads, and to catch up in a pause
of the network. Other paces can be asked for, or a schedule says each of their steps.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, TypeAlias

from mfdtool.loader import commands as done
from mfdtool.loader.blob import Key
from mfdtool.loader.commands import Command, Print, Violate, WriteBuffer
from mfdtool.loader.destination import Destination
from mfdtool.loader.events import (
    MAIN,
    Connect,
    Deliver,
    DevicePacket,
    End,
    Event,
    FileHeader,
    SectionStart,
    Step,
    loader,
)
from mfdtool.loader.findings import Finding, finding
from mfdtool.loader.machine import Loader
from mfdtool.loader.moves import MainPhase
from mfdtool.loader.recording import Entry, Recording
from mfdtool.loader.stall import Stall, why_stalled
from mfdtool.loader.state import Outcome, State
from mfdtool.loader.turn import PendingWrite
from mfdtool.replay.sink import Sink
from mfdtool.schedule.acts import Act, Load
from mfdtool.schedule.schedule import Pace, Schedule
from mfdtool.schedule.trace import Trace, trace_of
from mfdtool.stream.span import EndReason

_MAIN: Final = MAIN.kind.value

_NOT_THERE: Final = "it is not connected"

PAUSE_NS: Final = 10_000_000
"""Silence in which the load threads do all that they can."""


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
        outcome: how it ended; a destination that merely waits has stalled. None if the run was
            stopped before.
        traces: the trace events in order.
        stderr: the lines that it printed.
        written: what the devices got, by number.
        queued: the most bytes that waited for the devices' load threads at a time, by number.
        findings: rules that were broken.
        idle_steps: steps that the schedule says and that no thread could take.
    """

    state: State
    outcome: Outcome | None = Outcome.STALLED
    traces: list[done.Trace] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    written: list[Written] = field(default_factory=list)
    queued: list[int] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    idle_steps: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """An event, and what the destination did about it.

    Attributes:
        act: the number of the schedule's act that it belongs to.
        event: what happened.
        entry: what arrived, None for a step of a thread.
        state: the destination after it.
        commands: what it did.
        queued: what has arrived on each channel and was not read, each with the number of its
            act; it changes as the run goes on.
        names: the names of the multifd channels, by number of connection.
    """

    act: int
    event: Event
    entry: Entry | None
    state: State
    commands: tuple[Command, ...]
    queued: Mapping[str, Sequence[tuple[int, Entry]]]
    names: tuple[str, ...]


Watch: TypeAlias = Callable[[Moment], bool]
"""Sees each event; gives True to stop there."""


class Driver:
    """One run; use :func:`drive`."""

    def __init__(
        self,
        trace: Trace,
        destination: Destination,
        schedule: Schedule,
        *,
        priority: Priority = Priority.ARRIVAL,
        digests: bool = True,
        watch: Watch | None = None,
        sink: Sink | None = None,
    ) -> None:
        self.trace = trace
        self.recording = trace.recording
        self.destination = destination
        self.schedule = schedule
        self.loader = Loader(destination)
        self.run = Run(self.loader.initial())
        self.run.written = [Written() for _ in destination.devices]
        self.run.queued = [0 for _ in destination.devices]
        self._pace = schedule.pace
        self._priority = priority
        self._digests = digests
        self._watch = watch
        self._sink = sink
        self._act = -1
        self._stopped = False
        self._queues: dict[str, deque[tuple[int, Entry]]] = {}
        self._connected: dict[str, int] = {}
        self._entry: Entry | None = None
        self._origins: dict[Key, Entry] = {}

    def drive(self) -> Run:
        """Go through the schedule, then as far as it goes by itself."""
        last_time = -1
        for number, (act, entry) in enumerate(self.schedule.arrivals(self.trace)):
            self._act = number
            if entry is not None:
                if self.schedule.acts is None:
                    self._pause(last_time, entry.time_ns)
                    last_time = entry.time_ns
                self._arrive(number, entry)
            else:
                self._step(act)
            if self._is_over():
                break
        self._run_out()
        self._conclude()
        return self.run

    def _is_over(self) -> bool:
        return self._stopped or self.run.state.outcome is not None

    # Order

    def _arrive(self, position: int, entry: Entry) -> None:
        if isinstance(entry.event, Connect):
            self._connect(entry, entry.event)
            return
        queue = self._queues.setdefault(entry.channel, deque())
        queue.append((position, entry))
        if len(queue) == 1 or self._priority is Priority.MULTIFD:
            self._drain(entry.channel)

    def _connect(self, entry: Entry, event: Connect) -> None:
        """Accept a connection; it is known by its number among those that are not the main one."""
        if not isinstance(event.first, FileHeader):
            self._connected[entry.channel] = len(self._connected)
        self._take(entry, event)

    def _step(self, act: Act) -> None:
        """Let a thread take the step that the schedule says, if it can, and others read then."""
        actor = loader(act.device) if isinstance(act, Load) else MAIN
        step = Step(actor)
        self._entry = None
        if self.loader.why_not(self.run.state, step):
            self.run.idle_steps += 1
            return
        self._do(step)
        self._drain_waiting()

    def _drain(self, channel: str) -> None:
        """Let threads read what waits for them, beginning with one channel's."""
        if self._priority is Priority.ARRIVAL and not self._deliver(channel):
            return
        self._drain_waiting()

    def _drain_waiting(self) -> None:
        while not self._is_over():
            waiting = [
                (queue[0][0], channel)
                for channel, queue in self._queues.items()
                if queue and not self._why_not(queue[0][1])
            ]
            if self._priority is Priority.MULTIFD:
                waiting = [found for found in waiting if found[1] != _MAIN]
            if not waiting:
                return
            self._deliver(min(waiting)[1])

    def _why_not(self, entry: Entry) -> str:
        event = self._event_of(entry)
        return _NOT_THERE if event is None else self.loader.why_not(self.run.state, event)

    def _event_of(self, entry: Entry) -> Deliver | None:
        """Give an entry's event with the number that its channel has in this run."""
        event = entry.event
        assert isinstance(event, Deliver)
        if entry.channel == _MAIN:
            return event
        number = self._connected.get(entry.channel)
        if number is None or number == event.channel:
            return None if number is None else event
        return replace(event, channel=number)

    def _deliver(self, channel: str) -> bool:
        queue = self._queues[channel]
        if not queue or self._why_not(queue[0][1]):
            return False
        _, entry = queue.popleft()
        event = self._event_of(entry)
        assert event is not None
        self._take(entry, event)
        return True

    # Load threads

    def _take(self, entry: Entry, event: Connect | Deliver) -> None:
        self._entry = entry
        if isinstance(event, Deliver) and isinstance(event.item, DevicePacket):
            self._origins[event.item.data.key] = entry
        self._do(event)
        if self._pace is Pace.STEPS:
            return
        self._set_up()
        if self._pace is Pace.EAGER:
            self._catch_up()
        elif self._pace is Pace.OBSERVED:
            for step in self.loader.steps(self.run.state):
                self._do(step)

    def _set_up(self) -> None:
        while self.run.state.main.phase is MainPhase.SETUP and not self._is_over():
            self._do(Step(MAIN))

    def _catch_up(self) -> None:
        while not self._is_over() and (steps := self.loader.steps(self.run.state)):
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
        while not self._is_over():
            before = self.run.state
            if priority is Priority.MULTIFD:
                self._run_out_slowly()
            else:
                self._drain_all()
            self._entry = None
            if self._pace is not Pace.STEPS:
                self._catch_up()
            if self.run.state is before:
                break
        phase = self.run.state.main.phase
        if not self._is_over() and phase is MainPhase.DESCRIPTION:
            self._do(Deliver(None, End(EndReason.CAPTURE)))

    def _drain_all(self) -> None:
        for channel in list(self._queues):
            self._drain(channel)

    def _run_out_slowly(self) -> None:
        """Let the main thread read one item, then all receive threads what they can."""
        if _MAIN in self._queues:
            self._deliver(_MAIN)
        for channel in self._queues:
            while channel != _MAIN and self._deliver(channel):
                pass

    # Commands

    def _do(self, event: Event) -> None:
        if self._stopped:
            return
        answers = {} if self._sink is None else self._write(event, self._sink)
        state, commands = self.loader.step(self.run.state, event, answers)
        if state.devices is not self.run.state.devices:
            queued = (device.queued for device in state.devices)
            self.run.queued = list(map(max, self.run.queued, queued))
        self.run.state = state
        for command in commands:
            self._carry_out(command)
        if self._watch is not None:
            self._stopped = self._watch(self._moment(event, commands))

    def _moment(self, event: Event, commands: tuple[Command, ...]) -> Moment:
        names = tuple(self._connected)
        state = self.run.state
        entry = None if isinstance(event, Step) else self._entry
        return Moment(self._act, event, entry, state, commands, self._queues, names)

    def _write(self, event: Event, sink: Sink) -> dict[PendingWrite, int]:
        """Let the sink write what an event writes; give what it answers."""
        answers: dict[PendingWrite, int] = {}
        modelled: set[PendingWrite] = set()
        while pending := [
            found
            for found in self.loader.pending_writes(self.run.state, event, answers)
            if found not in modelled
        ]:
            answer = sink.write(pending[0].device, pending[0].idx, pending[0].data)
            if answer is None:
                modelled.add(pending[0])
            else:
                answers[pending[0]] = answer
        return answers

    def _carry_out(self, command: Command) -> None:
        run = self.run
        if isinstance(command, done.Trace):
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
        if self._stopped:
            run.outcome = None
            return
        for stall in why_stalled(self.destination, run.state, tuple(self._connected)):
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
    """Drive a destination through a recording in the order of arrival.

    Without ``digests`` no payload byte is touched.
    """
    trace = trace_of(recording)
    schedule = Schedule(trace.digest, pace)
    return Driver(trace, destination, schedule, priority=priority, digests=digests).drive()


def replay(
    trace: Trace,
    destination: Destination,
    schedule: Schedule,
    *,
    digests: bool = True,
    watch: Watch | None = None,
    sink: Sink | None = None,
) -> Run:
    """Drive a destination through a trace in a schedule's order.

    With a ``sink`` real devices answer in place of the model's.

    Raises:
        ScheduleError: the schedule is not one of this trace.
        SinkError: the sink cannot go on.
    """
    if schedule.digest != trace.digest:
        schedule.check(trace)
    driver = Driver(trace, destination, schedule, digests=digests, watch=watch, sink=sink)
    return driver.drive()
