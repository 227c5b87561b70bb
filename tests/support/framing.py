# SPDX-License-Identifier: GPL-2.0-or-later
"""The one way in which all framer tests run a framer: every split, every cut, every gap.

Whatever a stream holds, its frames account for it: see `assert_accounts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Final

from mfdtool.stream.frames import Frame, Framer, Kind
from mfdtool.stream.reader import Reader
from mfdtool.stream.span import End, EndReason, Gap, Run, run_of

MakeFramer = Callable[[Reader], Framer]
"""Makes a new framer that has seen nothing."""

NOT_CAPTURED: Final = "not captured"
RECORD: Final = 1
TIME: Final = 10

_EVERY: Final = 400
"""Streams up to this length are cut at every position, longer ones at a choice of positions."""

_CHOICE: Final = 120


@dataclass(frozen=True, slots=True)
class Hole:
    """Positions ``start`` to ``stop`` of a stream that are withheld from the framer."""

    start: int
    stop: int

    def inside(self, start: int, stop: int) -> int:
        """Count its positions between two others."""
        return max(0, min(stop, self.stop) - max(start, self.start))


def stretches(
    data: bytes, cuts: Iterable[int] = (), *, holes: Sequence[Hole] = ()
) -> list[Run | Gap]:
    """Cut a stream into runs at some positions, with gaps where the holes are."""
    bounds = {0, len(data), *cuts}
    for hole in holes:
        bounds -= set(range(hole.start, hole.stop))
        bounds |= {hole.start, hole.stop}
    ordered = sorted(bounds)
    starts = {hole.start for hole in holes}
    return [
        Gap(start, stop, NOT_CAPTURED)
        if start in starts
        else run_of(data[start:stop], start=start, record=RECORD, time_ns=TIME)
        for start, stop in pairwise(ordered)
    ]


def run(
    make: MakeFramer,
    items: Sequence[Run | Gap],
    *,
    reason: EndReason = EndReason.FIN,
    keeps: bool = True,
) -> list[Frame]:
    """Feed a framer one stretch after another, then the end; give all its frames."""
    reader = Reader(keeps=keeps)
    framer = make(reader)
    generator = framer.frames()
    frames: list[Frame] = []

    def pump() -> None:
        for frame in generator:
            if frame is None:
                return
            frames.append(frame)

    for item in items:
        reader.feed(item)
        pump()
    reader.feed(End(reader.fed, reason, RECORD, TIME))
    pump()
    assert next(generator, "over") == "over", "a framer must end with its stream"
    assert framer.waiting_since is None
    return frames


def cut(make: MakeFramer, data: bytes, *, reason: EndReason = EndReason.FIN) -> list[Frame]:
    """Run a framer over a stream that comes in one piece, and check that all is accounted for."""
    frames = run(make, stretches(data), reason=reason)
    assert_accounts(frames, data)
    return frames


def check(make: MakeFramer, data: bytes) -> list[Frame]:
    """Prove that a framer does not depend on how the stream arrives, nor on all of it arriving.

    Gives the frames of the whole stream.
    """
    frames = cut(make, data)
    points = _points(frames, data)
    assert_unsplittable(make, data, frames, points)
    for point in points:
        part = data[:point]
        assert_accounts(run(make, stretches(part), reason=EndReason.CAPTURE), part)
        for width in (1, 9):
            holes = [Hole(point, min(point + width, len(data)))]
            assert_accounts(run(make, stretches(data, holes=holes)), data, holes=holes)
    return frames


def assert_unsplittable(
    make: MakeFramer, data: bytes, frames: list[Frame], points: Iterable[int]
) -> None:
    """Demand the same frames byte by byte, split at each point, and split at random."""
    random = Random(len(data))
    step = 1 if len(data) <= 10 * _EVERY else 61
    splits = [range(0, len(data), step), *((point,) for point in points)]
    splits += [
        random.sample(range(len(data)), random.randint(0, min(20, len(data)))) for _ in range(10)
    ]
    for positions in splits:
        assert run(make, stretches(data, positions)) == frames, list(positions)[:20]


def assert_accounts(frames: list[Frame], data: bytes, *, holes: Sequence[Hole] = ()) -> None:
    """Demand that frames cover every byte of a stream exactly once, and tell of every gap.

    Frames come in stream order and are numbered so; a byte that is there is in exactly one; a
    byte that is not there is in the one frame that reports the gap, and counted as missing by
    the frame around it, if there is one.
    """
    gaps = [frame for frame in frames if frame.kind is Kind.GAP]
    assert [Hole(frame.offset, frame.end) for frame in gaps] == list(holes)
    solid = [frame for frame in frames if frame.kind is not Kind.GAP]
    assert [frame.number for frame in solid] == list(range(len(solid)))
    position = 0
    for frame in solid:
        assert frame.offset - position == _lacking(holes, position, frame.offset), frame
        position = min(frame.end, len(data))
        _assert_frame(frame, data, holes)
        assert frame.end <= len(data) or frame is solid[-1], frame
    assert len(data) - position == _lacking(holes, position, len(data)), solid[-1:]


def _assert_frame(frame: Frame, data: bytes, holes: Sequence[Hole]) -> None:
    stop = min(frame.end, len(data))
    lacking = _lacking(holes, frame.offset, stop)
    assert frame.length > 0
    assert frame.missing == lacking + frame.end - stop, frame
    assert frame.complete is (frame.missing == 0)
    assert bool(frame.reason) is (bool(frame.missing) or frame.kind is Kind.UNDECODED), frame
    assert (frame.record, frame.time_first, frame.time_last) == (RECORD, TIME, TIME), frame
    if frame.payload is not None:
        assert frame.offset <= frame.payload.start <= frame.payload.stop == frame.end, frame
    assert all(
        bytes(extent.view) == data[extent.start : extent.start + len(extent.view)]
        for extent in frame.extents
    )
    assert sum(len(extent.view) for extent in frame.extents) == stop - frame.offset - lacking
    if not lacking:
        assert frame.data() == data[frame.offset : stop], frame


def _lacking(holes: Sequence[Hole], start: int, stop: int) -> int:
    return sum(hole.inside(start, stop) for hole in holes)


def _points(frames: list[Frame], data: bytes) -> list[int]:
    """Choose where to cut: everywhere, or around the ends of frames and headers and at random."""
    if len(data) <= _EVERY:
        return list(range(len(data)))
    random = Random(len(data))
    edges = {frame.offset for frame in frames}
    edges |= {frame.payload.start for frame in frames if frame.payload is not None}
    near = {edge + step for edge in edges for step in (-1, 0, 1, 8, 12, 36)}
    chosen = {point for point in near if 0 <= point < len(data)}
    if len(chosen) > _CHOICE:
        chosen = set(random.sample(sorted(chosen), _CHOICE))
    return sorted(chosen | set(random.sample(range(len(data)), 30)))
