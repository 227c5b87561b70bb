# SPDX-License-Identifier: GPL-2.0-or-later
"""Bodies in a main stream that end where their handler's own records say."""

from __future__ import annotations

import pytest

from mfdtool.stream import vmstate_bodies
from mfdtool.stream.fields import values
from mfdtool.stream.frames import ChannelId, Frame, Kind
from mfdtool.stream.iterable import RecordsBody
from mfdtool.stream.main import MainFramer
from mfdtool.stream.reader import Reader
from tests.support.framing import Hole, check, run, stretches
from tests.support.streams import EOF, footer, main_start, part, start
from tests.wire.test_iterable import ATTRIBUTES, BITMAP_BITS, BITMAP_START, HTAB

CHANNEL = ChannelId(0, "main")


def make(reader: Reader) -> MainFramer:
    return MainFramer(reader, CHANNEL)


def bodies(frames: list[Frame]) -> list[tuple[bytes, bool]]:
    """Give each body, and whether it was taken apart."""
    assert not any(frame.kind is Kind.UNDECODED for frame in frames)
    return [
        (frame.data(), isinstance(frame.value, RecordsBody))
        for frame in frames
        if frame.kind is Kind.MAIN_OPAQUE
    ]


@pytest.mark.parametrize(
    ("idstr", "first", "then"),
    [
        ("dirty-bitmap", BITMAP_START, BITMAP_BITS),
        ("spapr/htab", b"\0\0\0\x18", HTAB),
        ("s390-storage_attributes", ATTRIBUTES, ATTRIBUTES),
    ],
)
def test_all_are_taken_apart(idstr: str, first: bytes, then: bytes) -> None:
    data = main_start() + start(5, idstr, first) + part(5, then) + part(5, then, end=True) + EOF
    assert bodies(check(make, data)) == [(first, True), (then, True), (then, True)]


def test_data_that_looks_like_the_section_s_end() -> None:
    trap = footer(5) + part(5, b"")
    bits = b"\x40" + bytes(12) + len(trap).to_bytes(8) + trap + b"\x01"
    data = main_start() + start(5, "dirty-bitmap", BITMAP_START) + part(5, bits) + EOF
    assert bodies(check(make, data)) == [(BITMAP_START, True), (bits, True)]


def test_done_may_be_the_last() -> None:
    done = ATTRIBUTES[:-1] + b"\x08"
    both = done + bytes(7) + b"\1"
    name = "s390-storage_attributes"
    data = main_start() + start(5, name, done) + part(5, both) + EOF
    assert bodies(check(make, data)) == [(done, True), (both, True)]


@pytest.mark.parametrize("body", [b"\x80\1", b"\x01rest", b"\x40short", BITMAP_BITS[:-1]])
def test_what_are_no_records_ends_at_its_footer(body: bytes) -> None:
    data = main_start() + start(5, "dirty-bitmap", body) + EOF
    assert bodies(check(make, data)) == [(body, False)]


def test_hole_in_the_data() -> None:
    data = main_start() + start(5, "dirty-bitmap", BITMAP_BITS) + EOF
    at = data.index(b"bits")
    (frame,) = [
        frame
        for frame in run(make, stretches(data, holes=[Hole(at, at + 4)]))
        if frame.kind is Kind.MAIN_OPAQUE
    ]
    assert frame.length == len(BITMAP_BITS)
    assert frame.missing == 4
    assert frame.value is None


def test_long_bodies_are_not_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmstate_bodies, "BODY_LIMIT", 20)
    data = main_start() + start(5, "dirty-bitmap", BITMAP_BITS) + EOF
    assert bodies(check(make, data)) == [(BITMAP_BITS, False)]


def test_what_is_held_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmstate_bodies, "HOLD_LIMIT", 20)
    data = main_start() + start(5, "dirty-bitmap", BITMAP_BITS) + EOF
    assert bodies(run(make, stretches(data))) == [(BITMAP_BITS, False)]


def test_values() -> None:
    data = main_start() + start(5, "dirty-bitmap", BITMAP_BITS) + EOF
    (frame,) = [frame for frame in check(make, data) if frame.kind is Kind.MAIN_OPAQUE]
    named = values(frame)
    assert named["field_count"] == 7
    assert "undecoded" not in named
    assert named["fields"] == {
        "records": [
            {"flags": 0x40, "start_sector": 0, "sectors": 0x4000, "size": 4},
            {"flags": 0x20},
            {"flags": 0x01},
        ]
    }
