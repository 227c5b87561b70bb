# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of a recording: whole blocks, reserved space, several files, and no space at all."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import pytest

from mfdtool.errors import CaptureError
from mfdtool.live.proxy import file as module
from mfdtool.live.proxy.file import CLOSING, CaptureFile
from mfdtool.live.proxy.segments import FRAME_PAYLOAD, Block, Builder, Segment
from mfdtool.live.syscalls import reserve
from mfdtool.packets.info import CaptureInfo, Statistics
from mfdtool.packets.ip import segment_of
from mfdtool.packets.pcapng import Reader
from mfdtool.packets.values import Endpoint, FlowKey
from mfdtool.packets.values import Segment as Captured
from tests.support.programs import need_program

FLOW: Final = FlowKey(Endpoint(bytes((10, 0, 0, 1)), 40000), Endpoint(bytes((10, 0, 0, 2)), 4444))
FLOW6: Final = FlowKey(Endpoint(bytes(15) + b"\1", 40000), Endpoint(bytes(15) + b"\2", 4444))
STATISTICS: Final = Statistics(0, received=1, dropped_by_interface=0, delivered=1)
TIME: Final = 1_700_000_000_123_456_789


def block(position: int, size: int, *, flow: FlowKey = FLOW) -> Block:
    segment = Segment(TIME, position, 0)
    return Builder(flow).blocks(segment, memoryview(bytes([size % 251]) * size))


def segments(path: Path) -> tuple[list[Captured], CaptureInfo]:
    """What a reader finds; damage raises."""
    data = memoryview(path.read_bytes())
    reader = Reader(data)
    found = [segment_of(record, data) for record in reader]
    assert all(isinstance(segment, Captured) for segment in found)
    return [segment for segment in found if isinstance(segment, Captured)], reader.info


@pytest.mark.parametrize("flow", [FLOW, FLOW6])
@pytest.mark.parametrize("size", [1, 2, 3, 4, FRAME_PAYLOAD, FRAME_PAYLOAD + 1, 3 * FRAME_PAYLOAD])
def test_segments_tile_what_was_given(tmp_path: Path, flow: FlowKey, size: int) -> None:
    path = tmp_path / "f.pcapng"
    file = CaptureFile(path, comments=["hello"])
    # Across 4 GiB: sequence numbers wrap.
    start = (1 << 32) - 500
    assert file.write([block(start, size, flow=flow)]) == 1
    file.close(STATISTICS, comments=["bye"])
    found, info = segments(path)
    assert [segment.flow for segment in found] == [flow] * len(found)
    assert [segment.length for segment in found] == [segment.captured for segment in found]
    position = 0
    for segment in found:
        assert segment.sequence == (1001 + start + position) % (1 << 32)
        assert segment.time_ns == TIME
        position += segment.length
    assert position == size
    assert [comment.text for comment in info.comments] == ["hello", "bye"]
    assert info.statistics[0] == STATISTICS
    assert path.stat().st_blocks * 512 < module.STEP, "reserved space is given back"


def test_unseen_payload_is_a_cut_frame(tmp_path: Path) -> None:
    path = tmp_path / "f.pcapng"
    file = CaptureFile(path)
    for length in (5, 70_000, 1 << 30):
        file.write([Builder(FLOW).block(Segment(TIME, 7, 3), length)])
    file.close(STATISTICS)
    found, _ = segments(path)
    assert [(segment.captured, segment.length) for segment in found] == [
        (0, 5),
        (0, 70_000),
        (0, 1 << 30),
    ]


def test_killed_at_any_byte_it_reads_up_to_the_last_whole_block(tmp_path: Path) -> None:
    path = tmp_path / "f.pcapng"
    file = CaptureFile(path)
    for number in range(4):
        file.write([block(number * 10, 10)])
    whole = path.read_bytes()
    ends = [len(whole) - 84 * left for left in range(5)]
    for stop in range(ends[-1], len(whole)):
        reader = Reader(memoryview(whole[:stop]))
        is_cut = stop not in ends
        with pytest.raises(CaptureError, match="ends inside") if is_cut else nullcontext():
            list(reader)
        assert reader.records == sum(end <= stop for end in ends) - 1
    file.close(STATISTICS)


def test_capinfos_reads_a_file_whose_writer_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "f.pcapng"
    file = CaptureFile(path, preallocate=1 << 20)
    file.write([block(0, 10), block(10, 10)])
    # Nothing was closed: space is still reserved behind the end, and no zeroes are there.
    result = subprocess.run(
        [need_program("capinfos"), "-M", "-c", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Number of packets:   2" in result.stdout
    file.close(STATISTICS)


def test_rotation(tmp_path: Path) -> None:
    file = CaptureFile(tmp_path / "run.pcapng", max_size=1 << 20, max_files=3)
    size = FRAME_PAYLOAD
    for number in range(64):
        assert file.write([block(number * size, size)]) == 1
    file.close(STATISTICS)
    assert [path.name for path in file.paths] == ["run.2.pcapng", "run.3.pcapng", "run.4.pcapng"]
    assert sorted(tmp_path.iterdir()) == sorted(file.paths)
    positions = []
    for path in file.paths:
        assert path.stat().st_size <= 1 << 20
        positions += [segment.sequence for segment in segments(path)[0]]
    assert positions == list(range(positions[0], 1001 + 64 * size, size))


def test_a_block_larger_than_a_file_is_written_all_the_same(tmp_path: Path) -> None:
    file = CaptureFile(tmp_path / "run.pcapng", max_size=1 << 15)
    assert file.write([block(0, 1 << 17), block(1 << 17, 10)]) == 2
    file.close(STATISTICS)
    assert len(file.paths) == 2


def test_a_block_of_more_parts_than_a_system_call_takes(tmp_path: Path) -> None:
    """Such a one is a vmdescription of a main stream that is redacted."""
    path = tmp_path / "run.pcapng"
    file = CaptureFile(path)
    size = 600 * FRAME_PAYLOAD + 1
    assert file.write([block(0, 10), block(10, size), block(10 + size, 10)]) == 3
    file.close(STATISTICS)
    assert file.paths == [path]
    found, _ = segments(path)
    assert sum(segment.captured for segment in found) == size + 20


def failing(monkeypatch: pytest.MonkeyPatch, limit: int, *, reserves: bool) -> Callable[[], None]:
    """Make a file system that has only so many bytes; give what makes it roomy again."""
    real = os.pwritev
    room = [limit]

    def pwritev(file: int, buffers: list[Any], offset: int) -> int:
        data = b"".join(bytes(buffer) for buffer in buffers)
        allowed = data[: max(room[0] - offset, 0)]
        if not allowed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, [allowed], offset)

    def reserve_some(file: int, offset: int, length: int) -> None:
        if not reserves:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if offset + length > room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        reserve(file, offset, length)

    monkeypatch.setattr(os, "pwritev", pwritev)
    monkeypatch.setattr(module, "reserve", reserve_some)
    return lambda: room.__setitem__(0, 1 << 40)


def failure_of(file: CaptureFile) -> int | None:
    """Why not all was written."""
    return file.failure.errno if file.failure is not None else None


@pytest.mark.parametrize("limit", [1000, 1001, 1099, 5000])
def test_without_space_a_block_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    roomy = failing(monkeypatch, limit, reserves=False)
    path = tmp_path / "f.pcapng"
    file = CaptureFile(path)
    blocks = [block(number * 100, 100) for number in range(100)]
    done = file.write(blocks)
    assert 0 < done < 100
    assert failure_of(file) == errno.ENOSPC
    assert len(segments(path)[0]) == done
    assert path.stat().st_size <= limit
    roomy()
    assert file.write(blocks[done:]) == 100 - done
    assert failure_of(file) is None
    file.close(STATISTICS)
    assert len(segments(path)[0]) == 100


def test_the_last_words_have_space_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 3 << 20
    failing(monkeypatch, limit, reserves=True)
    path = tmp_path / "f.pcapng"
    file = CaptureFile(path, preallocate=1 << 20)
    size = FRAME_PAYLOAD
    done = file.write([block(number * size, size) for number in range(100)])
    assert file.failure is not None
    assert 0 < done < 100
    assert path.stat().st_size <= limit - CLOSING
    file.close(STATISTICS, comments=["no space"])
    found, info = segments(path)
    assert len(found) == done
    assert [comment.text for comment in info.comments] == ["no space"]


def test_another_file_that_there_is_no_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not stay there, empty; the next time there may be room."""
    size = 1 << 15
    file = CaptureFile(tmp_path / "run.pcapng", max_size=2 * size)
    blocks = [block(number * size, size) for number in range(3)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", lambda *arguments: 0)
        assert file.write(blocks) == 1
    assert failure_of(file) == errno.ENOSPC
    assert file.paths == list(tmp_path.iterdir())
    assert file.write(blocks[1:]) == 2
    file.close(STATISTICS)
    assert sorted(file.paths) == sorted(tmp_path.iterdir())


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="not a regular file"):
        CaptureFile(Path(os.devnull))
    with pytest.raises(FileNotFoundError, match="none"):
        CaptureFile(tmp_path / "none" / "f.pcapng")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="pipe") as raised:
        CaptureFile(pipe)
    assert raised.value.errno == errno.ENXIO, "nobody is waited for"


def test_a_file_that_another_recorder_writes(tmp_path: Path) -> None:
    path = tmp_path / "run.pcapng"
    first = CaptureFile(path)
    first.write([block(0, 500)])
    before = path.read_bytes()
    with pytest.raises(OSError, match="another recorder is writing it") as raised:
        CaptureFile(path)
    assert (raised.value.errno, raised.value.filename) == (errno.EBUSY, str(path))
    assert path.read_bytes() == before
    first.close(STATISTICS)
    CaptureFile(path).close(STATISTICS)


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(file: int, operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", flock)
    path = tmp_path / "run.pcapng"
    CaptureFile(path).close(STATISTICS)
    assert path.stat().st_size > 0


def test_reserving_says_what_is_wrong() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        reserve(-1, 0, 4096)
