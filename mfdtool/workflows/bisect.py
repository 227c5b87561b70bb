# SPDX-License-Identifier: GPL-2.0-or-later
"""``bisect``: reduce a failure, on the model, on a target, or as an external command sees it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol

from mfdtool.errors import ScheduleError, SinkError
from mfdtool.explore.bisect import Bisector, Candidate, Cause, Progress
from mfdtool.explore.reproduction import Reproduction, reproduction_of
from mfdtool.explore.sentence import sentence_of
from mfdtool.explore.signature import Judged, Signature, judge
from mfdtool.loader.events import Connect
from mfdtool.report.units import count_text
from mfdtool.schedule.faults import Hold
from mfdtool.workflows.bisect_alone import Alone, alone, target_words
from mfdtool.workflows.bisect_command import CommandTester
from mfdtool.workflows.bisect_qemu import QemuTester, Seen
from mfdtool.workflows.check import words_of
from mfdtool.workflows.replay import fits

if TYPE_CHECKING:
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.recording import Entry
    from mfdtool.replay.sink import Sink
    from mfdtool.schedule.schedule import Schedule
    from mfdtool.schedule.trace import Trace
    from mfdtool.workflows.reading import Reading
    from mfdtool.workflows.replay import Plan
    from mfdtool.workflows.replay_qemu import QemuOptions

OpenSink = Callable[[], AbstractContextManager["Sink | None"]]
Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BisectOptions:
    """What ``bisect`` is asked for.

    Attributes:
        command: runs with a capture's path appended, and says good or bad; None for the target.
        repeat: how often a candidate is tried; it fails if it does so once.
        timeout: seconds that a command may take; None for any time.
        qemu: how a QEMU is started for each try, if that is the target.
    """

    command: str | None = None
    repeat: int = 1
    timeout: float | None = None
    qemu: QemuOptions | None = None


@dataclass(frozen=True, kw_only=True)
class Bisected:
    """A failure's cause.

    Attributes:
        plan: the failure as it was.
        command: who judged, if it was a command.
        signature: what kind of failure it is; if a command judged, what the model makes of what is
            left.
        cause: what it takes.
        sentence: the cause in words.
        reproduction: what is left as packets; None if that cannot be had.
        alone: the same as it is read back, which fails in the same way (if a command judged, it got
            just that); None if nothing does.
        lacking: why there is no reproduction, or none that fails alone; empty if there is.
        kept: what is left only so that the rest, alone, is taken for what it is.
        is_modelled: whether the model alone sees the same failure.
        reproduce: the command that shows the failure with the original capture; empty if its order
            does not fit into one.
        seen: what a real QEMU did; None if none was asked.
        started: how many of them were started.
    """

    plan: Plan
    command: str | None = None
    signature: Signature
    cause: Cause
    sentence: str
    reproduction: Reproduction | None = None
    alone: Alone | None = None
    lacking: str = ""
    kept: tuple[Entry, ...] = ()
    is_modelled: bool = True
    reproduce: str
    seen: Seen | None = None
    started: int = 0


def bisect(
    reading: Reading,
    made: Plan,
    options: BisectOptions,
    *,
    open_sink: OpenSink | None = None,
    progress: Report | None = None,
) -> Bisected | None:
    """Reduce a planned replay of an input that fails; None if it does not.

    Raises:
        ScheduleError: the order or a fault does not fit, or the capture lacks bytes to send.
        SinkError: the target cannot go on, or the command says that it must stop.
    """
    if options.command is not None:
        return _by_command(reading, made, options, progress)
    if options.qemu is not None:
        return _by_qemu(reading, made, options, progress)
    tester = TargetTester(made, open_sink, repeat=options.repeat)
    cause = _reduced(made, tester, progress)
    if cause is None:
        return None
    smallest, cause = cause, _standing(made, tester, cause, progress)
    told = tester.told(cause.whole)
    found, lacking = tester.alone(cause.candidate)
    return Bisected(
        plan=made,
        signature=told.signature,
        cause=cause,
        sentence=sentence_of(told, made.destination),
        reproduction=None if found is None else found.reproduction,
        alone=found,
        lacking=lacking,
        kept=_kept(cause.candidate, smallest.candidate),
        is_modelled=found is None or tester.is_modelled(found),
        reproduce=_command(reading, made, cause),
    )


class Tester(Protocol):
    """Tells whether candidates fail as the first one did."""

    def learn(self, first: Candidate) -> bool:
        """Take the first candidate's failure for the one that is meant; False if it has none."""

    def fails(self, candidate: Candidate) -> bool:
        """Try a candidate."""

    def foreseen(self, first: Candidate) -> Cause | None:
        """Tell where a reduction of the first candidate should begin; None for no idea."""


def _reduced(made: Plan, tester: Tester, progress: Report | None) -> Cause | None:
    """Reduce what a tester calls a failure; None if it does not."""
    bisector = Bisector(made.recorded, tester.fails, progress=progress)
    faults = [fault for fault in made.options.faults if not isinstance(fault, Hold)]
    first = bisector.start(tuple(faults), made.schedule)
    if progress is not None:
        progress(Progress(0, len(first.faults), len(first.trace.observed)))
    if not tester.learn(first):
        return None
    return bisector.reduce(first, foreseen=tester.foreseen(first))


# The model, or a target that it drives.


class TargetTester:
    """Tells whether candidates fail as the first one did, on the model or on a target."""

    def __init__(self, made: Plan, open_sink: OpenSink | None, *, repeat: int) -> None:
        self._made = made
        self._open_sink = open_sink or nullcontext
        self._repeat = repeat
        self._wanted: Signature | None = None

    def learn(self, first: Candidate) -> bool:
        """Take the first candidate's failure for the one that is meant; False if it has none."""
        for _ in range(self._repeat):
            signature = self._run(first).signature
            if signature.is_failure:
                self._wanted = signature
                return True
        return False

    def fails(self, candidate: Candidate) -> bool:
        """Try a candidate, as often as asked for."""
        return any(self._run(candidate).signature == self._wanted for _ in range(self._repeat))

    def foreseen(self, first: Candidate) -> Cause | None:
        """Know nothing beforehand."""
        del first
        return None

    def stands(self, candidate: Candidate) -> bool:
        """Try a candidate, and then a capture of it alone."""
        return self.fails(candidate) and self.alone(candidate)[0] is not None

    def told(self, candidate: Candidate) -> Judged:
        """Run a candidate that fails once more, to tell how.

        Raises:
            SinkError: it does not fail in the same way any more.
        """
        for _ in range(self._repeat):
            judged = self._run(candidate, keeps_moments=True)
            if judged.signature == self._wanted:
                return judged
        raise SinkError(
            f"it does not fail in the same way again: first {self._wanted}, now"
            f" {judged.signature}; --repeat N tries more often"
        )

    def alone(self, candidate: Candidate) -> tuple[Alone | None, str]:
        """Read a candidate back from a capture; None, and why, if that does not fail alike."""
        try:
            found = alone(candidate, self._made)
        except ScheduleError as error:
            return None, str(error)
        for _ in range(self._repeat):
            judged = self._judge(found.trace, found.destination, found.schedule)
            if judged.signature == self._wanted:
                return found, ""
        return None, f"alone, what is left is: {judged.signature}"

    def is_modelled(self, found: Alone) -> bool:
        """Whether the model, without any target, fails in the same way."""
        judged = judge(found.trace, found.destination, found.schedule)
        return judged.signature == self._wanted

    def _run(self, candidate: Candidate, *, keeps_moments: bool = False) -> Judged:
        return self._judge(
            candidate.trace,
            self._made.destination,
            candidate.schedule,
            keeps_moments=keeps_moments,
        )

    def _judge(
        self,
        trace: Trace,
        destination: Destination,
        schedule: Schedule,
        *,
        keeps_moments: bool = False,
    ) -> Judged:
        """Run an order on what is asked: the model, and the target if there is one."""
        with self._open_sink() as sink:
            return judge(trace, destination, schedule, sink=sink, keeps_moments=keeps_moments)


def _standing(made: Plan, tester: TargetTester, cause: Cause, progress: Report | None) -> Cause:
    """Give a cause of which a capture alone fails in the same way, if there is one.

    What is read of a capture depends on what else is in it. So a cause that cannot do without
    what was taken out, once it is alone, is looked for again: with all packets, and alone.
    """
    if tester.alone(cause.candidate)[0] is not None:
        return cause
    bisector = Bisector(made.recorded, tester.stands, progress=progress)
    if not bisector.fails(cause.whole):
        return cause
    found = bisector.reduce(cause.whole)
    return replace(found, tests=cause.tests + found.tests)


def _kept(found: Candidate, smallest: Candidate) -> tuple[Entry, ...]:
    """Give what a candidate has, and a smaller one of the same faults has not."""
    if found is smallest or found.faults != smallest.faults:
        return ()
    known = {place for places in smallest.shrunk.origin for place in places}
    return tuple(
        found.trace.entry(lane, at)
        for lane, places in enumerate(found.shrunk.origin)
        for at, place in enumerate(places)
        if place not in known
    )


# A QEMU.


def _by_qemu(
    reading: Reading, made: Plan, options: BisectOptions, progress: Report | None
) -> Bisected | None:
    assert options.qemu is not None
    tester = QemuTester(made, options.qemu, repeat=options.repeat)
    cause = _reduced(made, tester, progress)
    if cause is None:
        return None
    assert tester.seen is not None, "the first one failed"
    seen, is_modelled = tester.seen, tester.seen.is_foreseen
    judged = judge(cause.candidate.trace, made.destination, cause.candidate.schedule)
    whole = judge(cause.whole.trace, made.destination, cause.whole.schedule, keeps_moments=True)
    found, lacking = None, ""
    try:
        found = alone(cause.candidate, made, options.qemu)
    except ScheduleError as error:
        lacking = str(error)
    else:
        small = judge(found.trace, found.destination, found.schedule)
        is_modelled &= small.signature == judged.signature
    if seen.is_foreseen and whole.signature.is_failure:
        sentence = sentence_of(whole, made.destination)
    else:
        sentence = _enough(
            cause, "QEMU to fail", f"of the whole, the model says: {whole.signature}"
        )
    return Bisected(
        plan=made,
        signature=seen.signature,
        cause=cause,
        sentence=sentence,
        reproduction=None if found is None else found.reproduction,
        alone=found,
        lacking=lacking,
        is_modelled=is_modelled,
        reproduce=_command(reading, made, cause, options.qemu),
        seen=seen,
        started=tester.tries,
    )


# A command.


def _by_command(
    reading: Reading, made: Plan, options: BisectOptions, progress: Report | None
) -> Bisected | None:
    command = options.command
    assert command is not None
    with TemporaryDirectory(prefix="mfdtool-") as folder:
        tester = CommandTester(
            made, command, Path(folder), repeat=options.repeat, timeout=options.timeout
        )
        cause = _reduced(made, tester, progress)
    if cause is None:
        return None
    found = cause.candidate
    judged = judge(found.trace, made.destination, found.schedule)
    read_back, lacking = None, ""
    try:
        read_back = alone(found, made)
    except ScheduleError as error:
        # To the command it was a file; that it is one migration is for us to want.
        lacking = str(error)
    return Bisected(
        plan=made,
        command=command,
        signature=judged.signature,
        cause=cause,
        sentence=_enough(cause, repr(command), f"the model: {judged.signature}"),
        reproduction=reproduction_of(found),
        alone=read_back,
        lacking=lacking,
        reproduce=_command(reading, made, cause),
    )


def _enough(cause: Cause, what_for: str, model: str) -> str:
    """Say what it takes; why, only who judged knows."""
    faults = ", ".join(str(fault) for fault in cause.candidate.faults)
    items = _items(cause)
    what = f"{count_text(items, 'item')} {'is' if items == 1 else 'are'} enough"
    what += f" with {faults}" if faults else ""
    return f"{what} for {what_for}; {model}"


def _items(cause: Cause) -> int:
    """Count what is left besides connections."""
    return sum(
        not isinstance(entry.event, Connect)
        for lane in cause.candidate.trace.lanes
        for entry in lane.entries
    )


def _command(reading: Reading, made: Plan, cause: Cause, qemu: QemuOptions | None = None) -> str:
    """Write the command that shows the failure with the original capture.

    It is empty if the order does not fit into a command line.
    """
    said = made.options.destination
    words = words_of(reading, said, made.destination, made.recorded.migration.index)
    for fault in cause.candidate.faults:
        words += ["--fault", str(fault)]
    schedule = cause.whole.schedule
    if not fits(str(schedule)):
        return ""
    words += (
        ["--policy", schedule.pace.value] if schedule.acts is None else ["--order", str(schedule)]
    )
    return shlex.join(["mfdtool", "replay", *words, *target_words(made, qemu)])
