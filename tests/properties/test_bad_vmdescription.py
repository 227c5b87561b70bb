# SPDX-License-Identifier: GPL-2.0-or-later
"""Vmdescriptions that lie: no crash, no guess that overlaps, and JSON all the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random

import pytest

from mfdtool.cli import run
from mfdtool.stream.vmstate import DeviceState
from mfdtool.wire.vmdesc import find_vmdescription
from mfdtool.workflows.reading import Input, Reading
from tests.support.main_streams import stream

NUMBER = re.compile(rb'"(?:size|array_len|index|version|instance_id)": (\d+)')
LIES = (0, 1, 2, 3, 255, 1 << 16, 1 << 40, (1 << 63) - 1)


def lying(seed: int) -> bytes:
    """Give a real stream whose vmdescription has some other numbers."""
    rng = Random(seed)
    data = stream("microvm-shared")
    place = find_vmdescription(data)
    assert place is not None
    text = data[slice(*place)]
    for _ in range(rng.randrange(1, 20)):
        match = rng.choice(list(NUMBER.finditer(text)))
        text = text[: match.start(1)] + str(rng.choice(LIES)).encode() + text[match.end(1) :]
    return data[: place[0] - 4] + len(text).to_bytes(4) + text


@pytest.mark.parametrize("seed", range(20))
def test_lies(seed: int, tmp_path: Path) -> None:
    path, output = tmp_path / "stream", tmp_path / "state.json"
    path.write_bytes(lying(seed))
    assert run(["extract", "--main", str(path), "--vmstate", "-o", str(output)]) in {0, 4}
    assert "timer (0)" in json.loads(output.read_text())
    with Reading(Input(main=path)) as reading:
        position = 0
        for frame in reading.frames():
            assert frame.offset == position
            position = frame.end
            if isinstance(frame.value, DeviceState):
                inside = 0
                for start, stop in frame.value.decode().claims():
                    assert start == inside
                    inside = stop
                assert inside == frame.length
        assert position == path.stat().st_size
