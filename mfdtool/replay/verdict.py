# SPDX-License-Identifier: GPL-2.0-or-later
"""What a destination makes of a migration, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from mfdtool.loader.moves import LoadPhase
from mfdtool.loader.state import Outcome

if TYPE_CHECKING:
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.findings import Finding
    from mfdtool.loader.state import Device
    from mfdtool.replay.driver import Run
    from mfdtool.rules import Severity

_GENERIC = "load of migration failed: "


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
        restored: whether the guest runs with the device's state.
        reset: whether the device refused its state and was reset.
        buffers: multifd buffers that were written to it.
        bytes: bytes that were written to it, precopy included.
        sha256: digest of these bytes; None if some of them were not captured.
    """

    idstr: str
    instance_id: int
    outcome: DeviceOutcome
    restored: bool
    reset: bool
    buffers: int
    bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a migration.

    Attributes:
        migration: its number in the capture.
        outcome: how it ended.
        error: the printed line that explains the failure; None if nothing is printed.
        recorded_error: the first error that was recorded inside, printed or not.
        stderr: what QEMU prints, with ``NAME`` for a device's host name.
        profile: the destination's release.
        findings: rules that are broken.
        reproduce: the command that gives this verdict again.
    """

    migration: int
    outcome: Outcome
    error: str | None
    recorded_error: str | None
    stderr: tuple[str, ...]
    profile: str
    devices: tuple[DeviceVerdict, ...]
    findings: tuple[Finding, ...]
    reproduce: str = ""
    sink: str = "model"
    order: str = "exact"

    def is_bad(self, threshold: Severity) -> bool:
        """Whether it is no success, or has a finding at least as severe as ``threshold``."""
        worst = any(found.severity >= threshold for found in self.findings)
        return worst or self.outcome is not Outcome.COMPLETED


def verdict_of(
    run: Run,
    destination: Destination,
    findings: tuple[Finding, ...],
    *,
    migration: int = 0,
    reproduce: str = "",
) -> Verdict:
    """Sum up a run; ``findings`` are all that are to be told."""
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
    )


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
                outcome=_outcome(device),
                restored=completed and device.config_loaded and not device.reset,
                reset=device.reset,
                buffers=device.buffers,
                bytes=written.size,
                sha256=written.sha256,
            )
        )
    return verdicts


def _outcome(device: Device) -> DeviceOutcome:
    if device.phase is LoadPhase.IDLE:
        return DeviceOutcome.LOADED if device.config_loaded else DeviceOutcome.IDLE
    if device.phase is LoadPhase.LOADED:
        return DeviceOutcome.LOADED
    failed = device.phase in {LoadPhase.FAILED, LoadPhase.CRASHED} and not device.cancelled
    return DeviceOutcome.FAILED if failed else DeviceOutcome.STARVED
