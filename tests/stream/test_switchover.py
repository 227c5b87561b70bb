# SPDX-License-Identifier: GPL-2.0-or-later
"""Who kept a migration from switching over, and how long the guest stood."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mfdtool.stream.devices import DeviceKey
from mfdtool.stream.frames import Frame, Kind, Section
from mfdtool.stream.phases import PhaseTracker
from mfdtool.stream.switchover import Interval, Readiness, SwitchoverSummary, SwitchoverTracker
from mfdtool.stream.values import CommandRecord, MarkerRecord, ReturnPathRecord
from mfdtool.wire.constants import Command, ReturnPathType, VFIOMarker
from mfdtool.wire.main_stream import CommandHeader
from mfdtool.wire.return_path import ReturnPathMessage
from tests.support.made_frames import DEVICE, MILLISECOND, RAM, SECTION, Maker

OTHER = Section(39, "0000:00:06.0/vfio", 0, 1)
KEY = DeviceKey(0, DEVICE, 0)
OTHER_KEY = DeviceKey(0, OTHER.idstr, 0)


def follow(frames: Iterable[Frame]) -> SwitchoverSummary:
    """Give what a tracker knows in the end."""
    phases, tracker = PhaseTracker(), SwitchoverTracker()
    for frame in frames:
        tracker.add(frame, phases.add(frame))
    return tracker.summary()


def sent(make: Maker, section: Section = SECTION) -> Frame:
    """Make INIT_DATA_SENT."""
    value = MarkerRecord(VFIOMarker.DEV_INIT_DATA_SENT)
    return make.frame(Kind.VFIO_MARKER, bytes(8), value=value, section=section)


def message(make: Maker, kind: ReturnPathType) -> Frame:
    """Make a message of the return path."""
    header = ReturnPathMessage(type=kind)
    value = ReturnPathRecord(header, None)
    return make.frame(Kind.RETURN_PATH_MESSAGE, header.build(), channel="return-path", value=value)


def test_the_last_device_to_be_ready() -> None:
    make = Maker()
    summary = follow(
        [
            make.section(Kind.MAIN_SECTION_PART),
            make.data(b"abc"),
            make.data(b"abc", section=OTHER),
            sent(make),
            make.data(b"more"),
            sent(make, OTHER),
            sent(make, OTHER),
            message(make, ReturnPathType.PONG),
            message(make, ReturnPathType.SWITCHOVER_ACK),
            make.switchover(),
        ]
    )
    first = Readiness(key=KEY, sent_ns=4 * MILLISECOND, has_data=True)
    last = Readiness(key=OTHER_KEY, sent_ns=6 * MILLISECOND, has_data=True)
    assert summary.devices == (first, last)
    assert summary.last_ready == last
    assert summary.with_ack
    assert summary.ack_ns == 9 * MILLISECOND
    assert summary.lacking == ()


def test_a_device_that_blocks() -> None:
    make = Maker()
    frames = [
        make.section(Kind.MAIN_SECTION_PART),
        make.data(b"abc"),
        make.data(b"abc", section=OTHER),
        sent(make),
    ]
    summary = follow(frames)
    assert summary.lacking == (OTHER_KEY,)
    assert summary.ack_ns is None
    assert summary.standstill is None
    # Without any sign of the capability nobody waits for anything.
    summary = follow(frames[:3])
    assert not summary.with_ack
    assert summary.lacking == ()
    assert summary.last_ready is None
    assert len(summary.devices) == 2


def setup(make: Maker, section: Section = SECTION) -> Frame:
    """Make the first marker of a device's START section."""
    value = MarkerRecord(VFIOMarker.DEV_SETUP_STATE)
    return make.frame(Kind.VFIO_MARKER, bytes(8), value=value, section=section)


def open_return_path(make: Maker) -> Frame:
    header = CommandHeader(cmd=Command.OPEN_RETURN_PATH)
    return make.frame(Kind.MAIN_COMMAND, header.build(), value=CommandRecord(header, None))


def test_whom_a_source_may_wait_for_that_shows_no_capability() -> None:
    make = Maker()
    frames = [
        open_return_path(make),
        setup(make),
        setup(make, OTHER),
        setup(make, Section(40, "", 0, 0)),
        make.section(Kind.MAIN_SECTION_PART),
        make.data(b"abc"),
    ]
    summary = follow(frames)
    assert (summary.with_ack, summary.lacking) == (False, ())
    assert summary.suspects == (
        Readiness(key=KEY, sent_ns=None, has_data=True),
        Readiness(key=OTHER_KEY, sent_ns=None, has_data=False),
    )
    # Without a return path nobody can tell the source, and after the switchover nobody waits.
    assert follow(frames[1:]).suspects == ()
    assert follow([*frames[1:], message(make, ReturnPathType.PONG)]).suspects == summary.suspects
    assert follow([*frames, make.switchover()]).suspects == ()
    assert follow([*frames, message(make, ReturnPathType.SWITCHOVER_ACK)]).suspects == ()


def test_a_device_that_has_sent_nothing_blocks_until_the_switchover() -> None:
    make = Maker()
    frames = [setup(make), setup(make, OTHER), make.data(b"abc"), sent(make)]
    assert follow(frames).lacking == (OTHER_KEY,)
    assert follow(frames).suspects == ()
    assert follow([*frames, make.switchover()]).lacking == ()


def test_what_does_not_count() -> None:
    make = Maker()
    summary = follow(
        [
            replace(sent(make), section=None),
            replace(sent(make), value=None),
            replace(message(make, ReturnPathType.SWITCHOVER_ACK), value=None),
            make.switchover(),
            sent(make),
            make.data(b"abc"),
        ]
    )
    assert summary.devices == ()
    assert not summary.with_ack


def test_standstill_and_configs() -> None:
    make = Maker()
    frames = [
        make.section(Kind.MAIN_SECTION_PART, RAM),
        make.switchover(),
        make.packet(0, b"abc"),
        make.packet(1, b"config", config=True),
        make.config(b"config"),
        make.headless(),
        make.frame(Kind.MAIN_EOF, b"\0"),
        make.frame(Kind.MAIN_VMDESCRIPTION, bytes(9)),
        message(make, ReturnPathType.SHUT),
    ]
    summary = follow(frames)
    standing = frames[1:8]
    assert summary.standstill == Interval(
        start_ns=2 * MILLISECOND,
        stop_ns=8 * MILLISECOND,
        bytes=sum(frame.length for frame in standing),
    )
    assert summary.configs == Interval(
        start_ns=4 * MILLISECOND,
        stop_ns=5 * MILLISECOND,
        bytes=frames[3].length + frames[4].length,
    )


def test_nobody_stands_still_for_a_background_snapshot() -> None:
    make = Maker()
    frames = [
        make.section(Kind.MAIN_SECTION_PART, RAM),
        make.section(Kind.MAIN_SECTION_FULL, Section(40, "timer", 0, 2)),
        make.frame(Kind.MAIN_EOF, b"\0"),
        make.frame(Kind.MAIN_VMDESCRIPTION, bytes(9)),
    ]
    assert follow(frames).standstill is None


def test_an_early_device_does_not_hide_who_blocks() -> None:
    make = Maker()
    early = make.section(Kind.MAIN_SECTION_FULL, Section(1, "virtio-mem-device-early", 0, 1))
    frames = [early, make.section(Kind.MAIN_SECTION_PART), make.data(b"abc"), sent(make)]
    assert follow(frames).last_ready == Readiness(key=KEY, sent_ns=4 * MILLISECOND, has_data=True)


def test_postcopy_ends_the_standstill() -> None:
    make = Maker()
    header = CommandHeader(cmd=Command.POSTCOPY_RUN)
    frames = [
        make.switchover(),
        make.frame(Kind.MAIN_COMMAND, header.build(), value=CommandRecord(header, None)),
        make.section(Kind.MAIN_SECTION_PART, RAM),
        make.frame(Kind.MAIN_EOF, b"\0"),
        make.frame(Kind.MAIN_OPAQUE, b"\0"),
    ]
    summary = follow(frames)
    assert summary.standstill == Interval(start_ns=MILLISECOND, stop_ns=2 * MILLISECOND, bytes=10)
