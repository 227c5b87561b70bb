# SPDX-License-Identifier: GPL-2.0-or-later
"""Payload that waits in a pipe: what is taken is given out, in order, and nothing stays behind."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from threading import Thread

import pytest

from mfdtool.fixtures.assemble import assemble
from mfdtool.fixtures.plan import Device, Plan
from mfdtool.live.proxy import tap
from mfdtool.live.proxy.chunks import Chunk
from mfdtool.live.proxy.pump import CopyingPump
from mfdtool.live.proxy.tap import Interleaved, Pipe, Tap, Tapped
from tests.live.test_proxy import options, recorded
from tests.support.proxying import running, send_all

DATA = Random(5).randbytes(100_000)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    found = Pipe()
    yield found
    found.close()


def take(into: Tap, pipe: Pipe, data: bytes) -> Tapped:
    """Let bytes pass the pipe, and the tap have them, too."""
    os.write(pipe.begin, data)
    taken = into.take(pipe, len(data))
    assert taken is not None
    assert os.read(pipe.end, len(data)) == data, "they stay in the pipe"
    return taken


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("splices", [True, False])
def test_bytes_go_to_a_place_in_a_file(
    tmp_path: Path, pipe: Pipe, monkeypatch: pytest.MonkeyPatch, *, splices: bool
) -> None:
    if not splices:

        def splice(*_: object, **__: object) -> int:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        monkeypatch.setattr(os, "splice", splice)
    into = Tap()
    first, second = take(into, pipe, DATA[:40_000]), take(into, pipe, DATA[40_000:])
    assert (len(first), first.left) == (40_000, 40_000)
    texts = [b"one", b"", b"three", b"four"]
    part = Interleaved(texts, first, [15_000, 15_000, 10_000])
    assert len(part) == 40_012
    with (tmp_path / "file").open("w+b") as file:
        part.write_to(file.fileno(), 7)
        assert first.left == 0
        second.write(len(second), file.fileno(), 40_019)
        first_piece, second_piece, third_piece = DATA[:30_000], DATA[30_000:40_000], DATA[40_000:]
        assert file.read() == b"".join(
            (bytes(7), b"one", first_piece, b"three", second_piece, b"four", third_piece)
        )
    into.close()


def test_what_is_forgotten_is_not_given_out(tmp_path: Path, pipe: Pipe) -> None:
    into = Tap()
    first, second = take(into, pipe, DATA[:1000]), take(into, pipe, DATA[1000:1500])
    with (tmp_path / "file").open("w+b") as file:
        first.write(300, file.fileno(), 0)
        assert first.left == 700
        first.discard()
        first.discard()
        second.write(500, file.fileno(), 300)
        assert file.read() == DATA[:300] + DATA[1000:1500]
    into.close()


def test_a_file_that_cannot_be_written(tmp_path: Path, pipe: Pipe) -> None:
    path = tmp_path / "file"
    path.touch()
    into = Tap()
    taken = take(into, pipe, DATA[:1000])
    with path.open("rb") as file, pytest.raises(OSError, match="Bad file descriptor"):
        taken.write(1000, file.fileno(), 0)
    assert taken.left == 1000
    taken.discard()
    into.close()


def test_the_pipe_lives_until_all_is_given_out(pipe: Pipe) -> None:
    into = Tap()
    taken = take(into, pipe, DATA[:1000])
    ends = into._pipe.end, into._pipe.begin
    into.close()
    assert all(map(is_open, ends))
    taken.discard()
    assert not any(map(is_open, ends))
    empty = Tap()
    ends = empty._pipe.end, empty._pipe.begin
    empty.close()
    assert not any(map(is_open, ends))


def test_a_full_tap_has_room_again_when_half_of_it_is_given_out(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tap, "PIPE_SIZE", 1 << 16)
    into = Tap()
    taken = [take(into, pipe, bytes(4096)) for _ in range(16)]
    os.write(pipe.begin, b"more")
    assert into.take(pipe, 4) is None
    assert not into.has_room(0)
    for each in taken[:7]:
        each.discard()
    assert not into.has_room(0.01), "nobody wakes up for each page"

    def go_on() -> None:
        for each in taken[7:12]:
            each.discard()

    thread = Thread(target=go_on)
    thread.start()
    assert into.has_room(20)
    thread.join()
    assert into.take(pipe, 4) is not None
    assert os.read(pipe.end, 10) == b"more"


def test_pipes_are_as_large_as_they_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    real = fcntl.fcntl

    def limited(descriptor: int, command: int, argument: int = 0) -> int:
        if argument > 1 << 18:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return real(descriptor, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", limited)
    found = Pipe()
    assert real(found.begin, fcntl.F_GETPIPE_SZ) == 1 << 18
    found.close()


SECRETS = [Random(n).randbytes(300_000) for n in range(4)]
MIGRATION = assemble(Plan(channels=2, devices=[Device(buffers=[*SECRETS, b"short"] * 3)]))
STREAMS = {name: MIGRATION.stream(name) for name in MIGRATION.connections}


@pytest.mark.parametrize("piece", [1 << 20, 65_537, 5000])
def test_long_payload_is_recorded_without_being_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    read: list[int] = []
    record = CopyingPump._record

    def seen(self: CopyingPump, data: memoryview, chunk: Chunk | None) -> None:
        read.append(len(data))
        record(self, data, chunk)

    monkeypatch.setattr(CopyingPump, "_record", seen)
    path = tmp_path / "run.pcapng"
    with running(path, options()) as setup:
        send_all(setup, STREAMS, piece=piece)
    assert sorted(setup.destination.received) == sorted(STREAMS.values())
    assert not setup.recording.losses
    assert sorted(data for data, _, _ in recorded(path)[0]) == sorted(STREAMS.values())
    # A chunk or two of each channel's beginning, and what is behind short packets.
    assert sum(read) < sum(map(len, STREAMS.values())) / 2


@pytest.mark.parametrize("kind", ["Pipe", "Tap"])
@pytest.mark.parametrize("redact", [False, True])
def test_without_pipes_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, *, redact: bool
) -> None:
    def refuse() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(f"mfdtool.live.proxy.pump.{kind}", refuse)
    path = tmp_path / "run.pcapng"
    with running(path, options(redact=redact)) as setup:
        send_all(setup, STREAMS)
    assert sorted(setup.destination.received) == sorted(STREAMS.values())
    assert not setup.recording.losses
    found = [(len(data), missing) for data, missing, _ in recorded(path)[0]]
    assert sum(map(sum, found)) == sum(map(len, STREAMS.values()))
    assert all(missing == 0 for _, missing in found) != redact
