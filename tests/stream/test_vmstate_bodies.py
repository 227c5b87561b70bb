# SPDX-License-Identifier: GPL-2.0-or-later
"""FULL sections in a main stream: their bodies, with the description that each goes by."""

from __future__ import annotations

import pytest

from mfdtool.fixtures.vmstate import PLAIN_DEVICES, Field, PlainDevice, State, description
from mfdtool.stream import vmstate_bodies
from mfdtool.stream.frames import ChannelId, Frame, Kind
from mfdtool.stream.main import MainFramer
from mfdtool.stream.reader import Reader
from mfdtool.stream.vmstate import DeviceState, named_fields
from mfdtool.wire.constants import Command, SectionType
from mfdtool.wire.main_stream import SectionStart, VmDescriptionHeader
from mfdtool.wire.vmdesc import parse_vmdescription
from tests.support.framing import Hole, check, run, stretches
from tests.support.streams import EOF, RAM_EOS, command, footer, main_start, part, start

CHANNEL = ChannelId(0, "main")
SWITCHOVER = command(Command.SWITCHOVER_START)
PAIR = PlainDevice(
    idstr="pair",
    state=State(
        name="pair",
        fields=(
            Field(name="low", type="uint32", data=b"\0\0\0\1"),
            Field(name="high", type="uint32", data=b"\0\0\0\2"),
        ),
    ),
)
EMPTY = PlainDevice(idstr="empty", state=State(name="empty"))
PAIR_FIELDS = {"low": "0x00000001", "high": "0x00000002"}


def full(device: PlainDevice, number: int) -> bytes:
    header = SectionStart(
        type=SectionType.FULL,
        section_id=number,
        idstr=device.idstr,
        version_id=device.state.version,
    )
    return header.build() + device.state.body() + footer(number)


def text(*devices: PlainDevice) -> bytes:
    return description((each.describe() for each in devices), machine="pc", page_size=4096)


def ending(*devices: PlainDevice) -> bytes:
    written = text(*devices)
    return EOF + VmDescriptionHeader(length=len(written)).build() + written


def make(reader: Reader) -> MainFramer:
    return MainFramer(reader, CHANNEL)


def make_told(reader: Reader, *devices: PlainDevice) -> MainFramer:
    known = parse_vmdescription(text(*(devices or (PAIR, EMPTY))))
    return MainFramer(reader, CHANNEL, description=known)


def states(frames: list[Frame]) -> dict[str, object]:
    """Give the fields of the bodies that have a description, by device; None for the others."""
    found: dict[str, object] = {}
    for frame in frames:
        if frame.kind is Kind.MAIN_OPAQUE:
            assert frame.section is not None
            state = frame.value
            found[frame.section.idstr] = None
            if isinstance(state, DeviceState):
                body = state.decode()
                assert list(body.claims())[-1][1] == len(state.data) == frame.length
                found[frame.section.idstr] = named_fields(state, body)
    return found


def test_own_description() -> None:
    data = main_start() + SWITCHOVER + full(PAIR, 4) + full(PLAIN_DEVICES[0], 5) + full(EMPTY, 6)
    frames = check(make, data + ending(PAIR, *PLAIN_DEVICES, EMPTY))
    assert states(frames) == {
        "pair": PAIR_FIELDS,
        "timer": {
            "cpu_ticks_offset": "0x0000000000000000",
            "unused": "00 00 00 00 00 00 00 00",
            "cpu_clock_offset": "0x0000000000000000",
        },
    }


def test_before_the_switchover_only_a_description_from_elsewhere_helps() -> None:
    data = main_start() + full(PAIR, 4) + SWITCHOVER + ending(PAIR)
    assert states(check(make, data)) == {"pair": None}
    assert states(check(make_told, data)) == {"pair": PAIR_FIELDS}


def test_background_snapshot() -> None:
    data = main_start() + start(2, "ram", RAM_EOS, version=4) + part(2, RAM_EOS) + full(PAIR, 4)
    assert states(check(make, data + ending(PAIR))) == {"pair": PAIR_FIELDS}


def test_not_in_the_description() -> None:
    data = main_start() + SWITCHOVER + full(PAIR, 4) + ending(EMPTY)
    assert states(check(make, data)) == {"pair": None}


def test_description_of_another_machine() -> None:
    longer = PlainDevice(
        idstr="pair", state=State(name="pair", fields=(Field(name="x", data=bytes(9)),))
    )
    data = main_start() + SWITCHOVER + full(PAIR, 4) + full(EMPTY, 5) + EOF
    frames = check(lambda reader: make_told(reader, longer, EMPTY), data)
    assert states(frames) == {"pair": {}}
    state = next(frame.value for frame in frames if isinstance(frame.value, DeviceState))
    rest = state.decode().undecoded
    assert rest is not None
    assert (rest.start, rest.stop, rest.reason) == (0, 8, "x ends behind the body's end")


def test_body_that_is_cut() -> None:
    data = main_start() + SWITCHOVER + full(PAIR, 4)
    body = len(data) - 5 - 8
    for stop in range(body + 4, len(data)):
        shown = states(run(make_told, stretches(data[:stop])))
        high = PAIR_FIELDS["high"] if stop >= body + 8 else None
        assert shown == {"pair": PAIR_FIELDS | {"high": high}}, stop


def test_streams_without_footers() -> None:
    data = main_start() + start(1, "ram", RAM_EOS)[:-5] + SWITCHOVER
    data += full(PAIR, 4)[:-5] + full(EMPTY, 5)[:-5]
    assert states(check(make_told, data + EOF)) == {"pair": PAIR_FIELDS}
    assert states(check(make, data + ending(PAIR, EMPTY))) == {"pair": PAIR_FIELDS}


def test_hole_in_a_body_leaves_the_fields_around_it() -> None:
    data = main_start() + SWITCHOVER + full(PAIR, 4)
    body = len(data) - 5 - 8
    data += ending(PAIR)
    for at in range(8):
        hole = Hole(body + at, body + at + 1)
        lost = "low" if at < 4 else "high"
        assert states(run(make, stretches(data, holes=[hole]))) == {
            "pair": PAIR_FIELDS | {lost: None}
        }


def test_hole_in_a_footer() -> None:
    data = main_start() + SWITCHOVER + full(PAIR, 4)
    holes = [Hole(len(data) - 3, len(data) - 1)]
    frames = run(make, stretches(data + SWITCHOVER + ending(PAIR), holes=holes))
    assert states(frames) == {"pair": PAIR_FIELDS}


def test_another_footer_tells_that_a_body_is_not_cut() -> None:
    longer = PlainDevice(
        idstr="pair", state=State(name="pair", fields=(Field(name="x", data=bytes(99)),))
    )
    data = main_start() + SWITCHOVER + full(PAIR, 4)[:-5] + b"??" + full(EMPTY, 5) + EOF
    frames = run(lambda reader: make_told(reader, longer), stretches(data))
    assert states(frames) == {}
    assert frames[-1].kind is Kind.MAIN_EOF


def test_mostly_holes(monkeypatch: pytest.MonkeyPatch) -> None:
    big = PlainDevice(
        idstr="big", state=State(name="big", fields=(Field(name="x", data=bytes(1000)),))
    )
    data = main_start() + SWITCHOVER + full(big, 4)
    body = len(data) - 5 - 1000
    data += ending(big)
    for lost, value in ((500, {"x": None}), (560, None)):
        holes = [Hole(body, body + lost)]
        assert states(run(make, stretches(data, holes=holes))) == {"big": value}
    monkeypatch.setattr(vmstate_bodies, "BODY_LIMIT", 999)
    assert states(run(make, stretches(data))) == {"big": None}


def test_description_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vmstate_bodies, "DESCRIPTION_LIMIT", 10)
    data = main_start() + SWITCHOVER + full(PAIR, 4) + ending(PAIR)
    assert states(run(make, stretches(data))) == {"pair": None}


def test_description_is_known_when_it_was_not_waited_for() -> None:
    reader = Reader()
    framer = make(reader)
    generator = framer.frames()
    data = main_start() + full(PAIR, 4) + ending(PAIR)
    reader.feed(stretches(data)[0])
    assert list(iter(generator.__next__, None))[-1].kind is Kind.MAIN_VMDESCRIPTION
    assert framer.description is not None
    assert [device.name for device in framer.description.devices] == ["pair"]
