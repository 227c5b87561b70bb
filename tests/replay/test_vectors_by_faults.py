# SPDX-License-Identifier: GPL-2.0-or-later
"""A good vector with a fault becomes a bad one, and the real destination's verdict on that."""

from __future__ import annotations

from typing import Final

import pytest

from mfdtool.replay.driver import Run, replay
from mfdtool.schedule.apply import apply, hold
from mfdtool.schedule.faults import Hold, parse_fault
from mfdtool.schedule.orders import order
from tests.replay.test_vectors import idx_list, run_vector
from tests.support.vectors import EXPECTED, vector_observation

GOOD: Final = "v01-inorder"
DEV: Final = "dev=0000:00:05.0/vfio"
CASES: Final = {
    "v02-reverse": ("reverse", ()),
    "v04-config-first": ("config-first", ()),
    "v03-dup-data": ("recorded", (f"duplicate:{DEV},idx=2",)),
    "v05-missing-3": ("recorded", (f"drop:{DEV},idx=3",)),
    "v06-version-1": ("recorded", (f"set:{DEV},idx=2:version=1",)),
    "v07-idx-max": ("recorded", (f"set:{DEV},idx=2:idx=4294967295",)),
    "v12-unknown-idstr": ("recorded", (f"set:{DEV},idx=2:idstr=0000:00:09.0/vfio",)),
    "v13-wrong-instance": ("recorded", (f"set:{DEV},idx=2:instance_id=1",)),
    "v14-config-bad-marker": ("recorded", (f"corrupt:{DEV},idx=5:295=01",)),
    "v18-unknown-flag-bit": ("recorded", (f"set:{DEV},idx=2:flags=2",)),
    "v21-huge-idx": ("recorded", (f"set:{DEV},idx=2:idx=4294967294",)),
    "v24-bad-multifd-magic": ("recorded", (f"corrupt:{DEV},idx=2:0+4",)),
    "m01_no_switchover": ("recorded", ("drop:main#38",)),
    "m02_two_switchovers": ("recorded", ("duplicate:main#38",)),
}
"""What makes each vector out of the good one: an order and faults."""


def run_with(name: str, texts: tuple[str, ...]) -> Run:
    """Replay the good vector in a named order with faults."""
    destination = run_vector(GOOD)[1]
    faults = [parse_fault(text) for text in texts]
    observation = apply(vector_observation(GOOD), faults)
    schedule = order(observation.trace, name, reassign=name != "recorded")
    holds = [fault for fault in faults if isinstance(fault, Hold)]
    schedule = hold(schedule, observation.trace, observation, holds)
    return replay(observation.trace, destination, schedule)


@pytest.mark.parametrize("name", CASES)
def test_verdict_is_that_of_the_real_destination(name: str) -> None:
    expected = EXPECTED[name]
    run = run_with(*CASES[name])
    assert run.outcome == expected["outcome"]
    assert run.stderr == expected["stderr"]
    assert any(device.reset for device in run.state.devices) == expected["device_reset"]
    if not name.startswith("m02"):
        for event in ("incoming", "load_start", "load_end"):
            assert idx_list(run, event) == expected[event]


def test_packet_that_is_held_comes_as_late_as_in_the_real_sequence() -> None:
    run = run_with("recorded", (f"hold:{DEV},idx=4:{DEV},idx=3",))
    assert idx_list(run, "incoming") == [0, 1, 2, 3, 4, 5]
    late = run_with("recorded", (f"hold:{DEV},idx=0:{DEV},idx=5",))
    assert idx_list(late, "incoming") == [1, 2, 3, 5, 0, 4]
    assert idx_list(late, "load_end") == [0, 1, 2, 3, 4]
