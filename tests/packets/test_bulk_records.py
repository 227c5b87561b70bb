# SPDX-License-Identifier: GPL-2.0-or-later
"""Records by array against the readers, one at a time: whatever the file, the same."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from struct import Struct
from typing import TYPE_CHECKING

import numpy as np
import pytest

from mfdtool.errors import CaptureError
from mfdtool.packets import bulk_hop, bulk_records, pcap, pcapng, pcapng_build
from mfdtool.packets.bulk_records import gather, read
from mfdtool.packets.info import ByteOrder, CaptureInfo, Format, Interface, Statistics
from mfdtool.packets.pcapng import BlockType
from mfdtool.packets.values import NO_TIME, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ORDERS = pytest.mark.parametrize("order", ByteOrder)


def collect(records: Iterable[Record]) -> tuple[list[Record], str]:
    """Give records (their interface aside) and the error that they end in."""
    found: list[Record] = []
    try:
        for record in records:
            found.append(replace(record, interface=0))
    except CaptureError as error:
        return found, str(error)
    return found, ""


def collect_columns(buffer: memoryview, window: int) -> tuple[list[Record], str, CaptureInfo]:
    """Do the same by array; windows must follow each other."""
    found: list[Record] = []
    info = CaptureInfo()
    problem = ""
    stop: int | None = None
    try:
        for columns in read(buffer, window=window, path="a file", info=info):
            assert stop is None or columns.start == stop
            stop = columns.stop
            assert columns.first == len(found) + 1
            found += [columns.record(index) for index in range(len(columns))]
    except CaptureError as error:
        problem = str(error)
    return found, problem, info


def assert_same(file: bytes, window: int) -> list[Record]:
    """Compare both ways over a file; give the records."""
    buffer = memoryview(file)
    info = CaptureInfo()
    reader = pcapng if pcapng.is_pcapng(file[:4]) else pcap
    try:
        expected = collect(reader.read(buffer, path="a file", info=info))
    except CaptureError as error:
        expected = [], str(error)
    found, problem, found_info = collect_columns(buffer, window)
    assert (found, problem) == expected
    assert found_info == info
    return found


def random_pcap(random: Random, order: ByteOrder) -> bytes:
    """Write a pcap file with frames of all lengths."""
    ticks = random.choice((10**6, 10**9))
    parts = [pcap.file_header(linktype=1, ticks_per_second=ticks, byte_order=order)]
    for _ in range(random.randrange(60)):
        frame = random.randbytes(random.choice((0, 1, 54, 100, 100, 100, 900)))
        time_ns = 1_700_000_000 * 10**9 + random.randrange(10**12)
        parts.append(
            pcap.record(
                frame,
                time_ns=time_ns,
                original=len(frame) + random.choice((0, 0, 5)),
                ticks_per_second=ticks,
                byte_order=order,
            )
        )
    return b"".join(parts)


def random_pcapng(random: Random, order: ByteOrder) -> bytes:
    """Write a pcapng file with everything in it that a reader meets."""
    parts = [pcapng_build.section_header(byte_order=order, comments=["first"])]
    resolutions = (10**6, 10**9, 1 << 20, 10**3)
    for resolution in random.sample(resolutions, random.randint(1, 3)):
        interface = Interface(
            0, 1, ticks_per_second=resolution, offset_seconds=random.choice((0, 0, 5, -5))
        )
        parts.append(pcapng_build.interface_description(interface, byte_order=order))
    interfaces = len(parts) - 1
    commented = random.choice((0.0, 0.05, 0.5, 1.0))
    for _ in range(random.randrange(120)):
        kind = random.random()
        frame = random.randbytes(random.choice((0, 1, 54, 100, 100, 100, 900)))
        if kind < 0.03:
            body = Struct(f"{order}I").pack(len(frame)) + frame
            parts.append(pcapng_build.block(BlockType.SIMPLE_PACKET, body, byte_order=order))
        elif kind < 0.06:
            parts.append(
                pcapng_build.interface_statistics(
                    Statistics(0, received=5), ticks=9, byte_order=order
                )
            )
        elif kind < 0.08:
            parts.append(pcapng_build.block(0xBAD, frame, byte_order=order))
        else:
            parts.append(
                pcapng_build.enhanced_packet(
                    frame,
                    ticks=random.choice((1_700_000_000 * 10**6, (1 << 63) + 5, 1 << 61)),
                    interface=random.randrange(interfaces),
                    original=len(frame) + random.choice((0, 3)),
                    comments=["note"] if random.random() < commented else [],
                    drops=2 if random.random() < commented / 4 else None,
                    byte_order=order,
                )
            )
    return b"".join(parts)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send walkers over small files, and change between arrays and reader early."""
    monkeypatch.setattr(bulk_hop, "_WALKER_BYTES", 700)
    monkeypatch.setattr(bulk_hop, "_GUESS_BYTES", 300)
    monkeypatch.setattr(bulk_hop, "_FEW_WALKERS", 2)
    monkeypatch.setattr(bulk_hop, "_SAMPLE", 3)
    monkeypatch.setattr(bulk_records, "_MIN_STRIDE", 2)
    monkeypatch.setattr(bulk_records, "_MAX_STRIDE", 128)
    monkeypatch.setattr(bulk_records, "_MAX_BURST", 4)


MAKERS = pytest.mark.parametrize("make", [random_pcap, random_pcapng])


@pytest.mark.usefixtures("eager")
@ORDERS
@MAKERS
@pytest.mark.parametrize("seed", range(25))
def test_random_files(
    seed: int, make: Callable[[Random, ByteOrder], bytes], order: ByteOrder
) -> None:
    random = Random(seed)
    file = make(random, order)
    for window in (1, 333, 4000, 1 << 24):
        assert_same(file, window)


@pytest.mark.usefixtures("eager")
@ORDERS
@MAKERS
def test_every_truncation(make: Callable[[Random, ByteOrder], bytes], order: ByteOrder) -> None:
    file = make(Random(3), order)[:3000]
    for length in range(0, len(file), 7):
        assert_same(file[:length], 1 << 20)
    for length in range(min(300, len(file))):
        assert_same(file[:length], 100)


@pytest.mark.usefixtures("eager")
@ORDERS
@MAKERS
@pytest.mark.parametrize("seed", range(25))
def test_damaged_files(
    seed: int, make: Callable[[Random, ByteOrder], bytes], order: ByteOrder
) -> None:
    random = Random(seed)
    for _ in range(4):
        file = bytearray(make(random, order))
        for _ in range(random.randint(1, 3)):
            file[random.randrange(len(file))] ^= 1 << random.randrange(8)
        assert_same(bytes(file), random.choice((1, 2000, 1 << 20)))


def test_sections_of_both_byte_orders() -> None:
    file = b"".join(random_pcapng(Random(seed), order) for seed in (1, 2) for order in ByteOrder)
    assert len(assert_same(file, 5000)) > 100


def test_times() -> None:
    parts = [pcapng_build.section_header()]
    cases = [
        (Interface(0, 1, ticks_per_second=10**6), 5, 5000),
        (Interface(0, 1, ticks_per_second=10**6, offset_seconds=2), 5, 2_000_005_000),
        (Interface(0, 1, ticks_per_second=1 << 10), 512, 500_000_000),
        (Interface(0, 1, offset_seconds=-1), 5, NO_TIME),
        (Interface(0, 1), (1 << 63) - 1, (1 << 63) - 1),
        (Interface(0, 1), 1 << 63, NO_TIME),
        (Interface(0, 1, ticks_per_second=10**6), 1 << 62, NO_TIME),
    ]
    parts += [pcapng_build.interface_description(interface) for interface, _, _ in cases]
    for number, (_, ticks, _) in enumerate(cases):
        parts.append(pcapng_build.enhanced_packet(b"frame", ticks=ticks, interface=number))
    records = assert_same(b"".join(parts), 1 << 20)
    assert [record.time_ns for record in records] == [time for _, _, time in cases]


def test_what_is_no_capture() -> None:
    with pytest.raises(CaptureError, match="this is not a pcap file"):
        read(memoryview(b"QEVM" * 10))
    info = CaptureInfo()
    header = pcap.file_header(linktype=1)
    assert list(read(memoryview(header), info=info)) == []
    assert info.format is Format.PCAP


@pytest.mark.parametrize("name", ["mtty-4ch-clean", "mtty-2dev-2ch-holes"])
@pytest.mark.parametrize("window", [1, 10_000, bulk_records.WINDOW])
def test_real_captures(name: str, window: int, real_capture: Callable[[str], memoryview]) -> None:
    assert len(assert_same(bytes(real_capture(name)), window)) > 200


def test_gather_fills_up_with_zeros() -> None:
    buffer = memoryview(bytes(range(20)))
    found = gather(buffer, np.array([0, 3, 14, 18, 20]), 6)
    assert [bytes(item) for item in found] == [
        bytes(range(6)),
        bytes(range(3, 9)),
        bytes(range(14, 20)),
        bytes([18, 19, 0, 0, 0, 0]),
        bytes(6),
    ]
    assert len(gather(buffer, np.array([], dtype=np.int64), 6)) == 0
