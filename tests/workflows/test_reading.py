# SPDX-License-Identifier: GPL-2.0-or-later
"""What a reading knows of its input's completeness."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from mfdtool.stream.frames import Kind
from mfdtool.workflows.reading import Input, Reading
from tests.support.captures import CAPTURES

CLEAN = CAPTURES / "mtty-4ch-clean.pcap.gz"
GLOBAL_HEADER = 24


def reading_of(path: Path) -> Reading:
    with Reading(Input(capture=str(path))) as reading:
        for _ in reading.frames():
            pass
    return reading


def test_whole_capture_is_complete() -> None:
    reading = reading_of(CLEAN)
    assert reading.complete
    assert reading.first_loss is None
    assert reading.unfinished == []


def test_capture_that_ends_on_a_border_is_not_complete(tmp_path: Path) -> None:
    """Every byte that is there can be decoded, but the main stream's end is missing."""
    data = gzip.decompress(CLEAN.read_bytes())
    end = GLOBAL_HEADER
    for _ in range(60):
        end += 16 + int.from_bytes(data[end + 8 : end + 12], "little")
    path = tmp_path / "half.pcap"
    path.write_bytes(data[:end])
    reading = reading_of(path)
    assert reading.problems == []
    assert [channel.name for channel in reading.unfinished] == ["main"]
    assert not reading.complete


def test_first_loss(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes(gzip.decompress(CLEAN.read_bytes())[:400_000])
    reading = reading_of(path)
    loss = reading.first_loss
    assert loss is not None
    assert (loss.channel.name, loss.number, loss.kind) == ("multifd-2", 18, Kind.MULTIFD_RAM)
    assert loss.missing


@pytest.mark.parametrize("size", [200, 398])
def test_raw_main_stream_without_end(tmp_path: Path, size: int) -> None:
    whole = tmp_path / "main"
    with Reading(Input(capture=str(CLEAN)), keep_extents=True) as reading:
        frames = [f for f in reading.frames() if f.channel.name == "main"]
        whole.write_bytes(b"".join(frame.data() for frame in frames)[:size])
    with Reading(Input(main=whole)) as reading:
        list(reading.frames())
    assert [channel.name for channel in reading.unfinished] == ["main"]
    assert not reading.complete
