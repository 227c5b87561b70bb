# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``info`` tells of a migration's course: phases, switchover, and who wrote it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mfdtool.report.units import (
    count_text,
    device_text,
    offset_text,
    seconds_text,
    stamp_text,
    table,
)
from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.phases import Phase

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mfdtool.stream.recognition import Evidence, Recognition
    from mfdtool.stream.summary import MigrationSummary
    from mfdtool.stream.switchover import Interval, Readiness, SwitchoverSummary


_DEVICES_LISTED: Final = 8


def phase_lines(migration: MigrationSummary) -> Iterator[str]:
    """Give a table of phases, and of what else took time."""
    start = migration.first_ns
    if start < 0:
        yield "no times in this input"
        yield from _untimed_lines(migration)
        return
    notes = _notes(migration)
    rows = [
        (
            times.phase.value,
            offset_text(times.start_ns, start),
            offset_text(times.stop_ns, start),
            f"{times.bytes:,} bytes",
            notes.get(times.phase, ""),
        )
        for times in migration.phases
    ]
    rows += [
        (name, offset_text(low, start), offset_text(high, start), size, note)
        for name, low, high, size, note in _stretches(migration)
    ]
    yield from table(rows, right=frozenset({1, 2, 3}))


def _untimed_lines(migration: MigrationSummary) -> Iterator[str]:
    """Give the phases of a stream in a file; several files tell nothing of what came when."""
    if len(migration.channels) != 1:
        return
    notes = _notes(migration)
    rows = [
        (times.phase.value, f"{times.bytes:,} bytes", notes.get(times.phase, ""))
        for times in migration.phases
    ]
    yield from table(rows, right=frozenset({1}))


def _notes(migration: MigrationSummary) -> dict[Phase, str]:
    notes = {
        Phase.PRECOPY: count_text(migration.ram.sections, "iteration"),
        Phase.SNAPSHOT: "device state (background snapshot): the guest goes on",
        Phase.SWITCHOVER: _switchover_note(migration),
    }
    if any(channel.kind is ChannelKind.RETURN_PATH for channel in migration.channels):
        notes[Phase.POSTCOPY] = count_text(migration.ram.requests, "request") + " for pages"
    return notes


def _stretches(migration: MigrationSummary) -> Iterator[tuple[str, int, int, str, str]]:
    """Give what lies across phases: name, start, stop, size, note."""
    devices = [device for device in migration.devices if device.first_ns >= 0]
    if devices:
        size = sum(device.main.bytes + device.multifd.bytes for device in devices)
        low = min(device.first_ns for device in devices)
        high = max(device.last_ns for device in devices)
        note = "first to last packet of stop-copy data"
        yield "device state", low, high, f"{size:,} bytes", note
    configs = migration.standstill.configs
    if configs is not None:
        yield _stretch("config", configs, "first to last config of a device")
    standstill = migration.standstill.standstill
    if standstill is not None:
        length = seconds_text(standstill.stop_ns - standstill.start_ns)
        note = f"{length}, the part that the wire shows"
        yield _stretch("downtime", standstill, note)


def _stretch(name: str, interval: Interval, note: str) -> tuple[str, int, int, str, str]:
    return name, interval.start_ns, interval.stop_ns, f"{interval.bytes:,} bytes", note


def _switchover_note(migration: MigrationSummary) -> str:
    start = "SWITCHOVER_START" if migration.switchover else "no SWITCHOVER_START"
    if any(times.phase is Phase.POSTCOPY for times in migration.phases):
        return f"{start} to POSTCOPY_RUN"
    return f"{start} to EOF" if migration.ended else f"{start}, no EOF"


def switchover_lines(migration: MigrationSummary) -> Iterator[str]:
    """Say what the source waited for before the switchover, if the stream tells."""
    summary = migration.standstill
    if not summary.with_ack:
        if summary.suspects:
            names = map(_suspect, summary.suspects[:_DEVICES_LISTED])
            more = len(summary.suspects) - _DEVICES_LISTED
            listed = ", ".join([*names, *([f"{more} more"] if more > 0 else [])])
            yield f"none yet; if switchover-ack is on, it waits for {listed}"
        return
    start = migration.first_ns
    last = summary.last_ready
    ready = "no device had initial data to wait for"
    if last is not None and last.sent_ns is not None:
        name = device_text(last.key.idstr)
        at = "" if start < 0 else f", at {offset_text(last.sent_ns, start)}"
        ready = f"{name} was the last with INIT_DATA_SENT{at}"
    if summary.ack_ns is not None:
        yield f"SWITCHOVER_ACK at {offset_text(summary.ack_ns, start)}; {ready}"
        return
    is_heard = any(channel.kind is ChannelKind.RETURN_PATH for channel in migration.channels)
    ack = "no SWITCHOVER_ACK" if is_heard else "SWITCHOVER_ACK unknown, no return path in the input"
    yield f"{ack}; {ready}"
    for key in summary.lacking:
        yield f"blocked by {device_text(key.idstr)}, which has sent no INIT_DATA_SENT"


def _suspect(device: Readiness) -> str:
    sent = "precopy data, no INIT_DATA_SENT" if device.has_data else "nothing yet"
    return f"{device_text(device.key.idstr)} ({sent})"


def release_lines(recognition: Recognition) -> Iterator[str]:
    """Say which releases could have written a stream, and what decides that."""
    if not recognition.evidence:
        yield "any: nothing in the stream tells"
        return
    profile = recognition.profile
    guess = f"profile {profile.name}" if profile is not None else "no profile"
    yield f"{release_text(recognition)}, {guess}"
    for since, until in ((recognition.since, ""), ("", recognition.until)):
        reasons = [
            f"{evidence.text} ({evidence.where})"
            for evidence in recognition.evidence
            if (evidence.since, evidence.until) == (since, until)
        ]
        if reasons:
            yield f"{_bounds(since, until)}: {', '.join(reasons)}"


def release_text(recognition: Recognition) -> str:
    """Name a range of releases."""
    if not recognition.is_possible:
        return "none that is known: what tells of it contradicts itself"
    return _bounds(recognition.since, recognition.until)


def _bounds(since: str, until: str) -> str:
    if since and until:
        return since if since == until else f"{since} to {until}"
    if since:
        return f"{since} or later"
    return f"{until} or earlier" if until else "any"


def phases_json(migration: MigrationSummary) -> list[dict[str, Any]]:
    """Give the phases as JSON."""
    return [
        {
            "phase": times.phase.value,
            "first": stamp_text(times.start_ns),
            "last": stamp_text(times.stop_ns),
            "bytes": times.bytes,
        }
        for times in migration.phases
    ]


def switchover_json(summary: SwitchoverSummary) -> dict[str, Any]:
    """Give what is known of the switchover as JSON."""
    return {
        "downtime": _interval_json(summary.standstill),
        "config": _interval_json(summary.configs),
        "switchover_ack": summary.with_ack,
        "ack": stamp_text(summary.ack_ns) if summary.ack_ns is not None else None,
        "devices": [
            {
                "idstr": device.key.idstr or None,
                "instance_id": device.key.instance_id,
                "precopy_data": device.has_data,
                "init_data_sent": device.sent_ns is not None,
                "at": stamp_text(device.sent_ns) if device.sent_ns is not None else None,
            }
            for device in summary.devices
        ],
        "blocked_by": [key.idstr for key in summary.lacking],
        "blocked_if_ack_is_on": [device.key.idstr for device in summary.suspects],
    }


def _interval_json(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    return {
        "first": stamp_text(interval.start_ns),
        "last": stamp_text(interval.stop_ns),
        "bytes": interval.bytes,
    }


def release_json(recognition: Recognition) -> dict[str, Any]:
    """Give which releases could have written a stream as JSON."""
    profile = recognition.profile
    return {
        "since": recognition.since or None,
        "until": recognition.until or None,
        "possible": recognition.is_possible,
        "profile": profile.name if profile is not None else None,
        "profiles": [each.name for each in recognition.profiles],
        "evidence": [_evidence_json(evidence) for evidence in recognition.evidence],
    }


def _evidence_json(evidence: Evidence) -> dict[str, Any]:
    return {
        "text": evidence.text,
        "since": evidence.since or None,
        "until": evidence.until or None,
        "where": evidence.where,
    }
