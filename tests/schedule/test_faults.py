# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults as text and as values."""

from __future__ import annotations

import random

import pytest

from mfdtool.errors import ScheduleError
from mfdtool.schedule.address import FrameAddress, PacketAddress, parse_address
from mfdtool.schedule.faults import (
    Corrupt,
    Disconnect,
    Drop,
    Duplicate,
    Hold,
    SetField,
    Truncate,
    parse_fault,
)

FRAME = FrameAddress("multifd-2", 14)
PACKET = PacketAddress("0000:00:05.0/vfio", 7)

TEXTS = {
    "drop:multifd-2#14": Drop(FRAME),
    "drop:dev=0000:00:05.0/vfio,idx=7": Drop(PACKET),
    "drop:dev=0000:00:05.0/vfio,idx=7,nth=2": Drop(PacketAddress("0000:00:05.0/vfio", 7, 2)),
    "duplicate:multifd-?0#3": Duplicate(FrameAddress("multifd-?0", 3)),
    "duplicate:multifd-2#14:multifd-0": Duplicate(FRAME, "multifd-0"),
    "corrupt:multifd-2#14:300+4": Corrupt(FRAME, 300, 4),
    "corrupt:multifd-2#14:300=deadbeef": Corrupt(FRAME, 300, 4, bytes.fromhex("deadbeef")),
    "truncate:dev=0000:00:05.0/vfio,idx=7:200": Truncate(PACKET, 200),
    "set:multifd-2#14:idx=7": SetField(FRAME, "idx", "7"),
    "set:dev=0000:00:05.0/vfio,idx=7:idstr=a=b:c": SetField(PACKET, "idstr", "a=b:c"),
    "hold:dev=0000:00:05.0/vfio,idx=7:main#92": Hold(PACKET, FrameAddress("main", 92)),
    "hold:main#92:dev=0000:00:05.0/vfio,idx=7": Hold(FrameAddress("main", 92), PACKET),
    "disconnect:multifd-2#14": Disconnect(FRAME),
    "disconnect:return-path#1:rst": Disconnect(FrameAddress("return-path", 1), reset=True),
}


@pytest.mark.parametrize("text", TEXTS)
def test_text_and_value(text: str) -> None:
    assert parse_fault(text) == TEXTS[text]
    assert str(TEXTS[text]) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is no fault; there are drop, duplicate,"),
        ("lose:multifd-2#14", "'lose' is no fault"),
        ("drop", "'drop': drop:CHANNEL#NUMBER or drop:dev=IDSTR,idx=N is wanted"),
        ("drop:multifd-2", "is wanted"),
        ("drop:multifd-2#14:x", "'x' has no meaning here"),
        ("duplicate:multifd-2#14:4 4", "'4 4' names no channel"),
        ("corrupt:multifd-2#14", "None is no range: OFFSET+LENGTH or OFFSET=HEX is wanted"),
        ("corrupt:multifd-2#14:3+0", "'3+0' is no range"),
        ("corrupt:multifd-2#14:3=abc", "'3=abc' is no range"),
        ("truncate:multifd-2#14:-1", "'-1' is no length"),
        ("truncate:multifd-2#14:٣", "is no length"),
        ("truncate:multifd-2#14", "None is no length"),
        ("set:multifd-2#14", "'' is not FIELD=VALUE"),
        ("set:multifd-2#14:idx", "'idx' is not FIELD=VALUE"),
        ("set:multifd-2#14:=7", "'=7' is not FIELD=VALUE"),
        ("hold:multifd-2#14", "the packet to wait for is missing"),
        ("hold:multifd-2#14:later", "'later' names no packet"),
        ("disconnect:multifd-2#14:fin", "'fin' is not 'rst'"),
    ],
)
def test_what_is_no_fault(text: str, complaint: str) -> None:
    with pytest.raises(ScheduleError) as raised:
        parse_fault(text)
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    "text", ["", "multifd-2", "#4", "dev=x", "dev=x,idx=", "dev=x,idx=1,nth=0"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ScheduleError, match="names no packet"):
        parse_address(text)


def test_mangled_texts_are_refused_or_mean_what_they_say() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        text = list(rng.choice(list(TEXTS)))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(text))
            text[at : at + rng.randint(0, 2)] = rng.choice([*"#:=,+0aé\n", ""])
        mangled = "".join(text)
        try:
            fault = parse_fault(mangled)
        except ScheduleError:
            continue
        assert parse_fault(str(fault)) == fault
