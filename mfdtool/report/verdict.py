# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts as JSON and as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mfdtool.replay.verdict import MODEL
from mfdtool.report.units import count_text

if TYPE_CHECKING:
    from mfdtool.loader.findings import Finding
    from mfdtool.replay.verdict import DeviceVerdict, Verdict
    from mfdtool.rules import Rule

FORMAT: Final = 1
QEMU: Final = "qemu"
"""The sink's name if it is a real destination."""

_UNKNOWN: Final = "not known"
_SCHEDULE_SHOWN: Final = 1000


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """Give a verdict as a JSON object."""
    return {
        "format": FORMAT,
        "migration": verdict.migration,
        "outcome": None if verdict.outcome is None else verdict.outcome.value,
        "error": verdict.error,
        "recorded_error": verdict.recorded_error,
        "stderr": list(verdict.stderr),
        "profile": verdict.profile,
        "sink": verdict.sink,
        "order": verdict.order.value,
        "devices": [_device_json(device) for device in verdict.devices],
        "findings": [finding_json(found) for found in verdict.findings],
        "faults": [{"fault": fault, "what": what} for fault, what in verdict.faults],
        "stopped": verdict.stopped,
        "idle_steps": verdict.idle_steps,
        "left_out": verdict.left_out,
        "schedule": verdict.schedule or None,
        "reproduce": verdict.reproduce,
    }


def _device_json(device: DeviceVerdict) -> dict[str, Any]:
    return {
        "idstr": device.idstr,
        "instance_id": device.instance_id,
        "outcome": None if device.outcome is None else device.outcome.value,
        "restored": device.restored,
        "reset": device.reset,
        "buffers": device.buffers,
        "bytes": device.bytes,
        "sha256": device.sha256,
        "queued": device.queued,
    }


def finding_json(found: Finding) -> dict[str, Any]:
    """Give a finding as a JSON object."""
    return {
        "rule": found.rule.id,
        "name": found.rule.name,
        "severity": found.severity.value,
        "migration": found.migration,
        "channel": found.channel or None,
        "number": found.number,
        "offset": found.offset,
        "device": found.device,
        "message": found.message,
        "source": found.rule.source,
    }


INCOMPLETE: Final = frozenset({"MFD602", "MFD603"})
"""Rules about the recording, not about the migration."""


def verdict_text(verdict: Verdict) -> list[str]:
    """Write a verdict for people, one line each."""
    outcome = _UNKNOWN if verdict.sink == QEMU else "stopped"
    outcome = outcome if verdict.outcome is None else verdict.outcome.value
    lines = [f"migration {verdict.migration}: {outcome} (QEMU {verdict.profile})"]
    if any(found.rule.id in INCOMPLETE for found in verdict.findings) and not verdict.left_out:
        lines.append("  of an incomplete recording: the destination may have had what it lacks")
    if verdict.stopped is not None and verdict.outcome is None:
        lines.append(f"  at {verdict.stopped}, as asked: how it would have ended is not known")
    lines += [f"  fault {fault}: {what}" for fault, what in verdict.faults]
    if not verdict.is_recorded:
        lines.append(f"  schedule {shown_schedule(verdict.schedule)}")
    if verdict.left_out:
        what = f"{count_text(verdict.left_out, 'item')} of the recording"
        how = "does not arrive" if verdict.left_out == 1 else "do not arrive"
        them = "it" if verdict.left_out == 1 else "them"
        lines.append(f"  {what} {how}: the schedule leaves {them} out")
    if verdict.sink != MODEL:
        lines.append(f"  into {verdict.sink}, the order is {verdict.order.value}")
    # How fast load threads were in the recording nobody knows: there a depth would be made up.
    lines += [
        f"  device {_device_text(device, with_queue=not verdict.is_recorded)}"
        for device in verdict.devices
    ]
    if verdict.idle_steps:
        what = count_text(verdict.idle_steps, "step")
        lines.append(f"  {what} of the schedule could not be taken: the thread had to wait")
    if verdict.stderr:
        lines.append("  the destination prints:")
        lines += [f"    {line}" for line in verdict.stderr]
    if verdict.recorded_error is not None and verdict.recorded_error not in verdict.stderr:
        lines += ["  it records, and does not print:", f"    {verdict.recorded_error}"]
    for found in sorted(verdict.findings, key=lambda found: found.severity, reverse=True):
        lines.append(f"  {finding_text(found)}")
    return lines


def shown_schedule(schedule: str) -> str:
    """Shorten a schedule that fills screens."""
    if len(schedule) <= _SCHEDULE_SHOWN:
        return schedule
    return f"{schedule[:_SCHEDULE_SHOWN]}... ({len(schedule)} characters, all of them in --json)"


def _device_text(device: DeviceVerdict, *, with_queue: bool) -> str:
    what = ["not done" if device.outcome is None else device.outcome.value]
    if device.buffers:
        what.append(count_text(device.buffers, "buffer"))
    if device.bytes is not None:
        what.append(count_text(device.bytes, "byte"))
    if device.queued and with_queue:
        what.append(f"up to {count_text(device.queued, 'byte')} waited")
    if device.reset:
        what.append("reset, its state is lost")
    elif not device.restored and device.outcome is not None:
        what.append("not restored")
    return f"{device.idstr}: {', '.join(what)}"


def finding_text(found: Finding) -> str:
    """Write a finding on one line."""
    place = found.channel
    if place and found.number is not None:
        place = f"{place} #{found.number}"
    where = ", ".join(part for part in (place, found.device) if part)
    head = f"{found.severity.value} {found.rule.id} {found.rule.name}"
    return f"{head}: {where}: {found.message}" if where else f"{head}: {found.message}"


def rule_text(rule: Rule) -> list[str]:
    """Write what a rule says."""
    return [
        f"{rule.id} {rule.name} ({rule.severity.value})",
        f"  {rule.sentence}",
        f"  QEMU: {rule.source}",
    ]


def rule_json(rule: Rule) -> dict[str, Any]:
    """Give a rule as a JSON object."""
    return {
        "format": FORMAT,
        "rule": rule.id,
        "name": rule.name,
        "severity": rule.severity.value,
        "sentence": rule.sentence,
        "source": rule.source,
    }
