# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said of a switchover that waits, and of releases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mfdtool.report.info_phases import (
    phase_lines,
    release_json,
    release_lines,
    switchover_json,
    switchover_lines,
)
from mfdtool.stream.channel import ChannelKind
from mfdtool.stream.frames import Frame, Kind, Section
from mfdtool.stream.migration import Migration
from mfdtool.stream.recognition import Evidence, Recognition
from mfdtool.stream.summary import ChannelSummary, MigrationSummary, SummaryCollector
from mfdtool.stream.values import MarkerRecord, ReturnPathRecord
from mfdtool.wire.constants import ReturnPathType, VFIOMarker
from mfdtool.wire.return_path import ReturnPathMessage
from tests.support.made_frames import DEVICE, SECTION, Maker

OTHER = Section(39, "0000:00:06.0/vfio", 0, 1)
RETURN_PATH = ChannelSummary(
    name="return-path",
    kind=ChannelKind.RETURN_PATH,
    client=None,
    from_start=True,
    bytes=8,
    gap_bytes=0,
    undecoded_bytes=0,
    frames=1,
    incomplete=0,
    first_ns=0,
    last_ns=0,
    end=None,
)


def summarise(frames: Iterable[Frame]) -> MigrationSummary:
    collector = SummaryCollector()
    for frame in frames:
        collector.add(frame)
    (found,) = collector.summaries([Migration(0, None)])
    return found


def waiting(make: Maker) -> list[Frame]:
    """Make a precopy in which one of two devices has sent its initial data."""
    value = MarkerRecord(VFIOMarker.DEV_INIT_DATA_SENT)
    return [
        make.section(Kind.MAIN_SECTION_PART),
        make.data(b"abc"),
        make.data(b"abc", section=OTHER),
        make.frame(Kind.VFIO_MARKER, bytes(8), value=value, section=SECTION),
    ]


def test_blocked_switchover() -> None:
    found = replace(summarise(waiting(Maker())), channels=(RETURN_PATH,))
    lines = list(switchover_lines(found))
    assert lines[0] == f"no SWITCHOVER_ACK; {DEVICE} was the last with INIT_DATA_SENT, at 0.004000"
    assert lines[1:] == [f"blocked by {OTHER.idstr}, which has sent no INIT_DATA_SENT"]
    found_json = switchover_json(found.standstill)
    assert found_json["blocked_by"] == [OTHER.idstr]
    assert found_json["ack"] is None
    assert [device["at"] for device in found_json["devices"]] == ["0.004000000", None]
    assert found_json["downtime"] is None


def test_return_path_that_is_not_in_the_input() -> None:
    # Nor has it times.
    lines = list(switchover_lines(summarise(waiting(Maker()))))
    assert lines == [
        "SWITCHOVER_ACK unknown, no return path in the input;"
        f" {DEVICE} was the last with INIT_DATA_SENT",
        f"blocked by {OTHER.idstr}, which has sent no INIT_DATA_SENT",
    ]


def test_waiting_that_nothing_shows() -> None:
    make = Maker()
    header = ReturnPathMessage(type=ReturnPathType.PONG)
    pong = make.frame(
        Kind.RETURN_PATH_MESSAGE,
        header.build(),
        channel="return-path",
        value=ReturnPathRecord(header, None),
    )
    others = [Section(40 + slot, f"0000:00:{slot:02x}.0/vfio", 0, 1) for slot in range(7, 15)]
    value = MarkerRecord(VFIOMarker.DEV_SETUP_STATE)
    setups = [make.frame(Kind.VFIO_MARKER, bytes(8), value=value, section=one) for one in others]
    found = summarise([pong, make.data(b"abc"), *setups])
    (line,) = switchover_lines(found)
    assert line.startswith(
        "none yet; if switchover-ack is on, it waits for"
        f" {DEVICE} (precopy data, no INIT_DATA_SENT), 0000:00:07.0/vfio (nothing yet), "
    )
    assert line.endswith("0000:00:0d.0/vfio (nothing yet), 1 more")
    found_json = switchover_json(found.standstill)
    assert found_json["blocked_by"] == []
    assert found_json["blocked_if_ack_is_on"] == [DEVICE, *(one.idstr for one in others)]
    assert [device["precopy_data"] for device in found_json["devices"]] == [True] + 8 * [False]


def test_acknowledged_switchover() -> None:
    make = Maker()
    header = ReturnPathMessage(type=ReturnPathType.SWITCHOVER_ACK)
    ack = make.frame(
        Kind.RETURN_PATH_MESSAGE,
        header.build(),
        channel="return-path",
        value=ReturnPathRecord(header, None),
    )
    found = summarise([*waiting(make)[:2], ack, make.switchover()])
    (line,) = switchover_lines(found)
    assert line.endswith("; no device had initial data to wait for")
    assert switchover_json(found.standstill)["downtime"] == {
        "first": "0.006000000",
        "last": "0.006000000",
        "bytes": 5,
    }


def test_nothing_waits_without_the_capability() -> None:
    found = summarise(waiting(Maker())[:3])
    assert list(switchover_lines(found)) == []
    assert list(phase_lines(found)) == ["no times in this input"]


def evidence(text: str, since: str = "", until: str = "") -> Evidence:
    return Evidence(text=text, since=since, until=until, where="main #1")


def test_releases() -> None:
    assert list(release_lines(Recognition())) == ["any: nothing in the stream tells"]
    old = Recognition(evidence=(evidence("x", until="8.2"),), until="8.2")
    assert list(release_lines(old)) == ["8.2 or earlier, no profile", "8.2 or earlier: x (main #1)"]
    seen = (
        evidence("a", since="8.1"),
        evidence("b", since="10.1"),
        evidence("c", until="10.1"),
        evidence("d", since="10.1"),
    )
    one = Recognition(evidence=seen, since="10.1", until="10.1")
    assert list(release_lines(one)) == [
        "10.1, profile 10.1",
        "10.1 or later: b (main #1), d (main #1)",
        "10.1 or earlier: c (main #1)",
    ]
    assert release_json(one)["profiles"] == ["10.1"]
    none = Recognition(evidence=seen[1:3], since="10.1", until="9.0")
    assert next(release_lines(none)).startswith("none that is known")
    assert release_json(none) | {"evidence": []} == {
        "since": "10.1",
        "until": "9.0",
        "possible": False,
        "profile": None,
        "profiles": [],
        "evidence": [],
    }
