# SPDX-License-Identifier: GPL-2.0-or-later
"""What a destination makes of a migration, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from mfdtool.loader.moves import LoadPhase
from mfdtool.loader.state import Outcome
from mfdtool.replay.sink import Order
from mfdtool.schedule.schedule import Pace

if TYPE_CHECKING:
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.findings import Finding
    from mfdtool.loader.state import Device
    from mfdtool.replay.driver import Run
    from mfdtool.rules import Severity
    from mfdtool.schedule.schedule import Schedule

MODEL: Final = "model"
"""The sink's name if there is none but the model itself."""

_GENERIC: Final = "load of migration failed: "


class DeviceOutcome(StrEnum):
    """How loading a device ended."""

    LOADED = "loaded"
    FAILED = "failed"
    STARVED = "starved"
    """Its load thread waits, or waited until it was told to give up."""
    IDLE = "idle"
    """Nothing was loaded, or what there was came in the main stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceVerdict:
    """What became of one device.

    Attributes:
        outcome: None if the run was stopped before it was known.
        restored: whether the guest runs with the device's state.
        reset: whether the device refused its state and was reset.
        buffers: multifd buffers that were written to it.
        bytes: bytes that were written to it, precopy included; None if nobody counted them.
        sha256: digest of these bytes; None if some of them were not captured, or nobody did.
        queued: the most bytes that waited for its load thread at a time, which
            x-migration-max-queued-buffers-size limits; None if nobody counted them.
    """

    idstr: str
    instance_id: int
    outcome: DeviceOutcome | None
    restored: bool
    reset: bool
    buffers: int
    bytes: int | None
    sha256: str | None
    queued: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a migration.

    Attributes:
        migration: its number in the capture.
        outcome: how it ended; None if the run was stopped before.
        error: the printed line that explains the failure; None if nothing is printed.
        recorded_error: the first error that was recorded inside, printed or not.
        stderr: what QEMU prints, with ``NAME`` for a device's host name.
        profile: the destination's release.
        findings: rules that are broken.
        reproduce: the command that gives this verdict again.
        sink: what stood behind the devices.
        order: whether the schedule's order is the one in which things happened.
        schedule: the order in which it was driven, as text; empty if it was not by a schedule.
        is_recorded: whether that is the order of the recording.
        faults: what was changed in the recording, as text, and what that means.
        stopped: where the run was stopped; None if it came to its end.
        idle_steps: steps of the schedule that no thread could take.
        left_out: items of the recording that the schedule does not let arrive.
    """

    migration: int
    outcome: Outcome | None
    error: str | None
    recorded_error: str | None
    stderr: tuple[str, ...]
    profile: str
    devices: tuple[DeviceVerdict, ...]
    findings: tuple[Finding, ...]
    reproduce: str = ""
    sink: str = MODEL
    order: Order = Order.EXACT
    schedule: str = ""
    is_recorded: bool = True
    faults: tuple[tuple[str, str], ...] = ()
    stopped: str | None = None
    idle_steps: int = 0
    left_out: int = 0

    def is_bad(self, threshold: Severity) -> bool:
        """Whether it is no success, or has a finding at least as severe as ``threshold``.

        A run that was stopped has not failed yet.
        """
        worst = any(found.severity >= threshold for found in self.findings)
        return worst or self.outcome not in {Outcome.COMPLETED, None}


def verdict_of(
    run: Run,
    destination: Destination,
    findings: tuple[Finding, ...],
    *,
    migration: int = 0,
    reproduce: str = "",
    schedule: Schedule | None = None,
) -> Verdict:
    """Sum up a run; ``findings`` are all that are to be told, ``schedule`` its order."""
    return Verdict(
        migration=migration,
        outcome=run.outcome,
        error=explanation(run),
        recorded_error=run.state.error,
        stderr=tuple(run.stderr),
        profile=destination.profile.name,
        devices=tuple(_devices(run, destination)),
        findings=findings,
        reproduce=reproduce,
        schedule="" if schedule is None else str(schedule),
        is_recorded=schedule is None or is_recorded(schedule),
        idle_steps=run.idle_steps,
    )


def is_recorded(schedule: Schedule) -> bool:
    """Whether a schedule is what was recorded, with the pace that is taken for granted."""
    return schedule.acts is None and schedule.pace is Pace.OBSERVED


def explanation(run: Run) -> str | None:
    """Choose the printed line that explains the failure.

    That is the error that was recorded first, unless it only says that there was one.
    """
    if not run.stderr or run.outcome is Outcome.STALLED:
        return None
    last = run.state.printed
    if last is None or last not in run.stderr:
        return None
    if last.startswith(_GENERIC) and ": " not in last.removeprefix(_GENERIC):
        return run.stderr[0]
    return last


def _devices(run: Run, destination: Destination) -> list[DeviceVerdict]:
    verdicts = []
    for number, spec in enumerate(destination.devices):
        device = run.state.devices[number]
        written = run.written[number]
        completed = run.outcome is Outcome.COMPLETED
        verdicts.append(
            DeviceVerdict(
                idstr=spec.idstr,
                instance_id=spec.instance_id,
                outcome=_outcome(device, is_over=run.outcome is not None),
                restored=completed and device.config_loaded and not device.reset,
                reset=device.reset,
                buffers=device.buffers,
                bytes=written.size,
                sha256=written.sha256,
                queued=run.queued[number],
            )
        )
    return verdicts


def _outcome(device: Device, *, is_over: bool) -> DeviceOutcome | None:
    if device.phase is LoadPhase.LOADED:
        return DeviceOutcome.LOADED
    if device.phase in {LoadPhase.FAILED, LoadPhase.CRASHED} and not device.cancelled:
        return DeviceOutcome.FAILED
    if not is_over:
        return None
    if device.phase is LoadPhase.IDLE:
        return DeviceOutcome.LOADED if device.config_loaded else DeviceOutcome.IDLE
    return DeviceOutcome.STARVED
