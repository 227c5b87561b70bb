# SPDX-License-Identifier: GPL-2.0-or-later
"""Opening files: plain, compressed, piped, damaged, and not captures at all."""

from __future__ import annotations

import errno
import gzip
import io
import os
import sys
import threading
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import zstandard

from mfdtool.capture.source import Source, open_capture, open_copy, open_raw
from mfdtool.errors import CaptureError
from mfdtool.packets import pcap
from mfdtool.packets.info import Format
from mfdtool.packets.pcapng_build import section_header

if TYPE_CHECKING:
    from collections.abc import Callable

CONTENT = pcap.file_header(linktype=1) + b"".join(
    pcap.record(Random(number).randbytes(100), time_ns=number) for number in range(50)
)


def zstd(data: bytes) -> bytes:
    """Compress into one frame with a check sum."""
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


SKIPPABLE = bytes.fromhex("502a4d18 03000000 616263")
COMPRESSED = {
    "gzip": gzip.compress(CONTENT),
    "gzip, three members": b"".join(
        gzip.compress(part) for part in (CONTENT[:2], CONTENT[2:700], CONTENT[700:])
    ),
    "gzip, an empty member": gzip.compress(CONTENT) + gzip.compress(b""),
    "gzip, padded with zeros": gzip.compress(CONTENT) + bytes(700),
    "zstd": zstd(CONTENT),
    "zstd, three frames": zstd(CONTENT[:2]) + zstd(CONTENT[2:700]) + zstd(CONTENT[700:]),
    "zstd, frames without data": SKIPPABLE + zstd(CONTENT) + SKIPPABLE,
}


def attempt(path: Path) -> Source | CaptureError:
    """Open a capture; give the error if it cannot be."""
    try:
        return open_capture(path)
    except CaptureError as error:
        return error


def write(folder: Path, data: bytes) -> Path:
    """Write a file to open."""
    path = folder / "input"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "kind"), [(CONTENT, Format.PCAP), (section_header(), Format.PCAPNG)]
)
def test_plain_capture(tmp_path: Path, data: bytes, kind: Format) -> None:
    path = write(tmp_path, data)
    with open_capture(path) as source:
        assert source.view == data
        assert source.view.readonly
        assert source.kind is kind
        assert source.path == str(path)
        assert source.problems == ()


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_capture(tmp_path: Path, name: str) -> None:
    with open_capture(write(tmp_path, COMPRESSED[name])) as source:
        assert source.view == CONTENT
        assert source.kind is Format.PCAP
        assert source.problems == ()


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_every_truncation_of_compressed_data(tmp_path: Path, name: str) -> None:
    data = COMPRESSED[name]
    opened = 0
    for size in range(4, len(data), 37):
        path = write(tmp_path, data[:size])
        source = attempt(path)
        if isinstance(source, CaptureError):
            assert "ends early" in str(source) or "not a capture" in str(source)
            continue
        with source:
            (problem,) = source.problems
            assert problem.reason == "the compressed data ends early"
            assert (problem.path, problem.offset) == (str(path), size)
            assert source.view == CONTENT[: len(source.view)]
            opened += 1
    # zstd makes one block of all this, which decompresses as a whole or not at all.
    assert opened > 100 or name == "zstd"


@pytest.mark.parametrize(
    ("data", "kept"),
    [
        pytest.param(gzip.compress(CONTENT) + b"rubbish", len(CONTENT), id="rubbish behind gzip"),
        pytest.param(zstd(CONTENT) + b"rubbish", len(CONTENT), id="rubbish behind zstd"),
        pytest.param(
            zstd(CONTENT) + zstd(CONTENT)[:-1] + b"\0",
            len(CONTENT),
            id="wrong check sum of the second frame",
        ),
    ],
)
def test_damage_keeps_what_came_before(tmp_path: Path, data: bytes, kept: int) -> None:
    with open_capture(write(tmp_path, data)) as source:
        assert kept <= len(source.view)
        assert source.view[:kept] == CONTENT
        (problem,) = source.problems
        assert problem.reason.startswith("the compressed data is damaged: ")


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bits_of_compressed_data(tmp_path: Path, seed: int) -> None:
    rng = Random(seed)
    data = bytearray(COMPRESSED[rng.choice(list(COMPRESSED))])
    data[rng.randrange(4, len(data))] ^= 1 << rng.randrange(8)
    source = attempt(write(tmp_path, bytes(data)))
    if isinstance(source, CaptureError):
        assert source.path.endswith("input")
        return
    with source:
        assert source.problems or source.view == CONTENT


def test_damage_before_any_content_is_the_error(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="compressed data is damaged"):
        open_capture(write(tmp_path, b"\x1f\x8b\xff\xff" + bytes(40)))


@pytest.mark.parametrize("data", [b"", gzip.compress(b""), zstd(b""), SKIPPABLE])
def test_empty_input(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path, data)
    with pytest.raises(CaptureError) as caught:
        open_capture(path)
    assert str(caught.value) == f"{path}: is empty"


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"QEVM\0\0\0\3", "begins with 5145564d (a raw main stream: use --main FILE)"),
        (b"\x11\x22\x33\x44\0", "11223344 (a raw multifd channel: use --multifd FILE)"),
        (b"\x7fELF\2\1", "begins with 7f454c46 (an ELF file)"),
        (b"\x16\x03\x01\x02", "begins with 16030102 (a raw TLS stream)"),
        (b"BZh91AY", "begins with 425a6839 (bzip2 data: decompress it first)"),
        (bytes(10), "(zeros, as of a file that was never written)"),
        (gzip.compress(b"QEVM"), "(a raw main stream: use --main FILE)"),
        (gzip.compress(gzip.compress(b"x")), "(gzip data inside compressed data: decompress"),
        (b"hi", "not a capture, it begins with 6869"),
    ],
)
def test_what_is_no_capture_is_named(tmp_path: Path, start: bytes, message: str) -> None:
    with pytest.raises(CaptureError) as caught:
        open_capture(write(tmp_path, start))
    assert "not a capture, it begins with " in str(caught.value)
    assert message in str(caught.value)


def test_raw_stream_may_be_anything_but_empty(tmp_path: Path) -> None:
    with open_raw(write(tmp_path, gzip.compress(b"QEVM and so on"))) as source:
        assert bytes(source.view) == b"QEVM and so on"
        assert source.kind is Format.RAW
    with pytest.raises(CaptureError, match="is empty"):
        open_raw(write(tmp_path, b""))


def test_limit_of_the_copy(tmp_path: Path) -> None:
    path = write(tmp_path, COMPRESSED["gzip"])
    with open_capture(path, limit=len(CONTENT)) as source:
        assert len(source.view) == len(CONTENT)
    with pytest.raises(CaptureError, match=f"limit of {len(CONTENT) - 1} bytes"):
        open_capture(path, limit=len(CONTENT) - 1)
    with open_capture(write(tmp_path, CONTENT), limit=1) as source:
        assert len(source.view) == len(CONTENT)


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_bomb_stops_at_the_limit(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = write(tmp_path, compress(CONTENT + bytes(64 << 20)))
    assert path.stat().st_size < 100_000
    with pytest.raises(CaptureError, match="limit of 1000000 bytes"):
        open_capture(path, limit=1_000_000)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="absent: No such file") as caught:
        open_capture(tmp_path / "absent")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    with pytest.raises(CaptureError, match="Is a directory"):
        open_capture(tmp_path)


@pytest.mark.parametrize("data", [CONTENT, COMPRESSED["zstd, three frames"]])
def test_standard_input(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    with open_capture("-") as source:
        assert source.view == CONTENT
        assert source.path == "-"
    assert not sys.stdin.buffer.closed


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(CaptureError, match="no standard input"):
        open_capture("-")


def test_named_pipe(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(CONTENT,))
    writer.start()
    try:
        with open_capture(path) as source:
            assert source.view == CONTENT
    finally:
        writer.join()


def test_close_twice_and_view_afterwards(tmp_path: Path) -> None:
    source = open_capture(write(tmp_path, CONTENT))
    slice_that_stays = source.view[:4]
    source.close()
    source.close()
    with pytest.raises(ValueError, match="released"):
        source.view[:1]
    assert slice_that_stays == CONTENT[:4]


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 1 << 40), (0, 4096), (5000, 9000), (1, 2), (9000, 5000), (0, 0)]
)
def test_dropped_pages_can_be_read_again(tmp_path: Path, start: int, stop: int) -> None:
    data = CONTENT * 10
    with open_capture(write(tmp_path, data)) as source:
        assert source.view == data
        source.drop_pages(start, stop)
        assert source.view == data


def test_no_room_for_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def map_nothing(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr("mfdtool.capture.source.mmap.mmap", map_nothing)
    with pytest.raises(CaptureError, match="image: Cannot allocate memory"):
        open_copy([b"content"], "image", problems=[])
