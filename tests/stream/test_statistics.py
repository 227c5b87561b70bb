# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets in groups: sizes, throughput, order."""

from __future__ import annotations

from itertools import combinations
from random import Random
from statistics import median_low

import pytest

from mfdtool.stream import statistics
from mfdtool.stream.devices import DeviceKey, Via
from mfdtool.stream.frames import Kind
from mfdtool.stream.phases import Phase
from mfdtool.stream.span import Span
from mfdtool.stream.statistics import (
    Bucket,
    By,
    ChannelGroup,
    DeviceGroup,
    DevicePart,
    Order,
    PhaseGroup,
    SizeCounter,
    StatisticsCollector,
    count_inversions,
    order_of,
)
from tests.support.made_frames import DEVICE, RAM, Maker

KEY = DeviceKey(0, DEVICE, 0)


def test_sizes() -> None:
    counter = SizeCounter()
    for size in (0, 1, 5, 7, 4096):
        counter.add(size)
    sizes = counter.sizes()
    assert (sizes.minimum, sizes.median, sizes.maximum, sizes.exact) == (0, 5, 4096, True)
    assert sizes.histogram == (
        Bucket(0, 0, 1), Bucket(1, 1, 1), Bucket(4, 7, 2), Bucket(4096, 8191, 1),
    )  # fmt: skip


def test_many_sizes_are_counted_coarsely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "SIZES_KEPT", 100)
    random, counter = Random(1), SizeCounter()
    values = [random.randrange(1 << 20) for _ in range(2001)]
    for value in values:
        counter.add(value)
    sizes, median = counter.sizes(), median_low(values)
    assert not sizes.exact
    assert median * 127 // 128 <= sizes.median <= median
    assert (sizes.minimum, sizes.maximum) == (min(values), max(values))
    assert sum(bucket.packets for bucket in sizes.histogram) == len(values)


@pytest.mark.parametrize("seed", range(20))
def test_inversions(seed: int) -> None:
    random = Random(seed)
    numbers = list(range(random.randrange(40)))
    random.shuffle(numbers)
    assert count_inversions(numbers) == sum(a > b for a, b in combinations(numbers, 2))


def test_order() -> None:
    assert order_of([], []).displacement_mean == 0
    order = order_of([5, 4, 3, 2, 1, 0], [10, 20, 30, 40, 50, 60])
    assert order == Order(
        packets=6, truncated=False, inversions=15, displaced=6, displacement_max=5,
        displacement_mean=3.0, waiting_packets_max=5, waiting_bytes_max=150,
    )  # fmt: skip


def test_a_hole_displaces_nothing_but_all_behind_it_waits() -> None:
    order = order_of([0, 1, 3, 4, 1 << 31], [1, 1, 1, 1, 1])
    assert (order.inversions, order.displacement_max) == (0, 0)
    assert (order.waiting_packets_max, order.waiting_bytes_max) == (3, 3)


def test_by_device() -> None:
    make, collector = Maker(), StatisticsCollector()
    for frame in (
        make.section(Kind.MAIN_SECTION_PART),
        make.data(b"pre"),
        make.section(Kind.MAIN_SECTION_END),
        make.data(b"post"),
        make.frame(Kind.VFIO_MARKER, bytes(8)),
        make.packet(1, bytes(100)),
        make.packet(0, bytes(50), hole=Span(0, 20)),
        make.packet(0, bytes(10)),
        make.headless(),
        make.packet(2, bytes(341), config=True),
        make.config(bytes(325)),
    ):
        collector.add(frame)
    measured = collector.measured()
    found = {group.group: group for group in measured.groups}
    assert measured.by is By.DEVICE
    assert list(found) == [
        DeviceGroup(KEY, DevicePart.PRECOPY, Via.MAIN),
        DeviceGroup(KEY, DevicePart.STOP_COPY, Via.MAIN),
        DeviceGroup(KEY, DevicePart.STOP_COPY, Via.MULTIFD),
        DeviceGroup(KEY, DevicePart.CONFIG, Via.MULTIFD),
        DeviceGroup(KEY, DevicePart.CONFIG, Via.MAIN),
    ]
    data = found[DeviceGroup(KEY, DevicePart.STOP_COPY, Via.MULTIFD)]
    assert (data.packets, data.bytes, data.missing) == (4, 140, 20)
    assert data.duration_ns == 3_000_000
    assert data.throughput == pytest.approx(140 / 0.003)
    assert data.order is not None
    assert (data.order.packets, data.order.inversions) == (3, 1)
    assert data.order.waiting_bytes_max == 100
    config = found[DeviceGroup(KEY, DevicePart.CONFIG, Via.MULTIFD)]
    assert (config.throughput, config.order, config.bytes) == (None, None, 341)


def test_by_channel_and_phase() -> None:
    make = Maker()
    frames = [
        make.frame(Kind.MULTIFD_INIT, bytes(64), channel="multifd-0"),
        make.section(Kind.MAIN_SECTION_PART, RAM),
        make.gap(10),
        make.switchover(),
    ]
    channels, phases = StatisticsCollector(By.CHANNEL), StatisticsCollector(By.PHASE)
    for frame in frames:
        channels.add(frame)
        phases.add(frame, counted=frame.channel.name == "main")
    assert {group.group: group.bytes for group in channels.measured().groups} == {
        ChannelGroup(0, "multifd-0"): 64,
        ChannelGroup(0, "main"): 10,
    }
    assert {group.group: group.packets for group in phases.measured().groups} == {
        PhaseGroup(0, Phase.PRECOPY): 1,
        PhaseGroup(0, Phase.SWITCHOVER): 1,
    }


def test_unknown_times() -> None:
    from dataclasses import replace

    make, collector = Maker(), StatisticsCollector()
    collector.add(replace(make.packet(0, b"x"), time_first=-1, time_last=-1))
    (group,) = collector.measured().groups
    assert (group.first_ns, group.throughput) == (-1, None)


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "ORDER_LIMIT", 3)
    monkeypatch.setattr(statistics, "GROUPS_LIMIT", 1)
    make, collector = Maker(), StatisticsCollector()
    for idx in range(5):
        collector.add(make.packet(idx))
    collector.add(make.packet(0, instance_id=1))
    measured = collector.measured()
    assert (len(measured.groups), measured.omitted) == (1, 1)
    order = measured.groups[0].order
    assert order is not None
    assert (order.packets, order.truncated) == (3, True)
