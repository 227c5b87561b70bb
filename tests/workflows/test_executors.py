# SPDX-License-Identifier: GPL-2.0-or-later
"""Executors: here, in processes, on a cluster; jobs end alike in all of them."""

from __future__ import annotations

import os
import random
import signal
import sys
from concurrent.futures import Executor
from concurrent.futures.process import BrokenProcessPool
from itertools import count
from threading import Thread
from types import FrameType
from typing import Any

import pytest

from mfdtool.errors import SinkError
from mfdtool.explore.jobs import Job, work
from mfdtool.workflows import executors
from mfdtool.workflows.executors import ADDRESS, Inline, executor_for, is_told_to_stop
from mfdtool.workflows.explore import carry_out
from tests.explore.small import Dice
from tests.support.clusters import local_cluster


def jobs() -> list[Job]:
    made = []
    for seed in range(6):
        trace, destination = Dice(random.Random(seed), packets=3, lanes=2).draw()
        made.append(Job(variant=seed, recording=trace.recording, destination=destination))
    return made


def check(executor: Executor) -> None:
    found = [executor.submit(carry_out, job, None) for job in jobs()]
    expected = [work(job, dice=random.Random) for job in jobs()]
    assert [future.result(timeout=60) for future in found] == expected


def test_inline() -> None:
    with executor_for(jobs=1) as (executor, width):
        assert width == 1
        assert isinstance(executor, Inline)
        check(executor)


def test_inline_keeps_errors() -> None:
    with pytest.raises(ZeroDivisionError):
        Inline().submit(divmod, 1, 0).result()


def test_processes() -> None:
    with executor_for(jobs=2) as (executor, width):
        assert width == 2
        check(executor)
        assert executor.submit(is_told_to_stop).result(timeout=60) is False


def killed_while_asking(step: int) -> bool:
    """Ask whether to stop, and die at a step of that; give the answer if there are fewer."""
    steps = count()

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        del frame, event, argument
        if next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    try:
        return is_told_to_stop()
    finally:
        sys.settrace(None)


def test_nobody_waits_for_what_a_killed_process_was_at() -> None:
    """Workers ask all the time, so one of them may be killed anywhere in it."""
    deaths: list[int] = []

    def work_until_killed() -> None:
        for step in count():
            with executor_for(jobs=2) as (executor, _):
                try:
                    assert executor.submit(killed_while_asking, step).result(timeout=60) is False
                except BrokenProcessPool:
                    deaths.append(step)
                    continue
            return

    worker = Thread(target=work_until_killed, daemon=True)
    worker.start()
    worker.join(600)
    assert not worker.is_alive(), f"it hangs behind step {len(deaths)}"
    assert deaths


def test_cluster() -> None:
    with (
        local_cluster(workers=2, threads=1) as address,
        executor_for(jobs=1, cluster=address) as (executor, width),
    ):
        assert width == 2
        check(executor)


def test_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_CONNECT_SECONDS", 0.2)
    with (
        pytest.raises(SinkError, match="tcp://127"),
        executor_for(jobs=1, cluster="tcp://127.0.0.1:9"),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "is_right"),
    [
        ("tcp://127.0.0.1:8786", True),
        ("tls://scheduler.example:1", True),
        ("tcp://[::1]:8786", True),
        ("tcp://", False),
        ("tcp://127.0.0.1:x", False),
        ("127.0.0.1:8786", False),
        ("nonsense://127.0.0.1:8786", False),
    ],
)
def test_addresses(address: str, *, is_right: bool) -> None:
    assert bool(ADDRESS.fullmatch(address)) == is_right
