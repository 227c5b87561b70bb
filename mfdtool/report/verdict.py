# SPDX-License-Identifier: GPL-2.0-or-later
"""Verdicts as JSON and as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mfdtool.report.units import count_text

if TYPE_CHECKING:
    from mfdtool.loader.findings import Finding
    from mfdtool.replay.verdict import DeviceVerdict, Verdict
    from mfdtool.rules import Rule

FORMAT: Final = 1


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """Give a verdict as a JSON object."""
    return {
        "format": FORMAT,
        "migration": verdict.migration,
        "outcome": verdict.outcome.value,
        "error": verdict.error,
        "recorded_error": verdict.recorded_error,
        "stderr": list(verdict.stderr),
        "profile": verdict.profile,
        "sink": verdict.sink,
        "order": verdict.order,
        "devices": [_device_json(device) for device in verdict.devices],
        "findings": [finding_json(found) for found in verdict.findings],
        "schedule": None,
        "reproduce": verdict.reproduce,
    }


def _device_json(device: DeviceVerdict) -> dict[str, Any]:
    return {
        "idstr": device.idstr,
        "instance_id": device.instance_id,
        "outcome": device.outcome.value,
        "restored": device.restored,
        "reset": device.reset,
        "buffers": device.buffers,
        "bytes": device.bytes,
        "sha256": device.sha256,
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
    lines = [f"migration {verdict.migration}: {verdict.outcome.value} (QEMU {verdict.profile})"]
    if any(found.rule.id in INCOMPLETE for found in verdict.findings):
        lines.append("  of an incomplete recording: the destination may have had what it lacks")
    lines += [f"  device {_device_text(device)}" for device in verdict.devices]
    if verdict.stderr:
        lines.append("  the destination prints:")
        lines += [f"    {line}" for line in verdict.stderr]
    if verdict.recorded_error is not None and verdict.recorded_error not in verdict.stderr:
        lines += ["  it records, and does not print:", f"    {verdict.recorded_error}"]
    for found in sorted(verdict.findings, key=lambda found: found.severity, reverse=True):
        lines.append(f"  {finding_text(found)}")
    return lines


def _device_text(device: DeviceVerdict) -> str:
    what = [device.outcome.value]
    if device.buffers:
        what.append(count_text(device.buffers, "buffer"))
    what.append(count_text(device.bytes, "byte"))
    if device.reset:
        what.append("reset, its state is lost")
    elif not device.restored:
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
