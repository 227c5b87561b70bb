# SPDX-License-Identifier: GPL-2.0-or-later
"""Which release wrote a stream, by what the stream shows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from mfdtool.stream.frames import Frame, Kind, Section
from mfdtool.stream.recognition import LOADED_PING, Evidence, Recognition, ReleaseTracker, Trait
from mfdtool.stream.values import CommandRecord, MarkerRecord, RamRecord
from mfdtool.wire.constants import Command, MultiFDFlag, RamFlag, VFIOMarker
from mfdtool.wire.main_stream import (
    Capabilities,
    CommandHeader,
    CommandPayload,
    Configuration,
    ConfigurationSubsection,
    Ping,
    PostcopyAdvise,
)
from mfdtool.wire.multifd import MultiFDInit
from mfdtool.wire.profile import PROFILES, release_number
from tests.support.made_frames import Maker

MAKE = Maker()


def recognise(frames: Iterable[Frame]) -> Recognition:
    """Give what a tracker knows in the end."""
    tracker = ReleaseTracker()
    for frame in frames:
        tracker.add(frame)
    return tracker.recognition()


def command(number: Command, payload: CommandPayload | None = None) -> Frame:
    value = CommandRecord(CommandHeader(cmd=number), payload)
    return MAKE.frame(Kind.MAIN_COMMAND, bytes(5), value=value)


def record(flags: int) -> Frame:
    return replace(MAKE.record_of(0, 0), value=RamRecord(flags, 0))


def marker(value: VFIOMarker) -> Frame:
    return MAKE.frame(Kind.VFIO_MARKER, bytes(8), value=MarkerRecord(value))


def sync(normal: Iterable[int] = ()) -> Frame:
    frame = MAKE.pages(normal, flags=MultiFDFlag.SYNC)
    return replace(frame, kind=Kind.MULTIFD_SYNC)


def configuration(name: str, *capabilities: str) -> Frame:
    body = Capabilities(capabilities)
    subsection = ConfigurationSubsection(name="configuration/capabilities", body=body)
    value = Configuration(name=name, subsections=(subsection,) if capabilities else ())
    return MAKE.frame(Kind.MAIN_CONFIGURATION, b"?", value=value)


def init() -> Frame:
    value = MultiFDInit(uuid=bytes(16), id=0)
    return MAKE.frame(Kind.MULTIFD_INIT, bytes(64), channel="multifd-0", value=value)


ADVISE = command(Command.POSTCOPY_ADVISE, PostcopyAdvise(page_size_summary=4096, page_size=4096))
RUN = command(Command.POSTCOPY_RUN)
BLOCK = MAKE.section(Kind.MAIN_SECTION_START, Section(1, "block", 0, 1))


@pytest.mark.parametrize(
    ("frames", "trait"),
    [
        ([sync([0])], Trait.SYNC_WITH_PAGES),
        ([record(RamFlag.COMPRESS_PAGE)], Trait.COMPRESSED_PAGE),
        ([BLOCK], Trait.BLOCK_SECTION),
        ([record(RamFlag.MULTIFD_FLUSH)], Trait.MULTIFD_FLUSH),
        ([marker(VFIOMarker.DEV_INIT_DATA_SENT)], Trait.INIT_DATA_SENT),
        ([MAKE.pages([], [0])], Trait.ZERO_PAGES),
        ([configuration("pc", "mapped-ram")] * 2, Trait.MAPPED_RAM),
        ([MAKE.pages([0], flags=MultiFDFlag.QPL)], Trait.QPL_OR_UADK),
        ([MAKE.pages([0], flags=MultiFDFlag.UADK)], Trait.QPL_OR_UADK),
        ([MAKE.pages([0], flags=MultiFDFlag.QATZIP)], Trait.QATZIP),
        ([MAKE.packet(0), MAKE.packet(1)], Trait.DEVICE_STATE),
        ([MAKE.switchover()], Trait.SWITCHOVER_START),
        ([marker(VFIOMarker.DEV_CONFIG_LOAD_READY)], Trait.LOAD_READY),
        ([init(), ADVISE], Trait.MULTIFD_POSTCOPY),
        ([ADVISE, init(), init()], Trait.MULTIFD_POSTCOPY),
        ([command(Command.PING, Ping(LOADED_PING)), RUN], Trait.LOADED_PING),
        ([command(Command.PING, Ping(3)), RUN], Trait.NO_LOADED_PING),
    ],
    ids=lambda value: value.name if isinstance(value, Trait) else "",
)
def test_each_trait(frames: list[Frame], trait: Trait) -> None:
    found = recognise(frames)
    since, until, text = trait.value
    (evidence,) = found.evidence
    assert (evidence.text, evidence.since, evidence.until) == (text, since, until)
    assert (found.since, found.until) == (since, until)
    assert evidence.where.split(" ")[0] in {"main", "multifd-0"}
    assert found.is_possible


@pytest.mark.parametrize(
    "frame",
    [
        sync(),
        MAKE.pages([0]),
        record(RamFlag.EOS),
        marker(VFIOMarker.END_OF_STATE),
        command(Command.PING, Ping(1)),
        command(Command.POSTCOPY_ADVISE),
        init(),
        replace(MAKE.switchover(), value=None),
        replace(sync(), value=None),
        replace(record(0), value=None),
        MAKE.section(Kind.MAIN_SECTION_START),
        replace(configuration("pc-10.0"), value=None),
        configuration("pc-q35-rhel9.6.0"),
        configuration("pc"),
        MAKE.frame(Kind.MAIN_OPAQUE, b"x"),
    ],
)
def test_what_tells_nothing(frame: Frame) -> None:
    found = recognise([frame])
    assert found == Recognition()
    assert found.is_possible
    assert [each.name for each in found.profiles] == list(PROFILES)


@pytest.mark.parametrize("name", ["pc-i440fx-10.1", "virt-10.1"])
def test_machine_type(name: str) -> None:
    found = recognise([configuration(name)])
    assert found.evidence == (
        Evidence(
            text=f"machine type {name}", since="10.1", until="", where=found.evidence[0].where
        ),
    )
    assert [each.name for each in found.profiles] == ["10.1", "10.2", "11.1"]
    assert found.profile is PROFILES["10.1"]


@pytest.mark.parametrize("kind", [Kind.GAP, Kind.UNDECODED])
def test_what_is_lost_may_have_been_the_ping(kind: Kind) -> None:
    lost = MAKE.gap(9) if kind is Kind.GAP else MAKE.frame(kind, bytes(9))
    assert recognise([lost, RUN]) == Recognition()
    elsewhere = replace(lost, channel=init().channel)
    assert recognise([elsewhere, RUN]).until == "10.1"


def test_range() -> None:
    found = recognise([MAKE.pages([], [0]), configuration("pc-i440fx-10.0"), RUN, MAKE.pages()])
    assert (found.since, found.until) == ("10.0", "10.1")
    assert [each.name for each in found.profiles] == ["10.0", "10.1"]
    assert found.profile is PROFILES["10.0"]
    assert len(found.evidence) == 3


def test_contradiction() -> None:
    found = recognise([MAKE.pages([], [0]), sync([0])])
    assert (found.since, found.until) == ("9.0", "8.2")
    assert not found.is_possible
    assert found.profile is None


def test_old_release_has_no_profile() -> None:
    found = recognise([sync([0])])
    assert found.is_possible
    assert found.profiles == ()


def test_release_number() -> None:
    assert release_number("10.0.2") == (10, 0)
    assert release_number("9.2") < release_number("10.0")
    with pytest.raises(ValueError, match="not enough values"):
        release_number("10")
