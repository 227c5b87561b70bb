# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of opened files, and raw streams."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfdtool.capture.raw import stream_of
from mfdtool.capture.reader import CaptureInfo, records
from mfdtool.capture.source import open_capture, open_raw
from mfdtool.errors import CaptureError
from mfdtool.packets.info import Format, Interface
from mfdtool.packets.pcapng_build import enhanced_packet, interface_description, section_header
from mfdtool.packets.values import NO_TIME, Record
from mfdtool.stream.span import Run

CAPTURES = Path(__file__).parents[2] / "captures"


def test_real_compressed_capture() -> None:
    info = CaptureInfo()
    with open_capture(CAPTURES / "mtty-4ch-clean.pcap.gz") as source:
        found = list(records(source, info))
    assert len(found) == 231
    assert found[0] == Record(1, 1_795_425_059_857_530_000, 1, 40, 74, 74)
    assert info.format is Format.PCAP
    assert info.snaplen == 262_144


def test_pcapng_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(
        section_header(comments=["made here"])
        + interface_description(Interface(index=0, linktype=101))
        + enhanced_packet(b"abc", ticks=5)
        + b"\x06"
    )
    info = CaptureInfo()
    with open_capture(path) as source:
        iterator = records(source, info)
        assert next(iterator).time_ns == 5
        with pytest.raises(CaptureError) as caught:
            next(iterator)
    assert caught.value.path == str(path)
    assert [comment.text for comment in info.comments] == ["made here"]


def test_raw_stream_is_one_run(tmp_path: Path) -> None:
    path = tmp_path / "main"
    path.write_bytes(b"QEVM and so on")
    with open_raw(path) as source:
        run = stream_of(source)
        assert run == Run(source.view, 0, 14, (0,), (0,), (0,), (NO_TIME,))
        with pytest.raises(CaptureError, match="a raw stream has no records"):
            records(source)
