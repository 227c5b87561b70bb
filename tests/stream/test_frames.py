# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames: their bytes, and the loss and numbering that all framers share."""

from __future__ import annotations

from inspect import isabstract

from mfdtool.stream.frames import ChannelId, Frame, Framer, Frames, Kind
from mfdtool.stream.reader import Extent, Reader
from mfdtool.stream.span import End, EndReason, Gap, Span, run_of

CHANNEL = ChannelId(2, "multifd-1")


def frame_of(*extents: tuple[int, bytes], offset: int = 10, length: int = 10) -> Frame:
    """Give a frame whose bytes are in some extents."""
    missing = length - sum(len(data) for _, data in extents)
    views = tuple(Extent(start, memoryview(data)) for start, data in extents)
    return Frame(Kind.MULTIFD_RAM, CHANNEL, 0, offset, length, 1, 2, 3, missing, extents=views)


def test_channel_name() -> None:
    assert str(CHANNEL) == "multifd-1"


def test_kinds_are_what_decode_shows() -> None:
    assert str(Kind.MULTIFD_DEVICE_STATE) == "multifd.device_state"
    assert len(Kind) == 20


def test_data() -> None:
    frame = frame_of((10, b"01234"), (15, b"56789"))
    assert (frame.complete, frame.end) == (True, 20)
    assert frame.data() == b"0123456789"
    assert frame.data(Span(13, 17)) == b"3456"
    assert frame.data(Span(16, 20)) == b"6789"
    assert frame.data(Span(15, 15)) == b""
    assert frame.data(limit=7) == b"0123456"
    assert frame.data(Span(13, 17), limit=2) == b"34"


def test_data_stops_where_bytes_are_missing() -> None:
    frame = frame_of((10, b"012"), (15, b"56789"))
    assert (frame.complete, frame.missing) == (False, 2)
    assert frame.data() == b"012"
    assert frame.data(Span(12, 20)) == b"2"
    assert frame.data(Span(13, 20)) == b""
    assert frame.data(Span(15, 20)) == b"56789"
    assert frame_of().data() == b""


def test_extents_do_not_make_frames_differ() -> None:
    assert frame_of((10, b"0123456789")) == frame_of((10, b"9876543210"))
    assert "memory" not in repr(frame_of((10, b"0123456789")))


class Lost(Framer):
    """Loses everything up to the next exclamation mark."""

    def frames(self) -> Frames:
        yield from self._lose(self._find, "no exclamation")
        yield from self._lose_rest("never mind")

    def _find(self, start: int) -> tuple[int | None, int]:
        at = self.reader.find(b"!", start)
        return (at, at) if at >= 0 else (None, self.reader.fed)


def shape(frames: list[Frame]) -> list[tuple[Kind, int, int, int, int | None, str]]:
    """Give what matters of lost bytes: kind, place, record, number, reason."""
    return [
        (frame.kind, frame.offset, frame.end, frame.record, frame.number, frame.reason)
        for frame in frames
    ]


def test_lost_bytes_are_one_frame_however_they_arrive() -> None:
    reader = Reader()
    generator = Lost(reader, CHANNEL).frames()
    frames: list[Frame] = []
    items = (
        run_of(b"abc", record=1, time_ns=10),
        run_of(b"def", start=3, record=2, time_ns=20),
        Gap(6, 8, "segment missing"),
        run_of(b"ghi", start=8, record=4, time_ns=40),
        run_of(b"jk!rest", start=11, record=5, time_ns=50),
        End(18, EndReason.FIN, 5, 50),
    )
    for item in items:
        reader.feed(item)
        for frame in generator:
            if frame is None:
                break
            frames.append(frame)
    assert shape(frames) == [
        (Kind.UNDECODED, 0, 6, 2, 0, "no exclamation"),
        (Kind.GAP, 6, 8, 2, None, "segment missing"),
        (Kind.UNDECODED, 8, 13, 5, 1, "no exclamation"),
        (Kind.UNDECODED, 13, 18, 5, 2, "never mind"),
    ]
    assert [frame.time_first for frame in frames if frame.kind is Kind.UNDECODED] == [10, 40, 50]


def test_at_least_one_byte_is_lost() -> None:
    reader = Reader()
    reader.feed(run_of(b"!a!"))
    first = next(Lost(reader, CHANNEL).frames())
    assert first is not None
    assert (first.offset, first.end) == (0, 2)


def test_a_framer_is_abstract() -> None:
    assert isabstract(Framer)
    assert not isabstract(Lost)
