# SPDX-License-Identifier: GPL-2.0-or-later
"""``check``: run what was observed through the reference destination, and lint it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mfdtool.errors import CaptureError
from mfdtool.loader.assume import AUTO, assume
from mfdtool.loader.findings import finding, merged
from mfdtool.loader.lint import lint
from mfdtool.loader.options import DestinationOptions
from mfdtool.loader.trace import trace_line
from mfdtool.replay.against import Divergence, compare
from mfdtool.replay.driver import Pace, Priority, drive
from mfdtool.replay.log import parse_log
from mfdtool.replay.observed import recordings_of
from mfdtool.replay.verdict import Verdict, explanation, verdict_of

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
    """

    profile: str = AUTO
    destination: DestinationOptions = field(default_factory=DestinationOptions)
    said: tuple[str, ...] = ()
    migration: int | None = None


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
    recordings = recordings_of(reading.frames(), reading.decoder.migrations)
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
    run = drive(recording, destination)
    linted = lint(recording, destination)
    timing = _timing(recording, destination, run, linted)
    findings = merged(run.findings, linted, timing, guesses)
    verdict = verdict_of(
        run,
        destination,
        findings,
        migration=recording.migration,
        reproduce=_command(reading, options, destination, recording),
    )
    return Checked(recording, destination, run, verdict)


def _timing(
    recording: Recording, destination: Destination, run: Run, linted: list[Finding]
) -> list[Finding]:
    """Try faster and slower load threads where that may matter."""
    names = {found.rule.name for found in (*run.findings, *linted)}
    if not names & _TIMING_MATTERS:
        return []
    for pace in (Pace.EAGER, Pace.HELD):
        other = drive(recording, destination, pace=pace, digests=False)
        if (other.outcome, explanation(other)) != (run.outcome, explanation(run)):
            error = explanation(other)
            what = f"{other.outcome.value}: {error}" if error else other.outcome.value
            message = f"with {_SPEEDS[pace]} load threads it is {what}"
            return [finding("timing-dependent", message, migration=recording.migration)]
    return []


_SPEEDS: Final = {Pace.EAGER: "faster", Pace.HELD: "slower"}


def _command(
    reading: Reading, options: CheckOptions, destination: Destination, recording: Recording
) -> str:
    """Write the command that gives the same verdict again."""
    source = reading.input
    words = ["mfdtool", "check"]
    words += [source.capture] if source.capture is not None else []
    words += ["--main", str(source.main)] if source.main is not None else []
    for path in source.multifd:
        words += ["--multifd", str(path)]
    if source.page_size is not None:
        words += ["--page-size", str(source.page_size)]
    words += ["--profile", destination.profile.name]
    for text in options.said:
        words += ["--destination", text]
    if len(reading.decoder.migrations) > 1:
        words += ["--migration", str(recording.migration)]
    return shlex.join(words)
