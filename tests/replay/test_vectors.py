# SPDX-License-Identifier: GPL-2.0-or-later
"""The model gives the verdict that real destinations gave."""

from __future__ import annotations

from typing import Any, Final

import pytest

from mfdtool.loader.assume import assume
from mfdtool.loader.destination import Destination
from mfdtool.loader.options import parse_options
from mfdtool.replay.driver import Run, drive
from mfdtool.replay.verdict import verdict_of
from mfdtool.schedule.schedule import Pace
from tests.support.vectors import EXPECTED, vector

RACES: Final = {"v20-early-before-switchover", "m02_two_switchovers"}
"""Where threads race: the packets of several channels became free at once, or the device packets
overtook the main stream. The trace is one of several possible there, the verdict is not."""

FLAGS: Final = {
    "load_thread_started": "vfio_load_bufs_thread_start",
    "load_thread_ended": "vfio_load_bufs_thread_end",
    "config_load_started": "vfio_load_device_config_state_start",
    "config_loaded": "vfio_load_device_config_state_end",
}


def run_vector(name: str, pace: Pace = Pace.OBSERVED) -> tuple[Run, Destination]:
    """Drive the destination that a vector was sent to."""
    expected = EXPECTED[name]
    setup = expected["destination"]
    options = parse_options(
        [
            f"device={setup['device']},mtty-ports={setup['mtty_ports']}",
            f"transfer={setup['transfer']}",
            f"channels={setup['channels']}",
        ]
    )
    recording = vector(name)
    destination, _ = assume(recording, options, expected["profile"])
    return drive(recording, destination, pace=pace), destination


def idx_list(run: Run, event: str) -> list[Any]:
    """Give the idx of a trace event of buffers."""
    name = f"vfio_load_state_device_buffer_{event}"
    return [trace.args[1] for trace in run.traces if trace.name == name]


@pytest.mark.parametrize("name", EXPECTED)
def test_verdict_is_the_real_one(name: str) -> None:
    expected = EXPECTED[name]
    run, destination = run_vector(name)
    assert run.outcome == expected["outcome"]
    assert run.stderr == expected["stderr"]
    assert any(device.reset for device in run.state.devices) == expected["device_reset"]
    names = {trace.name for trace in run.traces}
    assert {flag: event in names for flag, event in FLAGS.items()} == {
        flag: expected[flag] for flag in FLAGS
    }
    verdict = verdict_of(run, destination, ())
    assert verdict.error in expected["stderr"] if expected["stderr"] else verdict.error is None
    if name not in RACES:
        for event in ("incoming", "load_start", "load_end"):
            assert idx_list(run, event) == expected[event]


def test_racing_packets_are_the_same_set() -> None:
    run, _ = run_vector("v20-early-before-switchover")
    assert sorted(idx_list(run, "incoming")) == [0, 1, 2, 3, 4, 5]


def test_what_reaches_the_device_is_what_was_sent() -> None:
    run, _ = run_vector("v02-reverse")
    ordered, _ = run_vector("v01-inorder")
    assert run.written[0].size == ordered.written[0].size == 96
    assert run.written[0].sha256 == ordered.written[0].sha256


@pytest.mark.parametrize("pace", [Pace.OBSERVED, Pace.EAGER, Pace.HELD])
def test_pace_matters_only_where_a_config_is_replaced(pace: Pace) -> None:
    outcomes = {
        name: str(run_vector(name, pace)[0].outcome) for name in ("v04-config-first", "r007")
    }
    assert outcomes["v04-config-first"] == "completed"
    assert outcomes["r007"] == ("failed" if pace is Pace.EAGER else "stalled")
