# SPDX-License-Identifier: GPL-2.0-or-later
"""Pieces of an exploration that can be carried out anywhere: values in, values out.

A job is one variant of a recording, or a part of one: of all its orders, those that begin alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeAlias

from mfdtool.explore.classes import OutcomeClass
from mfdtool.explore.count import Counts, count_orders, orders_in
from mfdtool.explore.coverage import Coverage
from mfdtool.explore.sample import sample
from mfdtool.explore.search import NO_LIMIT, Path, Search, Stop, acts_of, follow
from mfdtool.explore.slowest import deepest
from mfdtool.explore.space import Space
from mfdtool.loader.state import Outcome
from mfdtool.schedule.schedule import Pace, Schedule
from mfdtool.schedule.trace import Trace, trace_of

if TYPE_CHECKING:
    import random

    from mfdtool.explore.search import Result
    from mfdtool.loader.destination import Destination
    from mfdtool.loader.recording import Recording
    from mfdtool.schedule.pick import Picked

SPLIT_DEPTH: Final = 3
"""Device packets after which a large variant is taken apart, at the most."""

Dice: TypeAlias = "Callable[[int], random.Random]"
"""Makes a source of random numbers from a seed."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Orders that lead to the same states: the paths to these, and how many orders they are."""

    paths: tuple[Path, ...]
    orders: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A piece of work.

    Attributes:
        variant: the number of the variant.
        part: which part of it; 0 is all of it, or what comes before the parts.
        faults: what was changed in the recording, as text.
        limit: states that may be looked at.
        kernels: where the part begins.
        picks: if there are any, these orders are run and no others.
        marks: whether the orders that were picked are told apart from those of other jobs.
    """

    variant: int
    part: int = 0
    faults: tuple[str, ...] = ()
    recording: Recording
    destination: Destination
    limit: int = NO_LIMIT
    kernels: tuple[Kernel, ...] = ()
    picks: tuple[Picked, ...] = ()
    marks: bool = True

    @property
    def key(self) -> tuple[int, int]:
        """What names the job in its exploration."""
        return self.variant, self.part


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A class that was found: how many orders end in it, and its witness with that many acts.

    ``orders`` are marks of those that were picked at random, as several jobs may pick the same.
    """

    kind: OutcomeClass
    count: int | None
    acts: int
    schedule: str
    orders: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """The deepest queue that was met: bytes, idstr of the device, and the way there."""

    bytes: int = 0
    device: str = ""
    schedule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What came of a job.

    Attributes:
        explored: orders that were run; None if they are too many to be told apart.
        total: orders that the variant has; None if that is not known.
        runs: runs that were picked at random.
        is_complete: whether nothing more can be found.
        reached: numbers of the moves that were seen, see ``coverage.MOVES``.
        worst: the deepest queue.
    """

    variant: int
    part: int = 0
    faults: tuple[str, ...] = ()
    explored: int | None = 0
    total: int | None = None
    states: int = 0
    steps: int = 0
    is_complete: bool = True
    outcomes: tuple[Found, ...] = ()
    worst: Queue = field(default_factory=Queue)
    reached: tuple[int, ...] = ()
    runs: int = 0

    @property
    def key(self) -> tuple[int, int]:
        """What names its job."""
        return self.variant, self.part


def work(job: Job, *, dice: Dice, stop: Stop | None = None) -> Summary:
    """Do a job; it ends early, and incomplete, when ``stop`` says so."""
    trace = trace_of(job.recording)
    if job.picks:
        return _draw(job, trace, dice, stop)
    coverage = Coverage()
    space = Space(trace, job.destination, coverage.moved)
    paths = [path for kernel in job.kernels for path in kernel.paths]
    result = Search(space, limit=job.limit, stop=stop).run(paths or ((),))
    roots = iter(result.graph.roots)
    kernels = [([next(roots) for _ in kernel.paths], kernel.orders) for kernel in job.kernels]
    counts = count_orders(result.graph, roots=kernels or None)
    return _summary(job, space, result, counts, coverage, stop)


def split(job: Job, parts: int, *, stop: Stop | None = None) -> tuple[Summary, list[Job]]:
    """Take a variant apart, into ``parts`` or more if it is large enough.

    What the first device packets bring about is found on the way. There are no parts if ``stop``
    ends it early.
    """
    trace = trace_of(job.recording)
    for packets in range(1, SPLIT_DEPTH + 1):
        coverage = Coverage()
        space = Space(trace, job.destination, coverage.moved)
        # What is left for later at the beginning would have to be known by all parts.
        space.separates = False
        search = Search(space, limit=job.limit, stop=stop, packets=packets)
        result = search.run()
        counts = count_orders(result.graph)
        if counts.explored is None or len(counts.cut) >= parts or not counts.cut:
            break
    summary = _summary(job, space, result, counts, coverage, stop)
    kernels = [
        Kernel(tuple(search.path_to(node) for node in nodes), orders)
        for nodes, orders in counts.cut.items()
    ]
    jobs = [
        replace(job, part=number, kernels=(kernel,)) for number, kernel in enumerate(kernels, 1)
    ]
    is_cut = len(result.graph.starts) >= job.limit or (stop is not None and stop())
    if not jobs or counts.explored is None or is_cut:
        return summary, []
    return replace(summary, is_complete=True), jobs


def _summary(
    job: Job,
    space: Space,
    result: Result,
    counts: Counts,
    coverage: Coverage,
    stop: Stop | None,
) -> Summary:
    trace = space.trace
    outcomes = []
    for kind, path in result.witnesses.items():
        acts = acts_of(space, follow(space, path)[1])
        text = str(Schedule(trace.digest, Pace.STEPS, acts))
        count = None if counts.explored is None else counts.ends[kind]
        outcomes.append(Found(kind=kind, count=count, acts=len(acts), schedule=text))
    return Summary(
        variant=job.variant,
        part=job.part,
        faults=job.faults,
        explored=counts.explored,
        total=orders_in(trace),
        states=result.states,
        steps=result.steps,
        is_complete=result.is_complete,
        outcomes=tuple(outcomes),
        worst=_worst(job, space, result, stop),
        reached=tuple(sorted(coverage.reached)),
    )


def _worst(job: Job, space: Space, result: Result, stop: Stop | None) -> Queue:
    """Give the deepest queue: that of load threads that do nothing, or one that was met."""
    size, device, moves = deepest(space, stop) if not job.part else (0, 0, ())
    if result.worst.size > size:
        size, device = result.worst.size, result.worst.device
        moves = follow(space, result.worst.path)[1]
    if not size:
        return Queue()
    schedule = Schedule(space.trace.digest, Pace.STEPS, acts_of(space, moves))
    return Queue(bytes=size, device=job.destination.devices[device].idstr, schedule=str(schedule))


def _draw(job: Job, trace: Trace, dice: Dice, stop: Stop | None) -> Summary:
    """Run orders that are picked at random."""
    coverage = Coverage()
    drawn = sample(trace, job.destination, job.picks, dice=dice, moved=coverage.moved, stop=stop)
    outcomes = tuple(
        Found(
            kind=kind,
            count=len(drawn.orders[kind]) if job.marks else None,
            acts=len(schedule.acts or ()),
            schedule=str(schedule),
            orders=tuple(sorted(drawn.orders[kind])) if job.marks else (),
        )
        for kind, schedule in drawn.witnesses.items()
    )
    size, device, schedule = drawn.worst
    worst = Queue()
    if size:
        idstr = job.destination.devices[device].idstr
        worst = Queue(bytes=size, device=idstr, schedule=str(schedule))
    return Summary(
        variant=job.variant,
        part=job.part,
        faults=job.faults,
        explored=len(set().union(*drawn.orders.values())) if job.marks else None,
        runs=drawn.runs,
        states=drawn.steps,
        steps=drawn.steps,
        is_complete=False,
        outcomes=outcomes,
        worst=worst,
        reached=tuple(sorted(coverage.reached)),
    )


# Putting summaries together.


@dataclass(frozen=True, slots=True, kw_only=True)
class Witnessed:
    """A class, how many orders of all variants end in it, and its smallest witness.

    That is the one with the fewest faults, then the fewest acts.
    """

    kind: OutcomeClass
    count: int | None
    acts: int
    schedule: str
    faults: tuple[str, ...]
    variant: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """What is known so far.

    Attributes:
        variants: how many were looked at, the recording itself included.
        explored: orders that were run; None if they are too many to be told apart.
        runs: runs that were picked at random; 0 if all orders were tried.
        worst: the deepest queue, and the faults that it takes.
    """

    variants: int = 0
    explored: int | None = 0
    total: int | None = None
    states: int = 0
    steps: int = 0
    runs: int = 0
    is_complete: bool = False
    outcomes: tuple[Witnessed, ...] = ()
    worst: Queue = field(default_factory=Queue)
    worst_faults: tuple[str, ...] = ()
    reached: frozenset[int] = frozenset()

    @property
    def is_bad(self) -> bool:
        """Whether any run ends otherwise than completed."""
        return any(found.kind.outcome is not Outcome.COMPLETED for found in self.outcomes)


def merged(summaries: Iterable[Summary], *, is_all: bool) -> Exploration:
    """Put summaries together; ``is_all`` if there are no other jobs."""
    parts = sorted(summaries, key=lambda summary: summary.key)
    totals = [part.total for part in parts if not part.part]
    best: dict[OutcomeClass, Witnessed] = {}
    worst = Queue()
    worst_faults: tuple[str, ...] = ()
    for part in parts:
        for found in part.outcomes:
            best[found.kind] = _better(best.get(found.kind), found, part)
        if (part.worst.bytes, -len(part.faults)) > (worst.bytes, -len(worst_faults)):
            worst, worst_faults = part.worst, part.faults
    explored = _sum([part.explored for part in parts])
    if any(part.runs for part in parts):
        counts = None if explored is None else _told_apart(parts)
        explored = None if counts is None else len(set().union(*counts.values()))
        best = {
            kind: replace(found, count=None if counts is None else len(counts[kind]))
            for kind, found in best.items()
        }
    return Exploration(
        variants=len({part.variant for part in parts}),
        explored=explored,
        runs=sum(part.runs for part in parts),
        total=_sum(totals) if is_all else None,
        states=sum(part.states for part in parts),
        steps=sum(part.steps for part in parts),
        is_complete=is_all and all(part.is_complete for part in parts),
        outcomes=tuple(sorted(best.values(), key=_rank)),
        worst=worst,
        worst_faults=worst_faults,
        reached=frozenset(number for part in parts for number in part.reached),
    )


def _told_apart(parts: Iterable[Summary]) -> dict[OutcomeClass, set[tuple[int, int]]]:
    """Give the orders that were picked at random, once, however many jobs have picked them."""
    orders: dict[OutcomeClass, set[tuple[int, int]]] = {}
    for part in parts:
        for found in part.outcomes:
            marks = orders.setdefault(found.kind, set())
            marks.update((part.variant, mark) for mark in found.orders)
    return orders


def _better(known: Witnessed | None, found: Found, part: Summary) -> Witnessed:
    new = Witnessed(
        kind=found.kind,
        count=found.count,
        acts=found.acts,
        schedule=found.schedule,
        faults=part.faults,
        variant=part.variant,
    )
    if known is None:
        return new
    smaller = min(known, new, key=lambda one: (len(one.faults), one.acts, one.variant))
    return replace(smaller, count=_sum([known.count, new.count]))


def _rank(found: Witnessed) -> tuple[int, OutcomeClass]:
    """Put good ends first, then those that take the fewest faults."""
    is_good = found.kind.outcome is Outcome.COMPLETED and not found.kind.rule
    return (-1 if is_good else len(found.faults)), found.kind


def _sum(values: Sequence[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
