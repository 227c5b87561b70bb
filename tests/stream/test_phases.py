# SPDX-License-Identifier: GPL-2.0-or-later
"""Phases, told by frames."""

from __future__ import annotations

from mfdtool.stream.frames import Kind
from mfdtool.stream.phases import Phase, PhaseTimes, PhaseTracker
from tests.support.made_frames import MILLISECOND, RAM, Maker


def test_phases_of_a_migration() -> None:
    make, tracker = Maker(), PhaseTracker()
    frames = [
        make.frame(Kind.MULTIFD_INIT, bytes(64), channel="multifd-0"),
        make.section(Kind.MAIN_SECTION_START, RAM),
        make.section(Kind.MAIN_SECTION_PART, RAM),
        make.section(Kind.MAIN_SECTION_PART),
        make.section(Kind.MAIN_SECTION_PART, RAM),
        make.switchover(),
        make.pages([0]),
        make.section(Kind.MAIN_SECTION_END),
        make.frame(Kind.MAIN_EOF, b"\0"),
        make.frame(Kind.MULTIFD_SYNC, bytes(9), channel="multifd-0"),
    ]
    setup, precopy, switchover = Phase.SETUP, Phase.PRECOPY, Phase.SWITCHOVER
    assert [tracker.add(frame) for frame in frames] == [
        *[setup] * 2, *[precopy] * 3, *[switchover] * 4, Phase.COMPLETION,
    ]  # fmt: skip
    assert tracker.switchover
    assert tracker.ended
    assert tracker.iterations == 2
    bounds = [1, 3, 6, 9, 10]
    assert tracker.times() == tuple(
        PhaseTimes(phase, low * MILLISECOND, high * MILLISECOND)
        for phase, low, high in zip(Phase, bounds, bounds[1:], strict=False)
    )
    assert tracker.times(first_ns=5, last_ns=99 * MILLISECOND)[0].start_ns == 5
    assert tracker.times(first_ns=5, last_ns=99 * MILLISECOND)[-1].stop_ns == 99 * MILLISECOND


def test_ram_packet_begins_precopy() -> None:
    make, tracker = Maker(), PhaseTracker()
    assert tracker.add(make.pages([0])) is Phase.PRECOPY


def test_without_switchover_start() -> None:
    make, tracker = Maker(), PhaseTracker()
    assert tracker.add(make.section(Kind.MAIN_SECTION_FULL)) is Phase.SWITCHOVER
    assert not tracker.switchover
    assert [times.phase for times in tracker.times()] == [Phase.SETUP, Phase.SWITCHOVER]


def test_other_commands_change_nothing() -> None:
    make, tracker = Maker(), PhaseTracker()
    assert tracker.add(make.frame(Kind.MAIN_COMMAND, bytes(5))) is Phase.SETUP
