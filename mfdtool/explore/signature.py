# SPDX-License-Identifier: GPL-2.0-or-later
"""When two failures are the same one: the same outcome, the same rule, the same device.

A device whose load thread waits for ever can do so for three reasons, and these are not the same:
nothing of it arrived, an idx is missing between others, or the config is. One that is reset lacks
what lies behind its config, other data, the config, or all. And a destination may wait for ever
because of an error that it has recorded: then that is the same one, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mfdtool.explore.classes import NO_BLAME, Judge, OutcomeClass, blame_of
from mfdtool.loader.state import UNKNOWN_LAST, Outcome
from mfdtool.replay.driver import Moment, Run, replay

if TYPE_CHECKING:
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.findings import Finding
    from mfdtool.loader.state import Device, State
    from mfdtool.replay.sink import Sink
    from mfdtool.schedule.schedule import Schedule
    from mfdtool.schedule.trace import Trace

_UNFINISHED: Final = "device-unfinished"
_RESETS: Final = frozenset({"device-reset", "device-reset-fails"})


@dataclass(frozen=True, slots=True)
class Signature:
    """What makes a failure the one that it is.

    Attributes:
        kind: outcome, rule and device.
        lack: what a device lacks that waits for ever or is reset; empty otherwise.
        error: the rule for which an error was recorded before a stall; empty if none was.
    """

    kind: OutcomeClass
    lack: str = ""
    error: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether there is anything to explain."""
        return self.kind.outcome is not Outcome.COMPLETED or bool(self.kind.rule)

    def __str__(self) -> str:
        words = (self.kind.outcome.value, self.kind.rule, self.kind.device)
        return ", ".join(word for word in words if word)


@dataclass(frozen=True, slots=True)
class Judged:
    """A run, and what kind of failure it ended with.

    Attributes:
        moments: all that happened, if that was asked for.
    """

    run: Run
    signature: Signature
    moments: tuple[Moment, ...] = field(default=(), repr=False)

    @property
    def finding(self) -> Finding | None:
        """The finding that tells about the rule; None if the loss is silent."""
        return self._finding(self.signature.kind.rule)

    @property
    def error(self) -> Finding | None:
        """The finding for which an error was recorded before a stall; None if none was."""
        return self._finding(self.signature.error)

    def _finding(self, rule: str) -> Finding | None:
        return next((found for found in self.run.findings if found.rule.name == rule), None)


def judge(
    trace: Trace,
    destination: Destination,
    schedule: Schedule,
    *,
    sink: Sink | None = None,
    keeps_moments: bool = False,
) -> Judged:
    """Replay a schedule on the model, and on a sink if there is one, and tell how it ends.

    Raises:
        ScheduleError: the schedule is not one of this trace.
    """
    blame = NO_BLAME
    moments: list[Moment] = []

    def watch(moment: Moment) -> bool:
        nonlocal blame
        if moment.commands:
            blame = blame_of(destination, blame, moment.event, moment.commands, moment.state)
        if keeps_moments:
            moments.append(moment)
        return False

    run = replay(trace, destination, schedule, digests=False, watch=watch, sink=sink)
    judges = Judge(trace, destination)
    kind = judges.judge(run.state, blame)
    error = blame.rule if kind.outcome is Outcome.STALLED and blame.rule != kind.rule else ""
    lack = _lack(destination, kind, judges, run.state)
    return Judged(run, Signature(kind, lack, error), tuple(moments))


def _lack(destination: Destination, kind: OutcomeClass, judges: Judge, state: State) -> str:
    for number, spec in enumerate(destination.devices):
        device = state.devices[number]
        if spec.idstr != kind.device:
            continue
        if kind.rule == _UNFINISHED:
            return _of_unfinished(device)
        if kind.rule in _RESETS:
            return "behind" if judges.is_cut(state, number) else _of_reset(device)
    return ""


def _of_unfinished(device: Device) -> str:
    if device.last != UNKNOWN_LAST or any(idx > device.cur for idx in device.slots):
        return "idx"
    return "config" if device.cur else "everything"


def _of_reset(device: Device) -> str:
    if device.config_loaded:
        return "data"
    return "config" if device.intake.size else "everything"
