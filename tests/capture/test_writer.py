# SPDX-License-Identifier: GPL-2.0-or-later
"""What the writers write, the readers read; also when the writer was killed."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

import pytest

from mfdtool.capture.writer import PcapngWriter, PcapWriter
from mfdtool.errors import CaptureError
from mfdtool.packets import pcap, pcapng
from mfdtool.packets.info import CaptureInfo, Interface, Statistics
from mfdtool.packets.link import LinkType
from mfdtool.packets.values import NO_TIME, Record

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TIME = 1_795_424_183_724_486_123
RAW = Interface(index=0, linktype=LinkType.RAW, name="proxy")
MICROSECONDS = Interface(index=1, linktype=LinkType.ETHERNET, ticks_per_second=1_000_000)


def write_pcapng(file: BinaryIO) -> PcapngWriter:
    """Write a bit of everything."""
    writer = PcapngWriter(file, os="Linux", application="mfdtool", comments=["QEMU 10.0.2"])
    assert writer.add_interface(RAW, comments=["proxied"]) == 0
    assert writer.add_interface(MICROSECONDS) == 1
    writer.write(b"abc", time_ns=TIME, comments=["first"], flags=1)
    writer.write(memoryview(b"defgh"), time_ns=TIME, interface=1, original=70, drops=2)
    writer.write(b"", time_ns=NO_TIME)
    writer.write_statistics(Statistics(1, received=2), time_ns=TIME, comments=["end"])
    return writer


def whole_records(data: bytes) -> list[Record]:
    """Read what a file cut anywhere still gives."""
    records: list[Record] = []
    with suppress(CaptureError):
        for record in pcapng.read(memoryview(data)):
            records.append(record)
    return records


def test_pcapng_is_read_back() -> None:
    file = io.BytesIO()
    write_pcapng(file)
    info = CaptureInfo()
    records = list(pcapng.read(memoryview(file.getvalue()), info=info))
    assert [(record.time_ns, record.linktype, record.interface) for record in records] == [
        (TIME, LinkType.RAW, 0),
        (TIME - 123, LinkType.ETHERNET, 1),
        (0, LinkType.RAW, 0),
    ]
    assert [(record.captured, record.original) for record in records] == [(3, 3), (5, 70), (0, 0)]
    assert [(comment.text, comment.record) for comment in info.comments] == [
        ("QEMU 10.0.2", 0),
        ("proxied", 0),
        ("first", 1),
        ("end", 0),
    ]
    assert info.interfaces == [RAW, MICROSECONDS]
    assert info.statistics == {1: Statistics(1, received=2)}
    assert (info.os, info.application, info.dropped) == ("Linux", "mfdtool", 2)


def test_pcapng_of_a_killed_writer_reads_up_to_its_last_block() -> None:
    file = io.BytesIO()
    write_pcapng(file)
    data = file.getvalue()
    whole = list(pcapng.read(memoryview(data)))
    ends = []
    reader = pcapng.Reader(memoryview(data))
    while reader.offset < len(data):
        if reader.read_block() is not None:
            ends.append(reader.offset)
    for size in range(len(data) - 1, 0, -1):
        records = whole_records(data[:size])
        assert records == whole[: len(records)]
        assert len(records) == sum(end <= size for end in ends)


def test_interface_must_be_added_first() -> None:
    file = io.BytesIO()
    writer = PcapngWriter(file)
    with pytest.raises(ValueError, match="interface 0 was not added"):
        writer.write(b"", time_ns=0)
    with pytest.raises(ValueError, match="interface -1 was not added"):
        writer.write_statistics(Statistics(-1), time_ns=0)
    with pytest.raises(ValueError, match="no power of 10 or 2"):
        writer.add_interface(Interface(index=0, linktype=1, ticks_per_second=3))
    with pytest.raises(ValueError, match="interface 0 was not added"):
        writer.write(b"", time_ns=0)


@pytest.mark.parametrize(
    ("ticks_per_second", "time_ns"), [(1_000_000_000, TIME), (1_000_000, TIME - 123)]
)
def test_pcap_is_read_back(ticks_per_second: int, time_ns: int) -> None:
    file = io.BytesIO()
    writer = PcapWriter(file, linktype=LinkType.RAW, snaplen=70, ticks_per_second=ticks_per_second)
    writer.write(b"abc", time_ns=TIME)
    writer.write(memoryview(b"defgh"), time_ns=TIME, original=70)
    info = CaptureInfo()
    assert list(pcap.read(memoryview(file.getvalue()), info=info)) == [
        Record(1, time_ns, LinkType.RAW, 40, 3, 3),
        Record(2, time_ns, LinkType.RAW, 59, 5, 70),
    ]
    assert info.snaplen == 70


def test_refused_frame_leaves_the_file_as_it_was() -> None:
    file = io.BytesIO()
    writer = PcapWriter(file, linktype=1)
    before = file.getvalue()
    with pytest.raises(ValueError, match="at most"):
        writer.write(bytes(pcap.MAX_CAPTURED + 1), time_ns=0)
    assert file.getvalue() == before


def test_flush_reaches_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    makers: list[Callable[[BinaryIO], PcapngWriter | PcapWriter]] = [
        write_pcapng,
        lambda file: PcapWriter(file, linktype=1),
    ]
    for make in makers:
        with path.open("wb") as file:
            writer = make(file)
            assert path.stat().st_size == 0
            writer.flush()
            assert path.stat().st_size >= pcap.FILE_HEADER_SIZE
