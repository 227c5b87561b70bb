# SPDX-License-Identifier: GPL-2.0-or-later
"""What was sent of a device's state."""

from __future__ import annotations

from mfdtool.stream.devices import (
    Amount,
    ConfigSummary,
    DeviceKey,
    DeviceTracker,
    PacketKeys,
    SectionTracker,
    Via,
    section_key,
)
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.indexes import IdxRange
from mfdtool.stream.span import Span
from mfdtool.stream.values import MarkerRecord
from tests.support.made_frames import DEVICE, MILLISECOND, SECTION, Maker

KEY = DeviceKey(0, DEVICE, 0)


def add_marker(tracker: DeviceTracker, frame: Frame, section: Kind) -> None:
    assert isinstance(frame.value, MarkerRecord)
    tracker.add_marker(frame, frame.value, section=section)


def test_over_multifd() -> None:
    make, tracker = Maker(), DeviceTracker(KEY)
    add_marker(tracker, make.data(b"pre"), Kind.MAIN_SECTION_PART)
    for frame in (
        make.packet(1, b"one", channel="multifd-1"),
        make.packet(0, b"zero"),
        make.packet(2, bytes(341), config=True),
    ):
        tracker.add_packet(frame)
    found = tracker.summary()
    assert found.precopy == Amount(1, 3)
    assert found.main == Amount()
    assert found.multifd == Amount(2, 7)
    assert found.config == ConfigSummary(via=Via.MULTIFD, bytes=341, idx=2, channel="multifd-0")
    assert found.channels == ("multifd-1", "multifd-0")
    assert (found.expected, found.missing_idx, found.duplicates) == (3, (), 0)
    assert (found.first_ns, found.last_ns) == (2 * MILLISECOND, 4 * MILLISECOND)
    assert found.is_whole


def test_over_main() -> None:
    make, tracker = Maker(), DeviceTracker(KEY)
    add_marker(tracker, make.data(b"data!", hole=Span(17, 19)), Kind.MAIN_SECTION_END)
    add_marker(tracker, make.config(bytes(325)), Kind.MAIN_SECTION_FULL)
    found = tracker.summary()
    assert found.main == Amount(1, 5, 2)
    assert found.config == ConfigSummary(via=Via.MAIN, bytes=341, channel="main")
    assert found.expected is None
    assert not found.is_whole


def test_holes() -> None:
    make, tracker = Maker(), DeviceTracker(KEY)
    for idx in (0, 0, 3, 9):
        tracker.add_packet(make.packet(idx, b"x"))
    assert tracker.summary().missing_idx == (IdxRange(1, 2), IdxRange(4, 8))
    tracker.add_packet(make.packet(5, config=True))
    tracker.add_packet(make.headless())
    found = tracker.summary()
    assert found.missing_idx == (IdxRange(1, 2), IdxRange(4, 4))
    assert (found.expected, found.missing_idx_count) == (6, 3)
    assert (found.duplicates, found.behind_config, found.headless) == (1, 1, 1)
    assert not found.is_whole


def test_keys() -> None:
    make, keys = Maker(migration=1), PacketKeys()
    key = keys.find(make.packet(0, instance_id=7))
    assert key == DeviceKey(1, DEVICE, 7)
    assert keys.find(make.packet(1, instance_id=7)) is key
    assert keys.find(make.headless()) == DeviceKey(1, DEVICE, 0)
    assert keys.find(make.switchover()) is None
    assert section_key(2, SECTION) == DeviceKey(2, DEVICE, 0)


def test_names_are_forgotten_in_time() -> None:
    make, keys = Maker(), PacketKeys()
    for number in range(4100):
        assert keys.find(make.packet(0, instance_id=number)) == DeviceKey(0, DEVICE, number)


def test_sections() -> None:
    make, sections = Maker(), SectionTracker()
    assert sections.kind(0) is None
    sections.add(make.section(Kind.MAIN_SECTION_PART))
    sections.add(make.switchover())
    assert sections.is_precopy(0)
    assert not sections.is_precopy(1)
    sections.add(make.section(Kind.MAIN_SECTION_END))
    assert sections.kind(0) is Kind.MAIN_SECTION_END
    assert not sections.is_precopy(0)
