# SPDX-License-Identifier: GPL-2.0-or-later
"""``replay``: drive the reference destination, and what stands behind it, in any order.

:func:`plan` makes everything ready without touching a target; :func:`carry_out` does it.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from mfdtool.errors import CaptureError, ScheduleError
from mfdtool.live.targets import MODEL_TARGET, Target
from mfdtool.loader.assume import assume
from mfdtool.loader.events import (
    Connect,
    Deliver,
    DevicePacket,
    FileHeader,
    Marker,
    SectionStart,
)
from mfdtool.loader.findings import merged
from mfdtool.loader.lint import lint
from mfdtool.replay.driver import Moment, replay
from mfdtool.replay.verdict import MODEL, verdict_of
from mfdtool.report.replay import fault_text, place_text
from mfdtool.schedule.acts import Load, SetUp
from mfdtool.schedule.apply import apply, check_together, hold
from mfdtool.schedule.faults import Fault, Hold
from mfdtool.schedule.observation import Observation, observations_of
from mfdtool.schedule.orders import ORDERS, ROUND_ROBIN, order
from mfdtool.schedule.pick import named, pick
from mfdtool.schedule.schedule import (
    RECORDED,
    VERSION,
    Pace,
    Schedule,
    is_schedule,
    parse_schedule,
)
from mfdtool.wire.constants import VFIOMarker, VFIOStateFlag
from mfdtool.workflows.check import Checked, CheckOptions, words_of

if TYPE_CHECKING:
    from mfdtool.loader.blob import Blob
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.findings import Finding
    from mfdtool.loader.recording import Entry, Recording
    from mfdtool.replay.sink import Sink
    from mfdtool.replay.verdict import DeviceVerdict
    from mfdtool.schedule.address import Address
    from mfdtool.schedule.trace import Trace
    from mfdtool.stream.frames import Frame
    from mfdtool.workflows.reading import Reading

NAMES: Final = (RECORDED, *ORDERS, ROUND_ROBIN)
"""Orders by name; ``random:`` and ``pct:`` have arguments."""

FILE: Final = "file:"
SCHEDULE: Final = f"{VERSION}:"
PICKED: Final = ("random:", "pct:")
MAX_TEXT: Final = 1 << 28
"""Bytes of a schedule's file that are read at most."""

NO_STEPS: Final = "{order} has no steps of threads, which --policy steps needs"
"""Complains of an order in which load threads would never move."""

_LONGEST_WORD: Final = 100_000
"""Characters of a schedule that fit into a command line; Linux takes 128 KiB in a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOptions:
    """What ``replay`` is asked for.

    Attributes:
        destination: what was said of the destination and of the migration.
        order: an order's name, ``file:PATH``, or a schedule's text.
        pace: how fast load threads are; None for what the order says.
        reassign: whether packets may be moved to other channels.
        faults: what is changed on the way.
        until: the last packet that is read; None for all.
        target: where it goes.
        device: the only device that the target takes, as the user names it.
    """

    destination: CheckOptions = field(default_factory=CheckOptions)
    order: str = RECORDED
    pace: Pace | None = None
    reassign: bool = False
    faults: tuple[Fault, ...] = ()
    until: Address | None = None
    target: Target = MODEL_TARGET
    device: str | None = None


@dataclass(frozen=True)
class Plan:
    """A replay that is ready to be carried out.

    Attributes:
        options: what was asked for.
        recorded: what was captured.
        observation: what arrives, faults included.
        destination: the model's.
        guesses: what had to be guessed of it.
        schedule: the order.
        faults: what was changed, as text, and what that means.
        until: where it stops; None if it does not.
        reproduce: the command that does the same again.
    """

    options: ReplayOptions
    recorded: Observation
    observation: Observation
    destination: Destination
    guesses: tuple[Finding, ...]
    schedule: Schedule
    faults: tuple[tuple[str, str], ...]
    until: Entry | None
    reproduce: str

    @property
    def trace(self) -> Trace:
        """What the schedule is an order of."""
        return self.observation.trace

    @cached_property
    def _origins(self) -> dict[int, Entry]:
        """Entries as they were recorded, by their events: orders may move them."""
        return {id(entry.event): entry for entry in self.trace.recording.entries}

    @cached_property
    def _frames(self) -> dict[tuple[str, int | None], Frame]:
        return {(frame.channel.name, frame.number): frame for frame in self.observation.frames}

    def frame_of(self, entry: Entry) -> Frame | None:
        """Find the frame that an entry was made of; None for the end of a channel."""
        origin = self._origins.get(id(entry.event), entry)
        return self._frames.get((origin.channel, origin.number))


Show = Callable[[Moment], None]
"""Sees each event of the run."""


def plan(reading: Reading, options: ReplayOptions) -> Plan:
    """Make a replay of an input, which must keep its frames' bytes, ready.

    Raises:
        CaptureError: it has no migration of that number, or several and none was named.
        ScheduleError: the order or a fault does not fit, or a schedule cannot be read.
        ValueError: there is no such profile.
    """
    recorded = chosen(reading, options.destination.migration)
    said = options.destination
    # The destination is the one that the recording was meant for: faults do not change it.
    destination, guesses = assume(recorded.recording, said.destination, said.profile)
    check_together(recorded, options.faults)
    observation = apply(recorded, options.faults)
    holds = [fault for fault in options.faults if isinstance(fault, Hold)]
    schedule = _schedule(observation.trace, destination, options)
    schedule.check(observation.trace)
    schedule = hold(schedule, observation.trace, observation, holds)
    until = None if options.until is None else entry_of(options.until, observation)
    words = words_of(reading, said, destination, recorded.migration.index)
    words += _words(options, schedule)
    return Plan(
        options,
        recorded,
        observation,
        destination,
        guesses,
        schedule,
        tuple(_told(fault, recorded, observation) for fault in options.faults),
        until,
        shlex.join(["mfdtool", "replay", *words]),
    )


def carry_out(plan: Plan, *, sink: Sink | None = None, show: Show | None = None) -> Checked:
    """Replay; ``show`` is called after each event.

    Raises:
        SinkError: the sink cannot go on.
    """
    stopped: list[Moment] = []

    def watch(moment: Moment) -> bool:
        if show is not None:
            show(moment)
        if plan.until is not None and is_at(moment, plan.until):
            stopped.append(moment)
        return bool(stopped)

    is_watched = show is not None or plan.until is not None
    run = replay(
        plan.trace,
        plan.destination,
        plan.schedule,
        watch=watch if is_watched else None,
        sink=sink,
    )
    arrived = arriving(plan.trace, plan.schedule)
    linted = lint(arrived, plan.destination) if not stopped else ()
    verdict = verdict_of(
        run,
        plan.destination,
        merged(run.findings, linted, plan.guesses),
        migration=arrived.migration,
        reproduce=plan.reproduce,
        schedule=plan.schedule,
    )
    verdict = replace(
        verdict,
        faults=plan.faults,
        left_out=len(plan.trace.recording.entries) - len(arrived.entries),
        stopped=place_text(plan.until) if stopped and plan.until is not None else None,
    )
    if sink is not None:
        devices = _judged(verdict.devices, sink.finish(run.outcome))
        verdict = replace(verdict, sink=sink.name, order=sink.order, devices=devices)
    return Checked(arrived, plan.destination, run, verdict)


def _judged(
    devices: tuple[DeviceVerdict, ...], runs: Mapping[int, bool]
) -> tuple[DeviceVerdict, ...]:
    """Correct the model's devices by what the real ones did."""
    return tuple(
        replace(device, restored=device.restored and runs[number], reset=not runs[number])
        if number in runs
        else device
        for number, device in enumerate(devices)
    )


def config_of(made: Plan, number: int) -> bytes | None:
    """Find the config state of a device as it was recorded, from its marker on.

    None if there is none, or its first bytes were not captured.
    """
    spec = made.destination.devices[number]
    section = ""
    for entry in made.trace.recording.entries:
        item = entry.event.item if isinstance(entry.event, Deliver) else None
        if isinstance(item, SectionStart):
            section = item.idstr
        found: Blob | None = None
        if isinstance(item, DevicePacket) and item.idstr == spec.idstr:
            found = item.data if (item.flags or 0) & VFIOStateFlag.CONFIG_STATE else None
        elif isinstance(item, Marker) and section == spec.idstr:
            found = item.data if item.marker == VFIOMarker.DEV_CONFIG_STATE else None
        if found is not None and found.parts:
            return found.head(found.length)
    return None


def is_at(moment: Moment, entry: Entry) -> bool:
    """Whether an event is that an entry, wherever an order moved it, is read."""
    return moment.entry is not None and moment.entry.event is entry.event


def entry_of(address: Address, observation: Observation) -> Entry:
    """Find what the destination reads at a packet's place: it, or what it is a part of.

    Raises:
        ScheduleError: there is no such packet, or nobody reads it.
    """
    frame = address.resolve(observation)
    entries = [
        entry
        for entry in observation.trace.recording.entries
        if entry.channel == frame.channel.name and entry.offset <= frame.offset
    ]
    exact = [entry for entry in entries if entry.number == frame.number]
    if not entries:
        raise ScheduleError(f"{address}: the destination reads nothing there")
    return (exact or entries)[-1]


def arriving(trace: Trace, schedule: Schedule) -> Recording:
    """Give a recording in a schedule's order, as if it had been captured so.

    Raises:
        ScheduleError: the schedule is not one of this trace.
    """
    if schedule.acts is None:
        return trace.recording
    numbers: dict[str, int] = {}
    entries: list[Entry] = []
    for _, entry in schedule.arrivals(trace):
        if entry is None:
            continue
        event = entry.event
        if isinstance(event, Connect):
            if not isinstance(event.first, FileHeader):
                numbers[entry.channel] = len(numbers)
        elif event.channel is not None:
            if entry.channel not in numbers:
                continue
            entry = replace(entry, event=replace(event, channel=numbers[entry.channel]))
        entries.append(entry)
    return replace(trace.recording, entries=tuple(entries), names=tuple(numbers))


def save(schedule: Schedule, path: Path) -> None:
    """Write a schedule to a file.

    Raises:
        OSError: it cannot be written.
    """
    path.write_text(f"{schedule}\n", encoding="ascii")


def fits(schedule: str) -> bool:
    """Whether a schedule's text fits into a command line."""
    return len(schedule) <= _LONGEST_WORD


def chosen(reading: Reading, wanted: int | None) -> Observation:
    """Choose the migration that is asked for, of an input that keeps its frames' bytes.

    Raises:
        CaptureError: there is none of that number, or several and none was named.
    """
    found = observations_of(reading.frames(), reading.decoder.migrations)
    path = reading.input.capture or ""
    if wanted is not None:
        found = [each for each in found if each.migration.index == wanted]
        if not found:
            raise CaptureError(f"there is no migration {wanted}", path=path)
    if len(found) > 1:
        raise CaptureError(f"there are {len(found)} migrations, name the --migration", path=path)
    if not found:
        raise CaptureError("there is no migration in it", path=path)
    return found[0]


# Orders.


def _schedule(trace: Trace, destination: Destination, options: ReplayOptions) -> Schedule:
    text = options.order
    if text.startswith(FILE) or is_schedule(text):
        path = text.removeprefix(FILE)
        schedule = parse_schedule(text if path == text else _read(Path(path)), trace)
        if options.pace is None or options.pace is schedule.pace:
            return schedule
        return _repaced(schedule, options.pace)
    if options.pace is Pace.STEPS:
        raise ScheduleError(NO_STEPS.format(order=f"the order {text}"))
    if text.startswith(PICKED):
        return _picked(text, trace, destination)
    pace = options.pace or Pace.OBSERVED
    return order(trace, text, pace=pace, reassign=options.reassign)


def _repaced(schedule: Schedule, pace: Pace) -> Schedule:
    """Give a schedule another pace."""
    acts = schedule.acts or ()
    if pace is Pace.STEPS and not any(isinstance(act, Load | SetUp) for act in acts):
        raise ScheduleError(NO_STEPS.format(order="this schedule"))
    return replace(schedule, pace=pace)


def _picked(text: str, trace: Trace, destination: Destination) -> Schedule:
    """Let dice choose among all that could happen next; the seed is in the order's name."""
    picked = named(text)
    assert picked is not None, "the caller looks at the name"
    return pick(trace, destination, picked.chooser(trace, Random(picked.seed)))


def _read(path: Path) -> str:
    """Read a schedule's file.

    Raises:
        ScheduleError: it cannot be read, or is no text that could be one.
    """
    try:
        with path.open(encoding="ascii") as file:
            text = file.read(MAX_TEXT + 1)
    except OSError as error:
        raise ScheduleError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ScheduleError(f"{path}: it is no schedule") from error
    if len(text) > MAX_TEXT:
        raise ScheduleError(f"{path}: a schedule has at most {MAX_TEXT} bytes")
    return text


def _words(options: ReplayOptions, schedule: Schedule) -> list[str]:
    """Write what makes the schedule and the sink as words of a command line.

    A named order stays a name. What a file had at the time is written out, unless it is too long.
    """
    words: list[str] = []
    text = options.order
    is_text = text.startswith(FILE) or is_schedule(text)
    holds = any(isinstance(fault, Hold) for fault in options.faults)
    is_written_out = is_text and not holds and len(str(schedule)) <= _LONGEST_WORD
    if is_written_out:
        text = str(schedule)
    if text != RECORDED:
        words += ["--order", text]
    if options.pace is not None and not is_written_out:
        words += ["--policy", options.pace.value]
    words += ["--reassign"] if options.reassign else []
    for fault in options.faults:
        words += ["--fault", str(fault)]
    words += ["--until", str(options.until)] if options.until is not None else []
    words += ["--to", MODEL if options.target == MODEL_TARGET else str(options.target)]
    words += ["--device", options.device] if options.device is not None else []
    return words


def _told(fault: Fault, recorded: Observation, observation: Observation) -> tuple[str, str]:
    """Say what a fault did; packets to wait for are looked up in what arrives."""
    if isinstance(fault, Hold):
        frame = fault.address.resolve(observation)
        return str(fault), fault_text(fault, frame, fault.until.resolve(observation))
    return str(fault), fault_text(fault, fault.address.resolve(recorded))
