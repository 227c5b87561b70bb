# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs: parts add up to the whole, and everything can be sent somewhere and written down."""

from __future__ import annotations

import json
import pickle
import random
from dataclasses import replace

import pytest

from mfdtool.errors import ScheduleError
from mfdtool.explore.checkpoint import read_checkpoint, write_checkpoint
from mfdtool.explore.jobs import Exploration, Job, Summary, merged, split, work
from mfdtool.explore.shorten import shortened
from mfdtool.explore.slowest import deepest
from mfdtool.explore.space import Space
from mfdtool.loader.blob import PICKLED, Blob, blob_of
from mfdtool.loader.events import MultiFDItem
from mfdtool.schedule.acts import Load
from mfdtool.schedule.pick import Picked
from mfdtool.schedule.schedule import parse_schedule
from mfdtool.schedule.trace import trace_of
from tests.explore.small import Dice, destination, good_main, small_trace
from tests.support.playbook import SYNC, packet


def job(*, spoiled: bool = False) -> Job:
    """Make a job of six packets on four channels; two of them have the same idx if spoiled."""
    lanes: list[list[MultiFDItem]] = [
        [SYNC, packet(0), packet(4)],
        [SYNC, packet(1), packet(5, config=True)],
        [SYNC, packet(2)],
        [SYNC, packet(2 if spoiled else 3)],
    ]
    trace = small_trace(good_main(), lanes)
    return Job(variant=0, recording=trace.recording, destination=destination(4))


def done(one: Job) -> Summary:
    return work(one, dice=random.Random)


def essence(found: Exploration) -> tuple[object, ...]:
    """Give what does not depend on how the work was shared out."""
    return (
        found.explored,
        found.total,
        found.is_complete,
        {(outcome.kind, outcome.count) for outcome in found.outcomes},
        found.worst.bytes,
    )


def test_six_packets_on_four_channels() -> None:
    found = done(job())
    assert (found.explored, found.total, found.is_complete) == (180, 180, True)
    assert [(each.kind.outcome.value, each.count) for each in found.outcomes] == [
        ("completed", 180)
    ]


@pytest.mark.parametrize("spoiled", [False, True])
@pytest.mark.parametrize("parts", [2, 16, 1000])
def test_parts_add_up(parts: int, *, spoiled: bool) -> None:
    whole = job(spoiled=spoiled)
    summary, jobs = split(whole, parts)
    assert len(jobs) >= min(parts, 10)
    assert [each.part for each in jobs] == list(range(1, len(jobs) + 1))
    together = merged([summary, *map(done, jobs)], is_all=True)
    assert essence(together) == essence(merged([done(whole)], is_all=True))


@pytest.mark.parametrize("seed", range(40))
def test_parts_of_anything_add_up(seed: int) -> None:
    trace, dest = Dice(random.Random(seed), packets=4, lanes=3).draw()
    whole = Job(variant=0, recording=trace.recording, destination=dest)
    summary, jobs = split(whole, 4)
    together = merged([summary, *map(done, jobs)], is_all=True)
    alone = merged([done(whole)], is_all=True)
    assert {outcome.kind for outcome in together.outcomes} == {
        outcome.kind for outcome in alone.outcomes
    }
    assert (together.total, together.is_complete) == (alone.total, alone.is_complete)


def test_what_is_limited_is_not_taken_apart() -> None:
    summary, jobs = split(replace(job(), limit=2), 16)
    assert not summary.is_complete
    assert not jobs
    assert not done(replace(job(), limit=2)).is_complete


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_taking_apart_ends_when_it_is_told_to(patience: int) -> None:
    left = iter([False] * patience)
    summary, jobs = split(job(), 16, stop=lambda: next(left, True))
    assert (summary.is_complete, jobs) == (False, [])


def test_what_comes_behind_a_search_ends_when_it_is_told_to() -> None:
    one = job(spoiled=True)
    space = Space(trace_of(one.recording), one.destination)
    whole = deepest(space)
    assert deepest(space, lambda: True).size < whole.size
    found = next(each for each in done(one).outcomes if each.kind.outcome.value == "failed")
    # With a step that is not needed, so that there is something to take out.
    acts = (*(parse_schedule(found.schedule).acts or ()), Load(0))
    assert len(shortened(space, acts, found.kind)) < len(acts)
    assert shortened(space, acts, found.kind, stop=lambda: True) == acts


def test_jobs_travel() -> None:
    whole = job(spoiled=True)
    _, jobs = split(whole, 16)
    for each in (whole, jobs[3]):
        copy = pickle.loads(pickle.dumps(each))
        assert copy == each
        assert done(copy) == done(each)
    assert pickle.loads(pickle.dumps(done(whole))) == done(whole)


def test_long_blobs_travel_light() -> None:
    blob = blob_of(bytes(10 * PICKLED))
    blob = Blob(blob.length, ("multifd-0", 7), 0, blob.parts)
    data = pickle.dumps(blob)
    assert len(data) < PICKLED + 500
    copy = pickle.loads(data)
    assert copy == blob
    assert copy.head(100) == bytes(100)
    empty = pickle.loads(pickle.dumps(Blob(5, b"x", 5)))
    assert list(empty.pieces()) == []


@pytest.mark.parametrize("depth", [None, 2])
def test_orders_at_random(depth: int | None) -> None:
    names = tuple(Picked(seed, depth) for seed in range(40))
    one = replace(job(spoiled=True), picks=names)
    found = done(one)
    assert found == done(one)
    assert not found.is_complete
    assert found.total is None
    assert found.explored is not None
    assert 1 <= found.explored <= 40
    every = {each.kind for each in done(job(spoiled=True)).outcomes}
    assert {each.kind for each in found.outcomes} <= every
    assert sum(each.count or 0 for each in found.outcomes) >= found.explored
    assert found.worst.bytes > 0
    assert found.runs == 40
    stopped = work(one, dice=random.Random, stop=lambda: True)
    assert (stopped.explored, stopped.outcomes) == (0, ())


@pytest.mark.parametrize("size", [1, 7, 500])
def test_an_order_that_several_jobs_pick_counts_once(size: int) -> None:
    one = job(spoiled=True)
    names = [Picked(seed, None) for seed in range(500)]
    parts = [
        done(replace(one, part=part, picks=tuple(names[start : start + size])))
        for part, start in enumerate(range(0, 500, size))
    ]
    found = merged(parts, is_all=True)
    whole = done(replace(one, picks=tuple(names)))
    assert whole.explored is not None
    assert 100 < whole.explored < 180
    assert (found.explored, found.runs) == (whole.explored, 500)
    assert {each.kind: each.count for each in found.outcomes} == {
        each.kind: each.count for each in whole.outcomes
    }
    # Another variant's orders are others.
    twice = [*parts, *(replace(part, variant=1) for part in parts)]
    assert merged(twice, is_all=True).explored == 2 * whole.explored
    again = read_checkpoint(write_checkpoint("abc", parts, splits=False)).done
    assert merged(again, is_all=True) == found


def test_orders_that_are_not_told_apart_have_no_count() -> None:
    names = tuple(Picked(seed, None) for seed in range(20))
    first = done(replace(job(), picks=names[:10]))
    second = done(replace(job(), part=1, picks=names[10:], marks=False))
    assert second.explored is None
    found = merged([first, second], is_all=True)
    assert (found.explored, found.runs) == (None, 20)
    assert [each.count for each in found.outcomes] == [None]
    assert found.outcomes[0].schedule


def test_merging_prefers_fewer_faults() -> None:
    found = done(job(spoiled=True))
    more = replace(found, variant=1, faults=("drop:main#1",))
    for order in ([found, more], [more, found]):
        together = merged(order, is_all=True)
        assert all(outcome.faults == () for outcome in together.outcomes)
        assert together.explored == 2 * (found.explored or 0)
        assert together.total == 2 * (found.total or 0)
        assert together.worst_faults == ()
        assert together.is_bad
    assert merged([found], is_all=False).total is None
    assert not merged([found], is_all=False).is_complete
    assert merged([replace(found, explored=None)], is_all=True).explored is None
    assert not merged([done(job())], is_all=True).is_bad


def test_checkpoints_keep_everything() -> None:
    parts = [done(job()), replace(done(job(spoiled=True)), variant=1, faults=("drop:main#1",))]
    parts.append(replace(parts[0], variant=2, explored=None, total=None))
    text = write_checkpoint("abc", parts, splits=True)
    known = read_checkpoint(text)
    assert (known.identity, known.splits, known.done) == ("abc", True, tuple(parts))
    assert text.endswith("\n")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "nothing", "[" * 100_000, '{"format": "something else"}']
)
def test_other_files_are_no_checkpoints(text: str) -> None:
    with pytest.raises(ScheduleError, match="no checkpoint"):
        read_checkpoint(text)


def test_damaged_checkpoints() -> None:
    good = json.loads(write_checkpoint("abc", [done(job())], splits=False))
    with pytest.raises(ScheduleError, match="version 1"):
        read_checkpoint(json.dumps({**good, "version": 1}))
    for key in good["done"][0]:
        part = {name: value for name, value in good["done"][0].items() if name != key}
        with pytest.raises(ScheduleError, match="damaged"):
            read_checkpoint(json.dumps({**good, "done": [part]}))
    with pytest.raises(ScheduleError, match="has a job twice"):
        read_checkpoint(json.dumps({**good, "done": 2 * good["done"]}))
    for bad in (
        {"reached": [9999]},
        {"runs": -1},
        {"states": -1},
        {"explored": "many"},
        {"reached": None},
        {"total": True},
    ):
        with pytest.raises(ScheduleError, match="damaged"):
            read_checkpoint(json.dumps({**good, "done": [{**good["done"][0], **bad}]}))
    kind = {"outcome": "completed", "rule": "no-such-rule", "device": ""}
    found = {**good["done"][0]["outcomes"][0], "kind": kind}
    with pytest.raises(ScheduleError, match="damaged"):
        read_checkpoint(json.dumps({**good, "done": [{**good["done"][0], "outcomes": [found]}]}))
