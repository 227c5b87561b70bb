# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding where records begin: many walkers against single steps."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from mfdtool.packets import bulk_hop, pcap, pcapng_build
from mfdtool.packets.bulk_hop import Hops, PcapHops, PcapngHops
from mfdtool.packets.info import ByteOrder, Interface

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND = 10**9


def pcap_file(random: Random, order: ByteOrder, *, frames: int) -> tuple[bytes, int]:
    """Write a pcap file; give also where its records begin."""
    parts = [
        pcap.record(
            random.randbytes(random.choice((66, 200, 1514))),
            time_ns=1_700_000_000 * SECOND + index,
            byte_order=order,
        )
        for index in range(frames)
    ]
    return pcap.file_header(linktype=1, byte_order=order) + b"".join(parts), 24


def pcapng_file(random: Random, order: ByteOrder, *, frames: int) -> tuple[bytes, int]:
    """Write a pcapng file; give also where its packets begin."""
    head = pcapng_build.section_header(byte_order=order)
    head += pcapng_build.interface_description(Interface(0, 1), byte_order=order)
    parts = [
        pcapng_build.enhanced_packet(
            random.randbytes(random.choice((66, 200, 1514))),
            ticks=1_700_000_000 * SECOND + index,
            byte_order=order,
        )
        for index in range(frames)
    ]
    return head + b"".join(parts), len(head)


FORMATS = pytest.mark.parametrize(
    ("make", "hops_of"), [(pcap_file, PcapHops), (pcapng_file, PcapngHops)], ids=["pcap", "pcapng"]
)


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Send walkers over small stretches; lists whether their guesses were proved."""
    monkeypatch.setattr(bulk_hop, "_WALKER_BYTES", 8000)
    monkeypatch.setattr(bulk_hop, "_SAMPLE", 4)
    results: list[bool] = []
    original = Hops._walk_together

    def noted(hops: Hops, guesses: list[int], stop: int) -> object:
        result = original(hops, guesses, stop)
        results.append(result is not None)
        return result

    monkeypatch.setattr(Hops, "_walk_together", noted)
    return results


def assert_same_walk(hops: Hops, start: int, stop: int) -> int:
    """Compare; give where the next record begins."""
    expected, expected_end = hops.list_from(start, stop)
    found, end = hops.walk(start, stop)
    assert found.tolist() == expected
    assert end == expected_end
    return end


@FORMATS
@pytest.mark.parametrize("order", ByteOrder)
def test_walkers_find_what_single_steps_find(
    make: Callable[..., tuple[bytes, int]],
    hops_of: Callable[[memoryview, ByteOrder], Hops],
    order: ByteOrder,
    walks: list[bool],
) -> None:
    file, start = make(Random(1), order, frames=600)
    hops = hops_of(memoryview(file), order)
    assert assert_same_walk(hops, start, len(file)) == len(file)
    middle = len(file) // 2
    assert assert_same_walk(hops, start, middle) >= middle
    assert walks == [True, True]


@FORMATS
def test_the_last_record_is_not_whole(
    make: Callable[..., tuple[bytes, int]],
    hops_of: Callable[[memoryview, ByteOrder], Hops],
    walks: list[bool],
) -> None:
    file, start = make(Random(2), ByteOrder.LITTLE, frames=300)
    for missing in (1, 30, 60):
        hops = hops_of(memoryview(file[:-missing]), ByteOrder.LITTLE)
        assert assert_same_walk(hops, start, len(file)) < len(file) - missing
    assert walks == [True] * 3


@FORMATS
def test_a_false_guess_is_found_out(
    make: Callable[..., tuple[bytes, int]],
    hops_of: Callable[[memoryview, ByteOrder], Hops],
    walks: list[bool],
) -> None:
    file, start = make(Random(3), ByteOrder.LITTLE, frames=300)
    hops = hops_of(memoryview(file), ByteOrder.LITTLE)
    offsets, _ = hops.list_from(start, len(file))
    pattern, at = hops.signature(offsets[0])
    # Walkers look for their first record from these places on, so inside frames.
    places = range(offsets[4] + 8000, len(file), 8000)
    forged = bytearray(file)
    for place in places:
        offset = max(item for item in offsets if item <= place)
        after = min((item for item in offsets if item > place), default=len(file))
        if place - offset > 60 and after - place > 40:
            forged[place + at : place + at + len(pattern)] = pattern
    hops = hops_of(memoryview(bytes(forged)), ByteOrder.LITTLE)
    assert assert_same_walk(hops, start, len(file)) == len(file)
    assert walks == [False]


@FORMATS
def test_damage_stops_both_ways_at_the_same_place(
    make: Callable[..., tuple[bytes, int]],
    hops_of: Callable[[memoryview, ByteOrder], Hops],
    walks: list[bool],
) -> None:
    file, start = make(Random(4), ByteOrder.LITTLE, frames=300)
    hops = hops_of(memoryview(file), ByteOrder.LITTLE)
    offsets, _ = hops.list_from(start, len(file))
    for index in (100, 150, 298, 299):
        damaged = bytearray(file)
        damaged[offsets[index] + 4 : offsets[index] + 12] = b"\xff" * 8
        hops = hops_of(memoryview(bytes(damaged)), ByteOrder.LITTLE)
        assert assert_same_walk(hops, start, len(file)) == offsets[index]
    assert walks == [False] * 4


@FORMATS
def test_few_or_large_records_are_stepped_over(
    make: Callable[..., tuple[bytes, int]],
    hops_of: Callable[[memoryview, ByteOrder], Hops],
    walks: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file, start = make(Random(5), ByteOrder.LITTLE, frames=3)
    hops = hops_of(memoryview(file), ByteOrder.LITTLE)
    assert assert_same_walk(hops, start, len(file)) == len(file)
    assert assert_same_walk(hops, len(file), len(file)) == len(file)
    file, start = make(Random(5), ByteOrder.LITTLE, frames=300)
    hops = hops_of(memoryview(file), ByteOrder.LITTLE)
    assert assert_same_walk(hops, start, 20_000) >= 20_000
    monkeypatch.setattr(bulk_hop, "_LARGE_RECORD", 100)
    assert assert_same_walk(hops, start, len(file)) == len(file)
    monkeypatch.setattr(bulk_hop, "_SAMPLE", 300)
    monkeypatch.setattr(bulk_hop, "_LARGE_RECORD", 10_000)
    assert assert_same_walk(hops, start, len(file)) == len(file)
    assert walks == []
