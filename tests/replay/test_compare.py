# SPDX-License-Identifier: GPL-2.0-or-later
"""A real destination beside the model: what counts as a difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mfdtool.loader.state import Outcome
from mfdtool.loader.trace import trace_line
from mfdtool.replay.compare import differences
from mfdtool.replay.log import Log, parse_log
from mfdtool.replay.verdict import Verdict, verdict_of
from tests.replay.test_vectors import run_vector

COMES = "vfio_load_state_device_buffer_incoming  (NAME) idx {}"
LOADED = "vfio_load_state_device_buffer_load_start  (NAME) idx {}"


def modelled(name: str) -> tuple[Verdict, list[str]]:
    """Give what the model makes of a vector, and its trace."""
    run, destination = run_vector(name)
    lines = [trace_line(trace, lambda number: "NAME") for trace in run.traces]
    return verdict_of(run, destination, ()), lines


def compared(name: str, *more: str, outcome: Outcome | None = None) -> Sequence[str]:
    """Compare a vector with a destination that does the same, and writes more lines."""
    verdict, lines = modelled(name)
    found = verdict if outcome is None else replace(verdict, outcome=outcome)
    return differences(verdict, parse_log(lines), found, parse_log([*lines, *more]))


@pytest.mark.parametrize(
    "name", ["v01-inorder", "v05-missing-3", "v13-wrong-instance", "v14-config-bad-marker"]
)
def test_same(name: str) -> None:
    assert compared(name) == ()


@pytest.mark.parametrize(
    "name", ["v03-dup-data", "v06-version-1", "v07-idx-max", "v13-wrong-instance"]
)
def test_other_threads_read_on_when_one_gives_up(name: str) -> None:
    """As a real destination did: 3, 4 and 5 came in before their threads were told."""
    more = [COMES.format(idx) for idx in (3, 4, 5)]
    assert compared(name, *more, LOADED.format(2)) == ()


def test_stall_without_an_error_has_no_more() -> None:
    assert compared("v05-missing-3", COMES.format(3), LOADED.format(3)) == (
        "idx that were loaded: the model has 0 1 2, QEMU has 0 1 2 3",
        "idx that came in: the model has 0 1 2 4 5, QEMU has 0 1 2 4 5 3",
    )


def test_what_the_model_has_must_be_there() -> None:
    verdict, lines = modelled("v13-wrong-instance")
    without = [line for line in lines if COMES.format(1) not in line]
    assert differences(verdict, parse_log(lines), verdict, parse_log(without)) == (
        "idx that came in: the model has 0 1, QEMU has 0",
    )
    nothing = Log((), (), 0)
    assert differences(verdict, parse_log(lines), verdict, nothing) == (
        "idx that were loaded: the model has 0 1, QEMU has none",
        "idx that came in: the model has 0 1, QEMU has none",
    )


def test_another_outcome_and_error() -> None:
    verdict, lines = modelled("v14-config-bad-marker")
    log = parse_log(lines)
    found = replace(verdict, outcome=Outcome.COMPLETED, error=None)
    assert differences(verdict, log, found, None) == (
        "outcome: the model has failed, QEMU has completed",
        "error: the model has NAME: expected FLAG_DEV_CONFIG_STATE but got ffffffffef100001,"
        " QEMU has none",
    )
    aborted = replace(verdict, outcome=Outcome.ABORTED, error="half a wo")
    assert differences(verdict, log, aborted, log) == (
        "outcome: the model has failed, QEMU has aborted",
    )
    unknown = replace(verdict, outcome=None)
    assert differences(verdict, log, unknown, None) == (
        "outcome: the model has failed, QEMU has none",
    )
