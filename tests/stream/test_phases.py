# SPDX-License-Identifier: GPL-2.0-or-later
"""Phases, told by frames."""

from __future__ import annotations

import pytest

from mfdtool.stream.frames import ChannelId, Frame, Kind, Section
from mfdtool.stream.main import MainFramer
from mfdtool.stream.phases import Phase, PhaseTimes, PhaseTracker
from mfdtool.stream.reader import Reader
from mfdtool.stream.span import run_of
from mfdtool.stream.values import CommandRecord
from mfdtool.wire.constants import Command
from mfdtool.wire.main_stream import CommandHeader
from tests.support.framing import run
from tests.support.made_frames import MILLISECOND, RAM, Maker
from tests.support.main_streams import stream


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
    sizes = [69, 15, 1355, 9]
    phases = [setup, precopy, switchover, Phase.COMPLETION]
    assert tracker.times() == tuple(
        PhaseTimes(phase, low * MILLISECOND, high * MILLISECOND, size)
        for phase, low, high, size in zip(phases, bounds, bounds[1:], sizes, strict=False)
    )
    assert tracker.times(first_ns=5, last_ns=99 * MILLISECOND)[0].start_ns == 5
    assert tracker.times(first_ns=5, last_ns=99 * MILLISECOND)[-1].stop_ns == 99 * MILLISECOND


def test_ram_packet_begins_precopy() -> None:
    make, tracker = Maker(), PhaseTracker()
    assert tracker.add(make.pages([0])) is Phase.PRECOPY


EARLY = Section(1, "virtio-mem-device-early", 0, 1)
DEVICE_STATE = Section(40, "timer", 0, 2)


def test_a_device_that_is_loaded_early() -> None:
    make, tracker = Maker(), PhaseTracker()
    frames = [
        make.section(Kind.MAIN_SECTION_FULL, EARLY),
        make.section(Kind.MAIN_SECTION_START, RAM),
        make.section(Kind.MAIN_SECTION_PART, RAM),
        make.section(Kind.MAIN_SECTION_PART, RAM),
        make.switchover(),
        make.section(Kind.MAIN_SECTION_FULL, DEVICE_STATE),
    ]
    setup, precopy, switchover = Phase.SETUP, Phase.PRECOPY, Phase.SWITCHOVER
    assert [tracker.add(frame) for frame in frames] == [
        setup, setup, precopy, precopy, switchover, switchover,
    ]  # fmt: skip
    assert tracker.iterations == 2


def make_main(reader: Reader) -> MainFramer:
    return MainFramer(reader, ChannelId(0, "main"))


def test_virtio_mem_of_a_real_stream() -> None:
    tracker, phases = PhaseTracker(), {}
    for frame in run(make_main, [run_of(stream("pc-virtio-mem"))]):
        phase = tracker.add(frame)
        if frame.kind is Kind.MAIN_SECTION_FULL and frame.section is not None:
            phases[frame.section.idstr] = phase
    early = [name for name, phase in phases.items() if phase is Phase.SETUP]
    assert early == ["0000:00:02.0/virtio-mem-device-early"]
    assert set(phases.values()) == {Phase.SETUP, Phase.SWITCHOVER}
    assert [times.phase for times in tracker.times()] == [
        Phase.SETUP, Phase.PRECOPY, Phase.SWITCHOVER, Phase.COMPLETION,
    ]  # fmt: skip


def test_without_switchover_start() -> None:
    make, tracker = Maker(), PhaseTracker()
    frames = [
        make.section(Kind.MAIN_SECTION_PART, RAM),
        make.section(Kind.MAIN_SECTION_END, RAM),
        make.section(Kind.MAIN_SECTION_FULL, DEVICE_STATE),
    ]
    assert [tracker.add(frame) for frame in frames] == [
        Phase.PRECOPY, Phase.SWITCHOVER, Phase.SWITCHOVER,
    ]  # fmt: skip
    assert not tracker.switchover


def snapshot(make: Maker, *lost: Frame) -> list[Frame]:
    """Make RAM, what is ``lost``, and devices' states without END before them."""
    return [
        make.section(Kind.MAIN_SECTION_PART, RAM),
        *lost,
        make.section(Kind.MAIN_SECTION_FULL, DEVICE_STATE),
        make.frame(Kind.MAIN_EOF, b"\0"),
        make.frame(Kind.MAIN_VMDESCRIPTION, bytes(9)),
    ]


def test_background_snapshot() -> None:
    make, tracker = Maker(), PhaseTracker()
    assert [tracker.add(frame) for frame in snapshot(make)] == [
        Phase.PRECOPY, Phase.SNAPSHOT, Phase.SNAPSHOT, Phase.COMPLETION,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [Kind.GAP, Kind.UNDECODED])
def test_what_is_lost_may_have_begun_the_switchover(kind: Kind) -> None:
    make, tracker = Maker(), PhaseTracker()
    frames = snapshot(make)
    before = make.positions["main"]
    make.positions["main"] = frames[0].end
    lost = make.gap(9) if kind is Kind.GAP else make.frame(kind, bytes(9))
    make.positions["main"] = before
    frames[1:1] = [lost]
    assert Phase.SWITCHOVER in [tracker.add(frame) for frame in frames]
    assert tracker.phase is Phase.COMPLETION


def test_a_gap_inside_a_frame_hides_no_switchover() -> None:
    make, tracker = Maker(), PhaseTracker()
    page = make.record_of(0x08, 0, bytes(4096))
    make.positions["main"] = page.end - 96
    hole = make.gap(96)
    frames = [page, hole, *snapshot(make)]
    assert Phase.SNAPSHOT in [tracker.add(frame) for frame in frames]


def test_other_commands_change_nothing() -> None:
    make, tracker = Maker(), PhaseTracker()
    assert tracker.add(make.frame(Kind.MAIN_COMMAND, bytes(5))) is Phase.SETUP


def test_postcopy() -> None:
    make, tracker = Maker(), PhaseTracker()
    header = CommandHeader(cmd=Command.POSTCOPY_RUN)
    frames = [
        make.section(Kind.MAIN_SECTION_PART, RAM),
        make.switchover(),
        make.frame(Kind.MAIN_COMMAND, header.build(), value=CommandRecord(header, None)),
        make.section(Kind.MAIN_SECTION_PART, RAM),
        make.section(Kind.MAIN_SECTION_END, RAM),
        make.frame(Kind.MAIN_EOF, b"\0"),
    ]
    precopy, switchover, postcopy = Phase.PRECOPY, Phase.SWITCHOVER, Phase.POSTCOPY
    assert [tracker.add(frame) for frame in frames] == [
        precopy, switchover, switchover, postcopy, postcopy, postcopy,
    ]  # fmt: skip
    assert tracker.phase is Phase.COMPLETION
    assert tracker.iterations == 1
