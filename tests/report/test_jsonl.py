# SPDX-License-Identifier: GPL-2.0-or-later
"""JSON Lines: what the templates write is what json writes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mfdtool.report.jsonl import JsonLines
from mfdtool.stream.fields import UnknownFieldError, values
from mfdtool.stream.frames import ChannelId, Frame, Kind
from mfdtool.stream.values import MarkerRecord
from tests.support.captures import NAMES, decoded


def dumped(frame: Frame) -> str:
    return json.dumps({"format": 1, **values(frame)}, separators=(",", ":")) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_lines_are_what_json_writes(name: str) -> None:
    lines = JsonLines()
    for frame in decoded(name)[1]:
        assert lines.write(frame) == dumped(frame)
        bare = replace(frame, record=0, time_first=-1, time_last=-1, number=None)
        lost = replace(bare, missing=7, reason='a "quoted" % {reason}')
        for changed in (bare, lost):
            assert lines.write(changed) == dumped(changed)


def test_fields_that_were_asked_for() -> None:
    lines = JsonLines(["idx", "kind", "idx", "reason"])
    packets = [lines.write(frame) for frame in decoded("mtty-4ch-one-packet")[1]]
    assert packets.count('{"format":1,"idx":0,"kind":"multifd.device_state"}\n') == 1
    assert packets.count('{"format":1,"kind":"main.eof"}\n') == 1


def test_text_is_escaped() -> None:
    frame = Frame(Kind.VFIO_MARKER, ChannelId(0, 'a"\\\n'), 0, 0, 8, -1, -1, 0)
    line = JsonLines().write(replace(frame, value=MarkerRecord(1)))
    assert json.loads(line)["channel"] == 'a"\\\n'


def test_unknown_field() -> None:
    with pytest.raises(UnknownFieldError):
        JsonLines(["kind", "__class__"])
