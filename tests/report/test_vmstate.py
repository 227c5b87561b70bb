# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of all devices as JSON: what streams can hold besides what QEMU writes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from mfdtool.report import vmstate as module
from mfdtool.report.vmstate import VmStateExtractor
from mfdtool.stream.frames import Frame, Kind, Section
from mfdtool.stream.span import Span
from mfdtool.stream.values import MarkerRecord
from mfdtool.stream.vmstate import DeviceState
from mfdtool.wire.main_stream import SectionFooter
from mfdtool.wire.vfio import Marker, wrap_config
from mfdtool.wire.vmdesc import DeviceDescription, FieldDescription
from tests.support.decoding import joined
from tests.support.made_frames import DEVICE, SECTION, Maker

TIMER = Section(0, "timer", 0, 2)
BITMAP = Section(9, "dirty-bitmap", 0, 1)
PAIR = DeviceDescription(
    name="timer",
    instance_id=0,
    vmsd_name="timer",
    version=2,
    fields=(FieldDescription(name="a", type="uint8", size=1),),
)


def shown(frames: Iterable[Frame], *, has_end: bool = True) -> tuple[dict[str, Any], list[str]]:
    """Give the document and the problems."""
    frames = [*frames, *([Maker().frame(Kind.MAIN_EOF, b"\0")] if has_end else [])]
    extractor = VmStateExtractor(0)
    pieces = [piece for frame in frames for piece in extractor.add(frame)]
    pieces += extractor.finish(None)
    return json.loads(joined(pieces)), extractor.remarks.problems


def footer(make: Maker, section: Section) -> Frame:
    data = SectionFooter(section_id=section.section_id).build()
    return make.frame(Kind.MAIN_SECTION_FOOTER, data, section=section)


def body(
    make: Maker, section: Section, data: bytes, *, state: bool = True, hole: Span | None = None
) -> Frame:
    value = DeviceState(PAIR, 2, data) if state else None
    return make.frame(
        Kind.MAIN_OPAQUE, data, value=value, header=0, section=section, hole=hole, reason="lost"
    )


def full(make: Maker, data: bytes = b"\7", *, state: bool = True) -> list[Frame]:
    return [
        make.section(Kind.MAIN_SECTION_FULL, TIMER),
        *([body(make, TIMER, data, state=state)] if data else []),
        footer(make, TIMER),
    ]


def marker(make: Maker, value: int) -> Frame:
    data = Marker(value).build()
    return make.frame(Kind.VFIO_MARKER, data, value=MarkerRecord(value), section=SECTION)


def test_nothing() -> None:
    extractor = VmStateExtractor(0)
    assert list(extractor.finish(None)) == []
    assert not extractor.found
    assert extractor.wanted() == "no sections: the main stream was not captured"


def test_bodies() -> None:
    make = Maker()
    assert shown(full(make)) == ({"timer (0)": {"a": "0x07"}}, [])
    assert shown(full(make, b"")) == ({"timer (0)": {}}, [])


def test_undecoded_rest() -> None:
    assert shown(full(Maker(), b"\7\1\2")) == (
        {"timer (0)": {"(undecoded)": "07 01 02"}},
        ["timer (0), main #1: bytes 0-2 undecoded: 2 more than the vmdescription has fields for"],
    )


def test_undescribed(monkeypatch: pytest.MonkeyPatch) -> None:
    document, problems = shown(full(Maker(), b"\7\1", state=False))
    assert document == {"timer (0)": {"(undecoded)": "07 01"}}
    assert len(problems) == 1
    assert problems[0].endswith("written as they are: 1")
    monkeypatch.setattr(module, "BODY_LIMIT", 1)
    document, problems = shown(full(Maker(), b"\7\1", state=False))
    assert document == {"timer (0)": {"(undecoded)": None}}
    assert problems[0] == "timer (0), main #1: 2 bytes are not shown"


def test_the_same_section_again() -> None:
    make = Maker()
    document, problems = shown(full(make) + full(make))
    assert document == {"timer (0)": {"a": "0x07"}, "timer (0) #2": {"a": "0x07"}}
    assert problems == ["timer (0) comes 2 times"]


def test_section_without_footer() -> None:
    make = Maker()
    frames = full(make)[:-1] + full(make)[:-1]
    assert list(shown(frames)[0]) == ["timer (0)", "timer (0) #2"]


def test_stream_without_its_end() -> None:
    assert shown(full(Maker()), has_end=False) == (
        {"timer (0)": {"a": "0x07"}},
        ["main has no end: more sections may have followed"],
    )


def test_losses() -> None:
    make = Maker()
    frames = [
        make.section(Kind.MAIN_SECTION_FULL, TIMER),
        body(make, TIMER, b"\7", hole=Span(0, 1)),
        make.gap(4),
        make.gap(4, channel="multifd-0"),
        make.frame(Kind.UNDECODED, b"??", header=0, reason="garbage"),
    ]
    assert shown(frames)[1] == [
        "timer (0), main #1: 1 of 1 bytes are missing",
        "main: bytes 6-9 missing",
        "main: bytes 10-11 undecoded",
    ]


def test_iterable_sections_of_no_known_structure() -> None:
    make = Maker()
    frames: list[Frame] = []
    for kind in (Kind.MAIN_SECTION_START, Kind.MAIN_SECTION_PART, Kind.MAIN_SECTION_PART):
        frames += [make.section(kind, BITMAP), body(make, BITMAP, b"xyz", state=False)]
    document, problems = shown(frames)
    assert document == {
        "dirty-bitmap (9)": {
            "bodies": [
                {"section": "start", "count": 1, "size": "0x3"},
                {"section": "part", "count": 2, "size": "0x6"},
            ]
        }
    }
    assert problems == []


@pytest.mark.parametrize("idstr", ["spapr/htab", "s390-storage_attributes"])
def test_iterable_sections_that_the_script_passes_over(idstr: str) -> None:
    make = Maker()
    section = Section(9, idstr, 0, 1)
    frames: list[Frame] = []
    for kind in (Kind.MAIN_SECTION_START, Kind.MAIN_SECTION_PART):
        frames += [make.section(kind, section), body(make, section, b"xyz", state=False)]
        frames += [footer(make, section)]
    document, problems = shown([*frames, *full(make)])
    assert list(document.items()) == [(f"{idstr} (9)", ""), ("timer (0)", {"a": "0x07"})]
    assert problems == []


def test_vfio_without_its_start() -> None:
    make = Maker()
    nameless = Section(7, "", 0, 0)
    frames = [make.section(Kind.MAIN_SECTION_PART, nameless), make.data(b"abc", section=nameless)]
    assert shown(frames)[0] == {
        "(unknown) (7)": {
            "markers": [{"section": "part", "marker": "DEV_DATA_STATE", "count": 1, "size": "0x3"}]
        }
    }


def test_hostile_markers_are_summed_up() -> None:
    make = Maker()
    frames = [make.section(Kind.MAIN_SECTION_END)]
    frames += [marker(make, 0xFFFFFFFFEF100100 + index) for index in range(100)]
    (device,) = shown(frames)[0].values()
    assert device["markers"][0]["marker"] == "0xffffffffef100100"
    assert len(device["markers"]) == 65
    assert device["markers"][-1] == {
        "section": "end",
        "marker": "other",
        "count": 36,
        "size": "0x0",
    }


def test_packets() -> None:
    make = Maker()
    config = wrap_config(b"\xab\xcd")
    frames = [
        make.packet(0, b"abcd"),
        make.packet(1, config, config=True),
        make.section(Kind.MAIN_SECTION_END),
        marker(make, 0xFFFFFFFFEF100001),
        make.headless(),
    ]
    assert shown(frames) == (
        {
            f"{DEVICE} (38)": {
                "markers": [
                    {"section": "end", "marker": "END_OF_STATE", "count": 1, "size": "0x0"}
                ],
                "multifd": {"packets": 2, "size": "0x16"},
                "config": "ab cd",
            }
        },
        [],
    )


def test_packets_that_are_not_as_they_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker()
    bare = make.packet(0, b"no markers at all", config=True)
    again = make.packet(0, b"more", config=True, hole=Span(0, 1))
    document, problems = shown([bare, again])
    assert document[DEVICE]["config"] == b"no markers at all".hex(" ")
    where = f"{DEVICE}, multifd-0"
    assert problems == [
        f"{where} #0: markers around the config: 0x6e6f206d61726b65 is not DEV_CONFIG_STATE",
        f"{where} #1: 1 of 292 bytes are missing",
        f"{where} #1: a config that is not shown",
    ]
    monkeypatch.setattr(module, "CONFIG_LIMIT", 3)
    document, problems = shown([make.section(Kind.MAIN_SECTION_FULL), make.config(b"abcd")])
    assert "config" not in document[f"{DEVICE} (38)"]
    assert problems == [f"{DEVICE} (38), main #1: a config that is not shown"]
