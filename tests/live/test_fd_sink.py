# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing to real descriptors: short writes, and all ways in which they fail."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Thread

import pytest

from mfdtool.errors import SinkError
from mfdtool.live.fd_sink import FdSink
from mfdtool.loader.blob import Blob, blob_of
from mfdtool.replay.sink import Order

PIPE_SIZE = 4096
LARGE = bytes(range(256)) * 1024


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Give both ends of a small pipe."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    try:
        yield reader, writer
    finally:
        for end in (reader, writer):
            try:
                os.close(end)
            except OSError:
                # The test has closed it.
                continue


def split(data: bytes, *places: int) -> Blob:
    """Make a blob of several parts."""
    bounds = [0, *places, len(data)]
    parts = [data[low:high] for low, high in pairwise(bounds)]
    return Blob(len(data), ("multifd-0", 0), 0, tuple(map(memoryview, parts)))


def test_slow_reader_gets_everything_in_order() -> None:
    received: list[bytes] = []

    def read(end: int) -> None:
        while part := os.read(end, 1000):
            received.append(part)

    with pipe() as (reader, writer):
        thread = Thread(target=read, args=(reader,))
        thread.start()
        with FdSink(writer, 0) as sink:
            assert sink.write(0, None, blob_of(b"first")) == 0
            assert sink.write(0, 0, split(LARGE, 1, 70_000, 70_001)) == 0
            assert sink.write(0, 1, blob_of(b"last")) == 0
            assert sink.written == len(LARGE) + 9
        os.close(writer)
        thread.join()
    assert b"".join(received) == b"first" + LARGE + b"last"
    assert sink.failure == ""


def test_short_writes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:7]))
    with (tmp_path / "out").open("wb") as file, FdSink(file.fileno(), 0) as sink:
        assert sink.write(0, 0, split(LARGE, 100)) == 0
    assert (tmp_path / "out").read_bytes() == LARGE


def test_descriptor_that_would_block_is_not_waited_for() -> None:
    with pipe() as (reader, writer):
        os.set_blocking(writer, False)
        with FdSink(writer, 0) as sink:
            assert sink.write(0, 3, blob_of(LARGE)) == errno.EAGAIN
        assert sink.written == PIPE_SIZE
        assert sink.failure == (
            f"idx 3: {PIPE_SIZE} of {len(LARGE)} bytes written, then errno 11 (Resource temporarily"
            " unavailable); it is non-blocking, and QEMU does not wait"
        )
        assert os.read(reader, 2 * PIPE_SIZE) == LARGE[:PIPE_SIZE]


def test_pipe_without_reader_kills_nobody() -> None:
    with pipe() as (reader, writer):
        os.close(reader)
        with FdSink(writer, 0) as sink:
            assert sink.write(0, 0, blob_of(b"data")) == errno.EPIPE
    assert sink.failure == "idx 0: 0 of 4 bytes written, then errno 32 (Broken pipe)"


def test_full_device_and_the_first_failure() -> None:
    with Path("/dev/full").open("wb", buffering=0) as file, FdSink(file.fileno(), 0) as sink:
        assert sink.write(0, None, blob_of(b"data")) == errno.ENOSPC
        assert sink.write(0, 0, blob_of(b"data")) == errno.ENOSPC
    assert sink.failure.startswith("data of the main stream: 0 of 4 bytes written, then errno 28")


def test_descriptors_that_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with path.open("rb") as file, pytest.raises(SinkError, match="for reading only"):
        FdSink(file.fileno(), 0).__enter__()
    with pytest.raises(SinkError, match="fd:987: Bad file descriptor") as raised:
        FdSink(987, 0).__enter__()
    assert isinstance(raised.value.__cause__, OSError)


def test_descriptor_stays_open_and_other_devices_are_not_its() -> None:
    with pipe() as (reader, writer):
        with FdSink(writer, 1) as sink:
            assert (sink.name, sink.order) == (f"fd:{writer}", Order.EXACT)
            assert sink.write(0, 0, blob_of(b"other")) is None
            assert sink.write(1, 0, blob_of(b"ours")) == 0
        os.write(writer, b"!")
        assert os.read(reader, 100) == b"ours!"


def test_missing_bytes_are_never_made_up() -> None:
    view = memoryview(b"abcd")
    with pipe() as (reader, writer), FdSink(writer, 0) as sink:
        assert sink.write(0, 0, blob_of(b"whole")) == 0
        holed = Blob(10, ("multifd-0", 7), 6, (view,))
        with pytest.raises(SinkError, match="idx 1: 6 of 10 bytes were not captured; 5 bytes"):
            sink.write(0, 1, holed)
        os.close(writer)
        assert os.read(reader, 100) == b"whole"


def test_write_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with pipe() as (_, writer), FdSink(writer, 0) as sink:
        monkeypatch.setattr(os, "write", lambda fd, data: 0)
        assert sink.write(0, None, blob_of(b"data")) == errno.EIO
        with pytest.raises(SinkError, match="QEMU would try for ever"):
            sink.write(0, 0, blob_of(b"data"))
        assert sink.write(0, 0, blob_of(b"")) == 0
