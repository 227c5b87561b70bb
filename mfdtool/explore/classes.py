# SPDX-License-Identifier: GPL-2.0-or-later
"""Outcome classes: what a search tells apart.

Two runs are of one class if they end alike, because the same rule was broken for the same device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mfdtool.loader.commands import Abort, Command, Record, Violate
from mfdtool.loader.events import Deliver, DevicePacket, Event, SectionStart
from mfdtool.loader.moves import MainPhase
from mfdtool.loader.stall import why_stalled
from mfdtool.loader.state import UNKNOWN_LAST, Outcome
from mfdtool.rules import RULES_BY_NAME

if TYPE_CHECKING:
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.state import State
    from mfdtool.schedule.trace import Trace


class Blame(NamedTuple):
    """A broken rule, by name, and the device that it is about; both empty if there is none."""

    rule: str = ""
    device: str = ""


NO_BLAME = Blame()


@dataclass(frozen=True, slots=True, order=True)
class OutcomeClass:
    """How runs end, and why.

    Attributes:
        outcome: how.
        rule: the rule's name, empty if none is broken.
        device: idstr of the device that it is about, empty if it is about none.
    """

    outcome: Outcome
    rule: str = ""
    device: str = ""

    @property
    def rule_id(self) -> str | None:
        """The rule's id, None if no rule is broken."""
        return RULES_BY_NAME[self.rule].id if self.rule else None


def blame_of(
    destination: Destination,
    before: Blame,
    event: Event,
    commands: Sequence[Command],
    state: State,
) -> Blame:
    """Say which broken rule will explain the end, after an event's commands led to ``state``.

    That is the one for which the first error was recorded, unless an assertion or allocation kills
    the destination, or its cleanup gets stuck: then it is the one that did this.
    """
    found = NO_BLAME
    blame = before
    for command in commands:
        if isinstance(command, Violate):
            found = Blame(command.rule, _device_of(destination, command, event))
        elif isinstance(command, Record | Abort):
            blame = found
    return found if state.main.phase is MainPhase.STUCK and found.rule else blame


def _device_of(destination: Destination, command: Violate, event: Event) -> str:
    if command.device is not None:
        return destination.devices[command.device].idstr
    if isinstance(event, Deliver) and isinstance(event.item, DevicePacket | SectionStart):
        return event.item.idstr
    return ""


class Judge:
    """Tells the class of a run of one trace from the state in which it ended."""

    def __init__(self, trace: Trace, destination: Destination) -> None:
        self._destination = destination
        self._last_idx = [-1] * len(destination.devices)
        for lane, place in trace.packets:
            event = trace.entry(lane, place).event
            assert isinstance(event, Deliver)
            assert isinstance(event.item, DevicePacket)
            packet = event.item
            number = destination.device_named(packet.idstr, packet.instance_id)
            if number is not None and packet.idx is not None:
                self._last_idx[number] = max(self._last_idx[number], packet.idx)

    def judge(self, state: State, blame: Blame) -> OutcomeClass:
        """Give the class; a state that has not ended is one where nobody can go on."""
        if state.outcome is None:
            return self._stalled(state, blame)
        if state.outcome is Outcome.COMPLETED:
            return OutcomeClass(Outcome.COMPLETED, *self._loss(state))
        return OutcomeClass(state.outcome, *blame)

    def _stalled(self, state: State, blame: Blame) -> OutcomeClass:
        for stall in why_stalled(self._destination, state):
            device = ""
            if stall.device is not None:
                device = self._destination.devices[stall.device].idstr
            return OutcomeClass(Outcome.STALLED, stall.rule, device)
        return OutcomeClass(Outcome.STALLED, *blame)

    def is_cut(self, state: State, number: int) -> bool:
        """Tell whether a device's config was loaded although data was sent that lies behind it."""
        device = state.devices[number]
        return device.config_loaded and UNKNOWN_LAST > device.last < self._last_idx[number]

    def _loss(self, state: State) -> Blame:
        """Say what a guest that runs has lost without a word.

        What was sent counts, also if it had not arrived yet when the guest was started.
        """
        specs = self._destination.devices
        for spec, device, last in zip(specs, state.devices, self._last_idx, strict=True):
            if device.transfer and last >= 0 and not state.main.switchovers:
                return Blame("switchover-missing", spec.idstr)
        for spec, device in zip(specs, state.devices, strict=True):
            if device.reset:
                return Blame("device-reset", spec.idstr)
        for number, spec in enumerate(specs):
            if self.is_cut(state, number):
                return Blame("data-behind-config", spec.idstr)
        return NO_BLAME
