# SPDX-License-Identifier: GPL-2.0-or-later
"""``explore``: make jobs of a recording, have them done somewhere, put together what they found."""

from __future__ import annotations

import os
import pickle
import random
import shlex
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from math import prod
from pathlib import Path
from traceback import clear_frames
from typing import TYPE_CHECKING, Final

from mfdtool.errors import CaptureError, ScheduleError, SinkError
from mfdtool.explore.budget import NO_FAULTS, Budget, variants
from mfdtool.explore.checkpoint import read_checkpoint, write_checkpoint
from mfdtool.explore.jobs import Exploration, Job, Summary, Witnessed, merged, split, work
from mfdtool.explore.shorten import shortened
from mfdtool.explore.space import Space
from mfdtool.loader.assume import assume
from mfdtool.schedule.apply import apply
from mfdtool.schedule.faults import parse_fault
from mfdtool.schedule.observation import Observation
from mfdtool.schedule.pick import Picked
from mfdtool.schedule.schedule import parse_schedule
from mfdtool.workflows.check import CheckOptions, words_of
from mfdtool.workflows.confirm import Confirmed, Confirming, confirm
from mfdtool.workflows.executors import executor_for, is_told_to_stop
from mfdtool.workflows.replay import chosen, fits

if TYPE_CHECKING:
    from mfdtool.loader.destination import Destination
    from mfdtool.schedule.trace import Trace
    from mfdtool.workflows.reading import Reading

DEFAULT_LIMIT: Final = 1_000_000
"""States of one variant that are looked at, unless something else is said."""

PARTS: Final = 16
"""Parts that a large variant is taken into, at least."""

LARGE: Final = 500
"""Places that a variant's device packets can be at, from which on it is large."""

MOST_MARKS: Final = 1_000_000
"""Runs at random whose orders are told apart; a million take about 200 MiB."""

_DRAWN_AT_ONCE: Final = 25
_SAVE_SECONDS: Final = 5.0
_WAIT_SECONDS: Final = 0.5
_MAX_CHECKPOINT: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class ExploreOptions:
    """What ``explore`` is asked for.

    Attributes:
        destination: what was said of the destination and of the migration.
        budget: faults that may happen.
        limit: states of each variant that are looked at.
        seconds: time that it may take; None for as long as it takes.
        jobs: jobs at a time.
        cluster: address of a Dask scheduler.
        checkpoint: a file that is kept up to date.
        resume: a checkpoint to go on from.
        draws: run that many orders at random instead of all.
        depth: with ``draws``, that of PCT; None for orders that are simply random.
        seed: of the first of them.
        confirm: a real destination that is asked about what was found; None for none.
    """

    destination: CheckOptions = field(default_factory=CheckOptions)
    budget: Budget = NO_FAULTS
    limit: int = DEFAULT_LIMIT
    seconds: float | None = None
    jobs: int = 1
    cluster: str | None = None
    checkpoint: Path | None = None
    resume: Path | None = None
    draws: int | None = None
    depth: int | None = None
    seed: int = 0
    confirm: Confirming | None = None

    @property
    def drawn(self) -> tuple[Picked, Picked] | None:
        """The first and the last of the orders at random; None if there are none."""
        if self.draws is None:
            return None
        last = self.seed + self.draws - 1
        return Picked(self.seed, self.depth), Picked(last, self.depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explored:
    """What was found, and how to see it again.

    Attributes:
        migration: the number of the migration.
        profile: the destination's release.
        why_not_all: why it is not complete; empty if it is.
        is_interrupted: whether somebody stopped it.
        drawn: the first and the last of the orders at random; None if all were tried.
        skipped: variants that cannot be made, because bytes of a packet were not captured.
        budget: the faults that were allowed.
        seconds: how long it took.
        reproduce: the command that replays each outcome's witness, in their order; empty where the
            schedule does not fit into a command line.
        worst: the same for the deepest queue.
        max_queued: what the destination lets wait for a load thread, at which runs end.
        unsaved: why the checkpoint is not the latest; empty if it is.
        confirmed: what a real destination makes of each outcome's witness, in their order; fewer
            if somebody stopped it; None if it was not asked.
    """

    found: Exploration
    migration: int
    profile: str
    why_not_all: str
    is_interrupted: bool
    drawn: tuple[Picked, Picked] | None
    skipped: int
    budget: str
    seconds: float
    reproduce: tuple[str, ...]
    worst: str
    max_queued: int
    unsaved: str
    confirmed: tuple[Confirmed, ...] | None = None


Tell = Callable[[int, int], None]
"""Is told now and then how many jobs are done, and how many states were looked at."""


def explore(reading: Reading, options: ExploreOptions, tell: Tell | None = None) -> Explored:
    """Explore a migration of an input, which must keep its frames' bytes.

    Raises:
        CaptureError: it has no migration of that number, or several and none was named; or a
            checkpoint cannot be read or written.
        ScheduleError: a checkpoint is of another exploration.
        SinkError: a cluster cannot be reached, or a process was killed; what was known by then is
            in the checkpoint.
        ValueError: there is no such profile.
    """
    said = options.destination
    observation = chosen(reading, said.migration)
    destination, _ = assume(observation.recording, said.destination, said.profile)
    run = _Run(observation, destination, options, tell)
    run.go()
    words = words_of(reading, said, destination, observation.migration.index)
    found = run.found()
    why_not_all = run.why_not_all(found)
    confirmed, is_stopped = None, run.is_interrupted
    if options.confirm is not None and not is_stopped:
        confirmed, is_stopped = confirm(found.outcomes, observation, destination, options.confirm)
    return Explored(
        found=found,
        migration=observation.migration.index,
        profile=destination.profile.name,
        why_not_all=why_not_all,
        is_interrupted=is_stopped,
        drawn=options.drawn,
        skipped=run.skipped,
        budget=str(options.budget),
        seconds=run.seconds,
        reproduce=tuple(
            _replay(words, witness.schedule, witness.faults) for witness in found.outcomes
        ),
        worst=_replay(words, found.worst.schedule, found.worst_faults),
        max_queued=destination.max_queued,
        unsaved=run.unsaved,
        confirmed=confirmed,
    )


def _replay(words: list[str], schedule: str, faults: tuple[str, ...]) -> str:
    """Write a command that replays a schedule; empty if there is none, or it is too long."""
    if not schedule or not fits(schedule):
        return ""
    said = [word for fault in faults for word in ("--fault", fault)]
    return shlex.join(["mfdtool", "replay", *words, *said, "--order", schedule])


def carry_out(job: Job, deadline: float | None) -> Summary:
    """Do a job, in whatever process; ``deadline`` is a time of the system's clock."""
    return work(
        job,
        dice=random.Random,
        stop=lambda: is_told_to_stop() or (deadline is not None and time.time() > deadline),
    )


class _Run:
    """One exploration."""

    def __init__(
        self,
        observation: Observation,
        destination: Destination,
        options: ExploreOptions,
        tell: Tell | None,
    ) -> None:
        self._observation = observation
        self._destination = destination
        self._options = options
        self._tell = tell
        self._done: dict[tuple[int, int], Summary] = {}
        self._partial: dict[tuple[int, int], Summary] = {}
        self._begin = time.monotonic()
        self._deadline = None if options.seconds is None else time.time() + options.seconds
        self._saved = self._begin - _SAVE_SECONDS
        self._splits = options.jobs > 1 or options.cluster is not None
        self._is_all = False
        self._picked = 0
        self._unclaimed: set[tuple[int, int]] = set()
        self._identity = self._identify()
        self._was_saved = False
        self.is_interrupted = False
        self.unsaved = ""
        self.skipped = 0
        self.seconds = 0.0

    def _identify(self) -> str:
        """Name all that decides what the jobs are."""
        options = self._options
        said = (options.limit, options.draws, options.depth, options.seed, str(options.budget))
        about = (self._observation.trace.digest, _values_of(self._destination), said)
        return blake2b(repr(about).encode(), digest_size=16).hexdigest()

    def go(self) -> None:
        """Do all jobs, or as many as there is time for."""
        if self._options.resume is not None:
            self._resume(self._options.resume)
        is_broken = False
        try:
            with executor_for(jobs=self._options.jobs, cluster=self._options.cluster) as (
                executor,
                width,
            ):
                self._feed(executor.submit, 2 * width)
        except KeyboardInterrupt:
            self.is_interrupted = True
        except BrokenExecutor as error:
            # The futures there know the error: what the executor has to clean up would live on.
            clear_frames(error.__traceback__)
            is_broken = True
        self.seconds = time.monotonic() - self._begin
        if self._options.checkpoint is not None:
            self._save_again(self._options.checkpoint)
        if is_broken:
            raise SinkError(self._why_broken())

    def _why_broken(self) -> str:
        file = self._options.checkpoint
        known = "" if file is None else f"; what is known is in {file}, for --resume"
        if self.unsaved:
            known = f"; what was known when it was saved last is in {file} ({self.unsaved})"
        return f"a process that explores was killed, perhaps for lack of memory{known}"

    def _feed(self, submit: Callable[..., Future[Summary]], width: int) -> None:
        """Keep an executor busy."""
        jobs = self._jobs()
        pending: set[Future[Summary]] = set()
        is_last = False
        while pending or not is_last:
            while not is_last and len(pending) < width:
                job = None if self._is_late() else next(jobs, None)
                if job is None:
                    self._is_all = not self._is_late()
                    is_last = True
                elif not self._is_known(job):
                    pending.add(submit(carry_out, job, self._deadline))
                    if width == _INLINE:
                        break
            ready, pending = wait(pending, _WAIT_SECONDS, FIRST_COMPLETED)
            for future in ready:
                self._take(future.result())
            if ready:
                self._note()

    def _is_known(self, job: Job) -> bool:
        """Whether a job was done before; it is one of this exploration then.

        Raises:
            ScheduleError: what was done has the same number, but is something else.
        """
        self._unclaimed.discard(job.key)
        known = self._done.get(job.key)
        if known is not None and (known.faults, known.runs > 0) != (job.faults, bool(job.picks)):
            raise ScheduleError(f"{self._options.resume}: the checkpoint is damaged")
        return known is not None

    def _is_late(self) -> bool:
        return self._deadline is not None and time.time() > self._deadline

    def _take(self, summary: Summary) -> None:
        """Take what a job found; what was cut short for lack of time is done again some day."""
        was_cut = not summary.is_complete and self._is_late()
        (self._partial if was_cut else self._done)[summary.key] = summary

    def _note(self) -> None:
        now = time.monotonic()
        if self._tell is not None:
            states = sum(summary.states for summary in self._done.values())
            self._tell(len(self._done), states)
        if self._options.checkpoint is not None and now - self._saved >= _SAVE_SECONDS:
            self._save_again(self._options.checkpoint)
            self._saved = now

    # Jobs

    def _jobs(self) -> Iterator[Job]:
        for variant, (faults, observation) in enumerate(self._variants()):
            job = Job(
                variant=variant,
                faults=faults,
                recording=observation.recording,
                destination=self._destination,
                limit=self._options.limit,
            )
            if self._options.draws is not None:
                yield from self._drawn(job, self._options.draws)
            elif self._splits and _is_large(observation.trace):
                yield from self._parts(job)
            else:
                yield job

    def _variants(self) -> Iterator[tuple[tuple[str, ...], Observation]]:
        """Make the variants; of several that are alike only the first."""
        seen: set[bytes] = set()
        for faults in variants(self._observation, self._options.budget):
            try:
                observation = apply(self._observation, faults)
            except ScheduleError:
                self.skipped += 1
                continue
            entries = pickle.dumps([lane.entries for lane in observation.trace.lanes])
            mark = blake2b(entries, digest_size=16).digest()
            if mark not in seen:
                seen.add(mark)
                yield tuple(map(str, faults)), observation

    def _parts(self, job: Job) -> Iterator[Job]:
        """Take a variant apart; what is found on the way is done."""
        summary, parts = split(job, PARTS, stop=self._is_late)
        if parts or summary.is_complete:
            self._unclaimed.discard(summary.key)
            self._done[summary.key] = summary
            yield from parts
        else:
            yield job

    def _drawn(self, job: Job, draws: int) -> Iterator[Job]:
        first, depth = self._options.seed, self._options.depth
        for part, start in enumerate(range(0, draws, _DRAWN_AT_ONCE)):
            seeds = range(first + start, first + min(start + _DRAWN_AT_ONCE, draws))
            self._picked += len(seeds)
            yield replace(
                job,
                part=part,
                picks=tuple(Picked(seed, depth) for seed in seeds),
                marks=self._picked <= MOST_MARKS,
            )

    # Checkpoints

    def _resume(self, path: Path) -> None:
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(_MAX_CHECKPOINT)
        except OSError as error:
            raise CaptureError(error.strerror or "cannot be read", path=str(path)) from error
        except UnicodeDecodeError as error:
            raise CaptureError("not a checkpoint", path=str(path)) from error
        known = read_checkpoint(text)
        if known.identity != self._identity:
            raise ScheduleError(
                f"{path} is of another exploration: capture, destination, --faults, --limit,"
                " --random, --pct and --seed have to be the same"
            )
        self._splits = known.splits
        self._done = {summary.key: summary for summary in known.done}
        self._unclaimed = set(self._done)

    def _save_again(self, path: Path) -> None:
        """Write the checkpoint; if it could be written before, a failure ends nothing."""
        try:
            self._save(path)
        except CaptureError as error:
            if not self._was_saved:
                raise
            self.unsaved = str(error)
        else:
            self._was_saved = True
            self.unsaved = ""

    def _save(self, path: Path) -> None:
        """Write the checkpoint; the old one is there until the new one is whole."""
        text = write_checkpoint(self._identity, self._done.values(), splits=self._splits)
        new = path.with_name(f"{path.name}.new")
        try:
            with new.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError as error:
            raise CaptureError(error.strerror or "cannot be written", path=str(path)) from error

    # Results

    def found(self) -> Exploration:
        """Put together what is known, with witnesses as short as can be.

        Raises:
            ScheduleError: the checkpoint tells of what this exploration does not have.
        """
        everything = {**self._partial, **self._done}
        is_all = self._is_all and not self.is_interrupted
        if is_all and self._unclaimed:
            raise ScheduleError(
                f"{self._options.resume}: the checkpoint has jobs of something else"
            )
        found = merged(everything.values(), is_all=is_all)
        if self._options.draws is not None or self.skipped:
            found = replace(found, is_complete=False)
        return replace(found, outcomes=tuple(map(self._shortened, found.outcomes)))

    def _shortened(self, witness: Witnessed) -> Witnessed:
        faults = [parse_fault(text) for text in witness.faults]
        trace = apply(self._observation, faults).trace
        schedule = parse_schedule(witness.schedule)
        schedule.check(trace)
        space = Space(trace, self._destination)
        acts = shortened(space, schedule.acts or (), witness.kind, stop=self._is_late)
        return replace(witness, acts=len(acts), schedule=str(replace(schedule, acts=acts)))

    def why_not_all(self, found: Exploration) -> str:
        """Say why the exploration is not complete; empty if it is."""
        if self.is_interrupted:
            return "interrupted"
        if (drawn := self._options.drawn) is not None:
            return f"at random, {drawn[0]} to {drawn[1]}"
        if self._is_late() and not found.is_complete:
            return f"--time {self._options.seconds:g} is over"
        if found.is_complete:
            return ""
        if self.skipped:
            return f"{self.skipped} variants cannot be made: bytes were not captured"
        return f"--limit {self._options.limit} states of a variant is reached"


_INLINE: Final = 2


def _values_of(destination: Destination) -> tuple[tuple[str, object], ...]:
    """Give a destination's fields so that they look the same in all processes: sets are sorted."""
    found = ((each.name, getattr(destination, each.name)) for each in fields(destination))
    return tuple(
        (name, sorted(value) if isinstance(value, frozenset) else value) for name, value in found
    )


def _is_large(trace: Trace) -> bool:
    """Whether a variant is worth to be taken apart."""
    counts = [0] * len(trace.lanes)
    for lane, _ in trace.packets:
        counts[lane] += 1
    return prod(count + 1 for count in counts) >= LARGE
