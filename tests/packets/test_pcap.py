# SPDX-License-Identifier: GPL-2.0-or-later
"""The pcap reader against its builders, real captures, and every way to break a file."""

from __future__ import annotations

import struct
from random import Random
from typing import TYPE_CHECKING

import pytest

from mfdtool.errors import CaptureError
from mfdtool.packets import pcap
from mfdtool.packets.info import NANOSECONDS, ByteOrder, CaptureInfo, Format, Interface
from mfdtool.packets.link import LinkType
from mfdtool.packets.values import NO_TIME, Record

if TYPE_CHECKING:
    from collections.abc import Callable

TIME = 1_795_424_183_724_486_123
MICROSECONDS = 1_000_000


def collect(data: bytes | memoryview) -> tuple[list[Record], CaptureError | None]:
    """Read all records, and the error that ended them."""
    records: list[Record] = []
    try:
        for record in pcap.read(memoryview(data), path="x.pcap"):
            records.append(record)
    except CaptureError as error:
        return records, error
    return records, None


def sample(order: ByteOrder, ticks_per_second: int) -> bytes:
    """Build a file of three records: whole, cut, empty."""
    header = pcap.file_header(
        linktype=LinkType.ETHERNET, ticks_per_second=ticks_per_second, byte_order=order
    )
    frames: list[tuple[bytes, int | None]] = [(b"abc", None), (b"defgh", 77), (b"", None)]
    return header + b"".join(
        pcap.record(
            frame,
            time_ns=TIME + number,
            original=original,
            ticks_per_second=ticks_per_second,
            byte_order=order,
        )
        for number, (frame, original) in enumerate(frames)
    )


@pytest.mark.parametrize("order", ByteOrder)
@pytest.mark.parametrize(
    ("ticks", "times"),
    [(NANOSECONDS, (TIME, TIME + 1, TIME + 2)), (MICROSECONDS, (TIME - 123,) * 3)],
)
def test_every_variant_is_read(order: ByteOrder, ticks: int, times: tuple[int, ...]) -> None:
    records, error = collect(sample(order, ticks))
    assert error is None
    assert records == [
        Record(1, times[0], 1, 40, 3, 3),
        Record(2, times[1], 1, 59, 5, 77),
        Record(3, times[2], 1, 80, 0, 0),
    ]


def test_file_header_is_that_of_a_tcpdump_file(
    real_capture: Callable[[str], memoryview],
) -> None:
    start = real_capture("mtty-4ch-clean")[: pcap.FILE_HEADER_SIZE]
    assert bytes(start) == pcap.file_header(linktype=1, ticks_per_second=MICROSECONDS)
    assert pcap.read_file_header(start) == pcap.FileHeader(
        byte_order=ByteOrder.LITTLE, ticks_per_second=MICROSECONDS, snaplen=262_144, linktype=1
    )


def test_info_describes_the_file() -> None:
    info = CaptureInfo()
    assert len(list(pcap.read(memoryview(sample(ByteOrder.BIG, MICROSECONDS)), info=info))) == 3
    assert info.format is Format.PCAP
    assert info.byte_order is ByteOrder.BIG
    assert info.sections == 1
    assert info.interfaces == [
        Interface(index=0, linktype=1, snaplen=262_144, ticks_per_second=MICROSECONDS)
    ]


def test_every_truncation_gives_what_is_there() -> None:
    data = sample(ByteOrder.LITTLE, NANOSECONDS)
    whole, _ = collect(data)
    for size in range(len(data)):
        records, error = collect(data[:size])
        if size in (24, 43, 64):
            assert error is None
            assert records == [record for record in whole if record.offset < size]
            continue
        assert error is not None
        assert error.path == "x.pcap"
        if size < pcap.FILE_HEADER_SIZE:
            assert records == []
            continue
        complete = [record for record in whole if record.offset + record.captured <= size]
        assert records[: len(complete)] == complete
        assert error.offset == size
        if len(records) > len(complete):
            (last,) = records[len(complete) :]
            assert last.offset + last.captured == size
            assert last.original == whole[len(complete)].original
            assert error.record == last.number
        else:
            assert error.record == len(complete) + 1


def test_cut_record_says_how_much_is_missing() -> None:
    records, error = collect(sample(ByteOrder.LITTLE, NANOSECONDS)[:61])
    assert records[-1] == Record(2, TIME + 1, 1, 59, 2, 77)
    assert str(error) == (
        "x.pcap, record 2, offset 61: the file ends inside this record, 3 bytes are missing"
    )


@pytest.mark.parametrize("captured", [pcap.MAX_CAPTURED + 1, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_impossible_length_is_damage(captured: int) -> None:
    good = sample(ByteOrder.LITTLE, NANOSECONDS)
    bad = struct.pack("<4I", 1, 2, captured, captured)
    records, error = collect(good + bad + bytes(300_000))
    assert len(records) == 3
    assert error is not None
    assert (error.record, error.offset) == (4, len(good))
    assert error.reason == f"the file is damaged: a record cannot hold {captured} bytes"


def test_snaplen_of_the_header_is_not_believed() -> None:
    header = pcap.file_header(linktype=1, snaplen=0xFFFF_FFFF)
    records, error = collect(header + pcap.record(b"abcd", time_ns=0))
    assert error is None
    assert [record.captured for record in records] == [4]


def test_original_length_is_never_less_than_captured() -> None:
    data = pcap.file_header(linktype=1) + pcap.record(b"abcd", time_ns=0, original=1)
    assert [record.original for record in collect(data)[0]] == [4]


def test_frame_check_sequence_bits_are_no_part_of_the_link_type() -> None:
    header = pcap.file_header(linktype=0x4400_0000 | LinkType.LINUX_SLL2)
    assert pcap.read_file_header(memoryview(header)).linktype == LinkType.LINUX_SLL2


@pytest.mark.parametrize("magic", ["34cdb2a1", "a1b2cd34"])
def test_modified_format_is_named(magic: str) -> None:
    data = memoryview(bytes.fromhex(magic) + bytes(20))
    assert pcap.is_pcap(bytes(data[:4]))
    with pytest.raises(CaptureError, match="modified pcap format"):
        pcap.read(data)


def test_other_versions_are_refused() -> None:
    data = bytearray(pcap.file_header(linktype=1))
    data[4] = 3
    with pytest.raises(CaptureError, match=r"pcap version 3\.4 is not supported"):
        pcap.read(memoryview(data))


@pytest.mark.parametrize("data", [b"", b"\xd4", b"\xd4\xc3\xb2", b"QEVM" + bytes(40)])
def test_not_pcap_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(CaptureError, match="not a pcap file"):
        pcap.read(memoryview(data))


def test_builders_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="1000 ticks"):
        pcap.file_header(linktype=1, ticks_per_second=1000)
    with pytest.raises(ValueError, match="at most 262144 bytes, not 262145"):
        pcap.record(bytes(pcap.MAX_CAPTURED + 1), time_ns=0)
    with pytest.raises(ValueError, match="does not fit"):
        pcap.record(b"", time_ns=NANOSECONDS << 32)


def test_no_time_is_written_as_zero() -> None:
    assert pcap.record_header(time_ns=NO_TIME, captured=0, original=9) == struct.pack(
        "<4I", 0, 0, 0, 9
    )


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bits_give_records_or_a_capture_error(
    seed: int, real_capture: Callable[[str], memoryview]
) -> None:
    rng = Random(seed)
    data = bytearray(real_capture("mtty-4ch-clean")[:20_000])
    for _ in range(rng.randrange(1, 30)):
        data[rng.randrange(rng.choice((24, 400, len(data))))] ^= 1 << rng.randrange(8)
    records, error = collect(bytes(data))
    assert all(record.offset + record.captured <= len(data) for record in records)
    assert [record.number for record in records] == list(range(1, len(records) + 1))
    assert records or error is not None
