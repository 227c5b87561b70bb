# SPDX-License-Identifier: GPL-2.0-or-later
"""Channels and the vmdescription, and what extractors share."""

from __future__ import annotations

from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.connections import Opening
from mfdtool.stream.extraction import (
    REMARKS_LIMIT,
    ChannelExtractor,
    DescriptionExtractor,
    Hole,
    Remarks,
)
from mfdtool.stream.frames import Kind
from mfdtool.stream.migration import Decoder
from mfdtool.stream.span import Span, run_of
from mfdtool.wire.main_stream import FileHeader, VmDescriptionHeader
from tests.stream.test_device_data import take
from tests.support.made_frames import Maker
from tests.support.script import Script
from tests.support.streams import device_packet, sync_packet

TEXT = b'{"page_size": 4096, "devices": []}'


def test_channel_of_a_decoder() -> None:
    data = FileHeader().build() + b"\0" + VmDescriptionHeader(length=len(TEXT)).build() + TEXT
    decoder = Decoder(keep_extents=True)
    decoder.add(ChannelKind.MAIN, run_of(data))
    frames = decoder.finish()
    (migration,) = decoder.migrations
    extractor = ChannelExtractor(0, "main")
    assert take(extractor, frames, migration) == [data]
    assert take(DescriptionExtractor(0), frames, migration) == [TEXT]


def test_channel_with_holes() -> None:
    make, extractor = Maker(), ChannelExtractor(0, "multifd-0")
    frames = [
        make.packet(0, b"data", hole=Span(1, 3)),
        make.switchover(),
        make.gap(5, channel="multifd-0"),
        make.frame(Kind.UNDECODED, b"??", channel="multifd-0"),
    ]
    pieces = take(extractor, frames)
    assert pieces[1:] == [
        Hole("multifd-0: bytes 289-290", 2),
        b"a",
        Hole("multifd-0: bytes 292-296", 5),
        b"??",
    ]
    assert isinstance(pieces[0], bytes)
    assert len(pieces[0]) == 289
    assert extractor.found


def test_end_of_channel_is_missing() -> None:
    decoder = Decoder(keep_extents=True)
    decoder.add(ChannelKind.MAIN, run_of(FileHeader().build()))
    extractor = ChannelExtractor(0, "main")
    assert take(extractor, [], decoder.migrations[0]) == [Hole("main: bytes 0-7", 8)]
    assert extractor.wanted() == "no channel main; there are none"


def test_channel_that_a_capture_has_a_part_of() -> None:
    script = Script()
    script.connect(opening=Opening.MIDDLE, data=sync_packet() + device_packet())
    decoder = Decoder(keep_extents=True)
    frames = script.play(decoder)
    extractor = ChannelExtractor(0, "multifd-?0")
    pieces = take(extractor, frames, decoder.migrations[0])
    written = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    assert written == sync_packet() + device_packet()
    assert extractor.remarks.problems == ["multifd-?0: its start was not captured"]
    assert extractor.remarks.notes == ["multifd-?0: no FIN or RST captured, more may have followed"]


def test_description_is_missing() -> None:
    extractor = DescriptionExtractor(0)
    assert take(extractor, [Maker().switchover()]) == []
    assert not extractor.found
    assert extractor.wanted().startswith("no vmdescription")


def test_remarks_are_bounded() -> None:
    remarks = Remarks()
    for number in range(REMARKS_LIMIT + 10):
        remarks.problem(str(number))
        remarks.note(str(number))
    assert len(remarks.problems) == len(remarks.notes) == REMARKS_LIMIT
    assert remarks.problems[-1] == "11 more problems like these"
