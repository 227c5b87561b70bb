# SPDX-License-Identifier: GPL-2.0-or-later
"""``explore --confirm``: what a real destination makes of the runs that a search has found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mfdtool.errors import MfdtoolError
from mfdtool.schedule.apply import apply
from mfdtool.schedule.faults import parse_fault
from mfdtool.schedule.schedule import parse_schedule
from mfdtool.workflows.replay import Plan, ReplayOptions
from mfdtool.workflows.replay_qemu import QemuOptions, prepared, replay_into_qemu

if TYPE_CHECKING:
    from mfdtool.explore.jobs import Witnessed
    from mfdtool.live.targets import Target
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.state import Outcome
    from mfdtool.schedule.observation import Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirming:
    """How a real destination is asked.

    Attributes:
        target: where it listens.
        qemu: how it is started for each witness.
        tell: is told which of how many witnesses is replayed.
    """

    target: Target
    qemu: QemuOptions
    tell: Callable[[int, int], None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmed:
    """What a real destination makes of a witness.

    Attributes:
        outcome: how it ends; None if it could not be asked.
        error: the line that it printed about the failure; None if it printed none.
        exit_status: negative for a signal; None if it ran to the end.
        order: whether device packets are known to have arrived in the witness' order.
        not_enforced: steps of threads in the witness, which QEMU takes as it likes.
        differences: where the model differs.
        failure: why it could not be asked; empty if it was.
    """

    outcome: Outcome | None = None
    error: str | None = None
    exit_status: int | None = None
    order: str | None = None
    not_enforced: int = 0
    differences: tuple[str, ...] = ()
    failure: str = ""

    @property
    def agrees(self) -> bool:
        """Whether it ends as the model says."""
        return not self.failure and not self.differences


def confirm(
    witnesses: Sequence[Witnessed],
    observation: Observation,
    destination: Destination,
    asked: Confirming,
) -> tuple[tuple[Confirmed, ...], bool]:
    """Replay witnesses of a search into a real destination, one after the other.

    Gives what became of each, and whether somebody stopped it before all were done.
    """
    done: list[Confirmed] = []
    try:
        for witness in witnesses:
            if asked.tell is not None:
                asked.tell(len(done) + 1, len(witnesses))
            done.append(_asked(witness, observation, destination, asked))
    except KeyboardInterrupt:
        return tuple(done), True
    return tuple(done), False


def _asked(
    witness: Witnessed, observation: Observation, destination: Destination, asked: Confirming
) -> Confirmed:
    try:
        plan = _plan(witness, observation, destination, asked.target)
        return _replayed(plan, asked.qemu)
    except MfdtoolError as error:
        return Confirmed(failure=str(error))


def _plan(
    witness: Witnessed, observation: Observation, destination: Destination, target: Target
) -> Plan:
    arriving = apply(observation, [parse_fault(text) for text in witness.faults])
    # A witness ends where the model knows; QEMU may read on a little before it does.
    schedule = parse_schedule(witness.schedule).with_rest(arriving.trace)
    return Plan(
        options=ReplayOptions(target=target),
        recorded=observation,
        observation=arriving,
        destination=destination,
        guesses=(),
        schedule=schedule,
        faults=(),
        until=None,
        reproduce="",
    )


def _replayed(plan: Plan, options: QemuOptions) -> Confirmed:
    replayed = replay_into_qemu(prepared(plan), replace(options, compare=True))
    verdict, report = replayed.verdict, replayed.report
    return Confirmed(
        outcome=verdict.outcome,
        error=verdict.error,
        exit_status=report.exit_status,
        order=verdict.order.value,
        not_enforced=report.not_enforced,
        differences=report.differences or (),
    )
