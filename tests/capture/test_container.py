# SPDX-License-Identifier: GPL-2.0-or-later
"""Files that hold main streams: told by their first bytes, unpacked, and decoded."""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
import zstandard

from mfdtool.capture.container import Container, unpack
from mfdtool.capture.source import open_input, open_main
from mfdtool.errors import CaptureError, UnsupportedError
from mfdtool.packets.info import Format
from mfdtool.packets.save_image import HEADER_SIZE, MAGIC, PARTIAL_MAGIC, SaveFormat
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.span import Run
from mfdtool.workflows.reading import Input, Reading
from tests.support.qcow2_images import CLUSTER, ImageMaker
from tests.test_manifest import CAPTURES

STREAM = gzip.decompress((CAPTURES / "ram-file.stream.gz").read_bytes())
XML = b"<domain/>\0"
COMPRESS: dict[SaveFormat, Callable[[bytes], bytes]] = {
    SaveFormat.RAW: bytes,
    SaveFormat.GZIP: gzip.compress,
    SaveFormat.BZIP2: bz2.compress,
    SaveFormat.XZ: lzma.compress,
    SaveFormat.ZSTD: zstandard.compress,
}


def save_image(form: SaveFormat, stream: bytes, *, magic: bytes = MAGIC) -> bytes:
    """Make a save image of a stream that is compressed already."""
    return struct.pack("<16s5I56x", magic, 2, len(XML), 1, form, 0) + XML + stream


def disk(*states: bytes) -> bytes:
    """Make a disk image with a snapshot of each VM state."""
    maker = ImageMaker()
    for number, state in enumerate(states):
        maker.add(f"s{number}", len(state), maker.state(state))
    return maker.build()


def write(folder: Path, data: bytes) -> Path:
    path = folder / "input"
    path.write_bytes(data)
    return path


def content(runs: tuple[Run, ...]) -> bytes:
    """Give the bytes of runs, which must follow each other."""
    data = b""
    for run in runs:
        assert run.start == len(data)
        bounds = [*run.starts[1:], run.stop]
        for start, stop, offset in zip(run.starts, bounds, run.offsets, strict=True):
            data += run.buffer[offset : offset + stop - start]
        assert run.stop == len(data)
    return data


def unpacked(path: Path) -> tuple[Container, list[bytes]]:
    """Open and unpack a file; give what is in it, and the streams' bytes."""
    with ExitStack() as opening:
        source = opening.enter_context(open_input(path))
        container = unpack(source, opening)
        return container, [content(stream.runs) for stream in container.streams]


def decoded(path: Path) -> tuple[list[Frame], Reading]:
    """Decode a file as CAPTURE."""
    with Reading(Input(capture=str(path))) as reading:
        return list(reading.frames()), reading


@pytest.mark.parametrize("form", COMPRESS)
def test_save_image(tmp_path: Path, form: SaveFormat) -> None:
    path = write(tmp_path, save_image(form, COMPRESS[form](STREAM)))
    container, streams = unpacked(path)
    assert streams == [STREAM]
    start = HEADER_SIZE + len(XML)
    assert container.streams[0].origin == (start if form is SaveFormat.RAW else 0)
    assert container.remarks == (
        f"format {form.name.lower()}, saved running, XML of 9 bytes at 92, cookie of 0 bytes,"
        f" stream at {start}",
    )
    frames, reading = decoded(path)
    assert reading.complete
    assert reading.info.format is Format.LIBVIRT
    assert len(frames) == 1217
    with Reading(Input(main=path)) as again:
        assert list(again.frames()) == frames


@pytest.mark.parametrize("form", [form for form in COMPRESS if form is not SaveFormat.RAW])
def test_cut_save_image_gives_what_is_there(tmp_path: Path, form: SaveFormat) -> None:
    # What xz and bzip2 have compressed in one block is lost when the block is cut.
    stored = COMPRESS[form](STREAM)
    parts = COMPRESS[form](STREAM[:100_000]) + COMPRESS[form](STREAM[100_000:])[: len(stored) // 3]
    frames, reading = decoded(write(tmp_path, save_image(form, parts)))
    assert not reading.complete
    assert "the compressed data ends early" in str(reading.problems[0])
    assert sum(frame.kind is Kind.RAM_RECORD for frame in frames) > 500


@pytest.mark.parametrize("form", [form for form in COMPRESS if form is not SaveFormat.RAW])
def test_damage_before_any_content(tmp_path: Path, form: SaveFormat) -> None:
    path = write(tmp_path, save_image(form, b"not compressed" * 5))
    with pytest.raises(CaptureError, match="the compressed data is damaged"):
        Reading(Input(capture=str(path)))


@pytest.mark.parametrize("form", [form for form in COMPRESS if form is not SaveFormat.RAW])
def test_bomb_stops_at_the_limit(tmp_path: Path, form: SaveFormat) -> None:
    path = write(tmp_path, save_image(form, COMPRESS[form](STREAM + bytes(64 << 20))))
    assert path.stat().st_size < 200_000
    with pytest.raises(CaptureError, match="limit of 1000000 bytes"):
        Reading(Input(capture=str(path), limit=1_000_000))


def test_lzop_is_told_how_to_unpack(tmp_path: Path) -> None:
    path = write(tmp_path, save_image(SaveFormat.LZOP, b"\x89LZO"))
    with pytest.raises(UnsupportedError, match=r"by lzop: try 'tail -c \+103 .* \| lzop -d > ST"):
        Reading(Input(capture=str(path)))


def test_unfinished_save_image(tmp_path: Path) -> None:
    path = write(tmp_path, save_image(SaveFormat.RAW, STREAM[:5000], magic=PARTIAL_MAGIC))
    frames, reading = decoded(path)
    assert [problem.reason for problem in reading.problems] == ["the save was not finished"]
    assert len(frames) > 5
    assert not reading.complete
    with pytest.raises(CaptureError, match="ends where its stream should begin"):
        Reading(Input(capture=str(write(tmp_path, save_image(SaveFormat.RAW, b"")))))


def test_snapshots_are_migrations(tmp_path: Path) -> None:
    path = write(tmp_path, disk(STREAM, b"", STREAM[: 2 * CLUSTER]))
    container, streams = unpacked(path)
    assert streams == [STREAM, STREAM[: 2 * CLUSTER]]
    assert [stream.label for stream in container.streams] == ["s0", "s2"]
    assert container.remarks[1] == "snapshot 2 's1', 2023-11-14 22:13:20 UTC, VM state 0"
    frames, reading = decoded(path)
    assert {frame.channel.migration for frame in frames} == {0, 1}
    assert sum(frame.channel.migration == 0 for frame in frames) == 1217
    assert [channel.stream.length for channel in reading.unfinished] == [2 * CLUSTER]


def test_snapshot_with_zeroes(tmp_path: Path) -> None:
    maker = ImageMaker()
    state = STREAM[: 4 * CLUSTER]
    maker.add("s", len(state), maker.state(state, holes=frozenset({1, 2})))
    path = write(tmp_path, maker.build())
    assert unpacked(path)[1] == [state[:CLUSTER] + bytes(2 * CLUSTER) + state[3 * CLUSTER :]]
    with ExitStack() as opening:
        source = opening.enter_context(open_input(path))
        container = unpack(source, opening, limit=100)
        assert content(container.streams[0].runs) == state[:CLUSTER]
        assert container.problems[0].reason == "more zeroes than the limit allows"


def test_damaged_snapshot_gives_what_is_there(tmp_path: Path) -> None:
    maker = ImageMaker()
    maker.add("s", len(STREAM), maker.state(STREAM)[:3])
    container, streams = unpacked(write(tmp_path, maker.build()))
    assert streams == [STREAM[: 64 * CLUSTER]]
    assert "bytes of its VM state are not there" in str(container.problems[0])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (disk(), "a disk image: no snapshots"),
        (disk(b""), r"a disk image: has no snapshot with a VM state \(1 without\)"),
        (disk(STREAM[:100])[:-1024], "beyond the file's end"),
    ],
)
def test_image_without_any_stream(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        unpacked(write(tmp_path, data))


def test_raw_stream(tmp_path: Path) -> None:
    path = write(tmp_path, STREAM)
    container, streams = unpacked(path)
    assert streams == [STREAM]
    assert container.remarks == ()
    assert len(decoded(path)[0]) == 1217
    # Whatever is called a main stream is taken for one.
    with open_main(write(tmp_path, b"anything")) as source:
        assert source.kind is Format.RAW
    with pytest.raises(CaptureError, match="not a capture, it begins with 616e7974"):
        open_input(path)
