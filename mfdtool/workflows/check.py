# SPDX-License-Identifier: GPL-2.0-or-later
"""``check``: run what was observed through the reference destination, and lint it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mfdtool.capture.source import STANDARD_INPUT
from mfdtool.errors import CaptureError
from mfdtool.fixtures.device_recording import synthetic_configs
from mfdtool.loader.assume import AUTO, assume
from mfdtool.loader.findings import finding, merged
from mfdtool.loader.lint import lint
from mfdtool.loader.options import DestinationOptions
from mfdtool.loader.trace import trace_line
from mfdtool.replay.against import Divergence, compare
from mfdtool.replay.driver import Priority, drive, replay
from mfdtool.replay.log import parse_log
from mfdtool.replay.verdict import Verdict, explanation, verdict_of
from mfdtool.rules import Severity
from mfdtool.schedule.observation import observations_of
from mfdtool.schedule.schedule import Pace, Schedule
from mfdtool.schedule.trace import Trace, trace_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mfdtool.loader.destination import Destination
    from mfdtool.loader.findings import Finding
    from mfdtool.loader.recording import Recording
    from mfdtool.replay.driver import Run
    from mfdtool.workflows.reading import Reading

_TIMING_MATTERS: Final = frozenset({"config-twice", "data-after-switchover"})
"""Findings after which the outcome may depend on how fast the load threads are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """What ``check`` is asked for.

    Attributes:
        profile: the destination's release, or ``auto``.
        destination: what was said of it.
        said: the same as text, to repeat it.
        migration: the only one to check; None for all.
        fail_on: how severe a finding has to be to count, to repeat it.
    """

    profile: str = AUTO
    destination: DestinationOptions = field(default_factory=DestinationOptions)
    said: tuple[str, ...] = ()
    migration: int | None = None
    fail_on: Severity = Severity.ERROR


@dataclass(frozen=True, slots=True)
class Checked:
    """One migration and what became of it."""

    recording: Recording
    destination: Destination
    run: Run
    verdict: Verdict

    def trace(self) -> Iterator[str]:
        """Write the model's trace as in a QEMU log; devices have their guest's paths."""
        names = [device.idstr.removesuffix("/vfio") for device in self.destination.devices]
        for event in self.run.traces:
            yield trace_line(event, names.__getitem__)


def check(reading: Reading, options: CheckOptions) -> list[Checked]:
    """Check all migrations of an input, which must keep its frames' bytes.

    Raises:
        CaptureError: it has no migration of that number.
        ValueError: there is no such profile.
    """
    observations = observations_of(reading.frames(), reading.decoder.migrations)
    recordings = [observation.recording for observation in observations]
    if options.migration is not None:
        recordings = [found for found in recordings if found.migration == options.migration]
        if not recordings:
            path = reading.input.capture or ""
            raise CaptureError(f"there is no migration {options.migration}", path=path)
    return [_check(recording, options, reading) for recording in recordings]


def against(checked: Checked, log_path: Path) -> list[Divergence]:
    """Compare a migration with the log of the destination that it went to.

    Raises:
        CaptureError: the log cannot be read.
    """
    try:
        with log_path.open(encoding="utf-8", errors="backslashreplace") as lines:
            log = parse_log(lines)
    except OSError as error:
        raise CaptureError(error.strerror or "cannot be read", path=str(log_path)) from error
    if not log.events:
        raise CaptureError("there is no trace event of a destination in it", path=str(log_path))
    run = drive(checked.recording, checked.destination, priority=Priority.MULTIFD, digests=False)
    return compare(run, log)


def _check(recording: Recording, options: CheckOptions, reading: Reading) -> Checked:
    destination, guesses = assume(recording, options.destination, options.profile)
    trace = trace_of(recording)
    schedule = Schedule(trace.digest)
    run = replay(trace, destination, schedule)
    linted = lint(recording, destination)
    timing = _timing(trace, destination, run, linted)
    made_up = _made_up(recording, destination, reading)
    findings = merged(run.findings, linted, timing, guesses, made_up)
    words = words_of(reading, options, destination, recording.migration)
    verdict = verdict_of(
        run,
        destination,
        findings,
        migration=recording.migration,
        reproduce=shlex.join(["mfdtool", "check", *words]),
        schedule=schedule,
    )
    return Checked(recording, destination, run, verdict)


def _made_up(recording: Recording, destination: Destination, reading: Reading) -> list[Finding]:
    """Say which devices' config states are made up, as the recording's comments tell."""
    names = synthetic_configs(comment.text for comment in reading.info.comments)
    return [
        finding(
            "config-synthetic",
            "recorded from the device itself: its config state is made up",
            migration=recording.migration,
            device=device.idstr,
        )
        for device in destination.devices
        if device.idstr in names
    ]


def _timing(
    trace: Trace, destination: Destination, run: Run, linted: list[Finding]
) -> list[Finding]:
    """Try faster and slower load threads where that may matter."""
    names = {found.rule.name for found in (*run.findings, *linted)}
    if not names & _TIMING_MATTERS:
        return []
    for pace in (Pace.EAGER, Pace.HELD):
        other = replay(trace, destination, Schedule(trace.digest, pace), digests=False)
        if (other.outcome, explanation(other)) != (run.outcome, explanation(run)):
            error = explanation(other)
            what = f"{other.outcome}: {error}" if error else str(other.outcome)
            message = f"with {_SPEEDS[pace]} load threads it is {what}"
            return [finding("timing-dependent", message, migration=trace.recording.migration)]
    return []


_SPEEDS: Final = {Pace.EAGER: "faster", Pace.HELD: "slower"}


def words_of(
    reading: Reading, options: CheckOptions, destination: Destination, migration: int
) -> list[str]:
    """Write what was said of the input and the destination as words of a command line."""
    source = reading.input
    words = [_operand(source.capture)] if source.capture is not None else []
    words += ["--main", str(source.main)] if source.main is not None else []
    for path in source.multifd:
        words += ["--multifd", str(path)]
    if source.page_size is not None:
        words += ["--page-size", str(source.page_size)]
    if source.described_by is not None:
        words += ["--vmdesc", str(source.described_by)]
    words += ["--profile", destination.profile.name]
    for text in options.said:
        words += ["--destination", text]
    if len(reading.decoder.migrations) > 1:
        words += ["--migration", str(migration)]
    if options.fail_on is not Severity.ERROR:
        words += ["--fail-on", options.fail_on.value]
    return words


def _operand(path: str) -> str:
    """Write a file's name so that it is not taken for an option."""
    return f"./{path}" if path.startswith("-") and path != STANDARD_INPUT else path
