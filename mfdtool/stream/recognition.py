# SPDX-License-Identifier: GPL-2.0-or-later
"""Which QEMU releases could have written a stream, and what tells so.

A stream does not name its writer. It shows things that came with some release, or went with one:
each is evidence for a range of releases, and what all of them allow is the answer. What a stream
does not show tells nothing, with one exception: `Trait.NO_LOADED_PING`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.values import CommandRecord, MarkerRecord, RamRecord
from mfdtool.wire.constants import Command, MultiFDFlag, RamFlag, VFIOMarker
from mfdtool.wire.main_stream import Configuration, Ping, PostcopyAdvise
from mfdtool.wire.multifd import MultiFDPacketCounts
from mfdtool.wire.profile import PROFILES, Profile, release_number

LOADED_PING: Final = 0x42
"""Value of the PING at the end of the postcopy package (savevm.c:QEMU_VM_PING_PACKAGED_LOADED)."""

_MACHINE: Final = re.compile(r".+-(\d{1,2})\.(\d{1,2})")


class Bounds(NamedTuple):
    """First and last release that do something, empty if there is no such one; and what it is."""

    since: str
    until: str
    text: str


class Trait(Enum):
    """What a stream can show of its writer, and the releases that write it."""

    SYNC_WITH_PAGES = Bounds("", "8.2", "a SYNC packet with pages")
    COMPRESSED_PAGE = Bounds("", "9.0", "a COMPRESS_PAGE record")
    BLOCK_SECTION = Bounds("", "9.0", "a section of block migration")
    MULTIFD_FLUSH = Bounds("8.1", "", "a MULTIFD_FLUSH record")
    INIT_DATA_SENT = Bounds("8.1", "", "marker DEV_INIT_DATA_SENT")
    ZERO_PAGES = Bounds("9.0", "", "a multifd packet with zero pages")
    MAPPED_RAM = Bounds("9.0", "", "capability mapped-ram")
    QPL_OR_UADK = Bounds("9.1", "", "pages compressed by QPL or UADK")
    QATZIP = Bounds("9.2", "", "pages compressed by QATzip")
    DEVICE_STATE = Bounds("10.0", "", "device state packets")
    SWITCHOVER_START = Bounds("10.0", "", "command SWITCHOVER_START")
    LOAD_READY = Bounds("10.1", "", "marker DEV_CONFIG_LOAD_READY")
    MULTIFD_POSTCOPY = Bounds("10.1", "", "postcopy-ram together with multifd")
    LOADED_PING = Bounds("10.2", "", "PING 0x42 in the postcopy package")
    NO_LOADED_PING = Bounds("", "10.1", "no PING 0x42 in the postcopy package")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One thing that was seen.

    Attributes:
        text: what.
        since: the first release that writes it; empty if all old ones do.
        until: the last one; empty if all new ones do.
        where: channel and number of the frame that shows it first.
    """

    text: str
    since: str
    until: str
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognition:
    """What all evidence together allows.

    Attributes:
        evidence: in order of appearance.
        since: the first release that is possible; empty if nothing excludes the old ones.
        until: the last one; empty if nothing excludes the new ones.
    """

    evidence: tuple[Evidence, ...] = ()
    since: str = ""
    until: str = ""

    @property
    def is_possible(self) -> bool:
        """Whether a release exists that does everything that was seen."""
        if not self.since or not self.until:
            return True
        return release_number(self.since) <= release_number(self.until)

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """The known profiles that are possible, oldest first."""
        return tuple(each for each in PROFILES.values() if self._allows(release_number(each.name)))

    @property
    def profile(self) -> Profile | None:
        """The oldest profile that is possible; None if none is known that is."""
        return next(iter(self.profiles), None)

    def _allows(self, release: tuple[int, int]) -> bool:
        is_late = not self.since or release >= release_number(self.since)
        is_early = not self.until or release <= release_number(self.until)
        return is_late and is_early


_LOSSES: Final = frozenset({Kind.GAP, Kind.UNDECODED})


class ReleaseTracker:
    """Collects evidence of one migration's source; frames must come in the order of arrival."""

    __slots__ = ("_evidence", "_finders", "_lost", "_multifd", "_postcopy", "_seen")

    def __init__(self) -> None:
        self._evidence: list[Evidence] = []
        self._seen: set[Trait] = set()
        self._multifd = self._postcopy = False
        self._lost = False
        self._finders: dict[Kind, Callable[[Frame], Iterator[Trait]]] = {
            Kind.MULTIFD_INIT: self._of_init,
            Kind.MULTIFD_RAM: _of_packet,
            Kind.MULTIFD_SYNC: _of_packet,
            Kind.MULTIFD_DEVICE_STATE: _of_device_state,
            Kind.MAIN_COMMAND: self._of_command,
            Kind.MAIN_SECTION_START: _of_section,
            Kind.RAM_RECORD: _of_record,
            Kind.VFIO_MARKER: _of_marker,
        }

    def add(self, frame: Frame) -> None:
        """Take the next frame, gaps as well."""
        if frame.kind in _LOSSES:
            self._lost |= frame.channel.name == "main"
        if frame.kind is Kind.MAIN_CONFIGURATION:
            self._machine(frame)
        finder = self._finders.get(frame.kind)
        if finder is None:
            return
        if frame.kind is Kind.MULTIFD_DEVICE_STATE:
            # Most frames are such packets, and the first one tells all.
            del self._finders[frame.kind]
        for trait in finder(frame):
            if trait not in self._seen:
                self._seen.add(trait)
                self._note(trait.value, frame)

    def recognition(self) -> Recognition:
        """Give what is known."""
        since = [each.since for each in self._evidence if each.since]
        until = [each.until for each in self._evidence if each.until]
        return Recognition(
            evidence=tuple(self._evidence),
            since=max(since, key=release_number, default=""),
            until=min(until, key=release_number, default=""),
        )

    def _note(self, bounds: Bounds, frame: Frame) -> None:
        where = f"{frame.channel.name} #{frame.number}"
        self._evidence.append(
            Evidence(text=bounds.text, since=bounds.since, until=bounds.until, where=where)
        )

    def _machine(self, frame: Frame) -> None:
        configuration = frame.value
        if not isinstance(configuration, Configuration):
            return
        match = _MACHINE.fullmatch(configuration.name)
        if match is not None:
            # A release knows its own machine types and older ones.
            release = f"{match[1]}.{match[2]}"
            self._note(Bounds(release, "", f"machine type {configuration.name}"), frame)
        if "mapped-ram" in configuration.capabilities and Trait.MAPPED_RAM not in self._seen:
            self._seen.add(Trait.MAPPED_RAM)
            self._note(Trait.MAPPED_RAM.value, frame)

    def _of_init(self, frame: Frame) -> Iterator[Trait]:
        self._multifd = True
        yield from self._both()

    def _of_command(self, frame: Frame) -> Iterator[Trait]:
        record = frame.value
        if not isinstance(record, CommandRecord):
            return
        payload, command = record.payload, record.header.cmd
        if command == Command.SWITCHOVER_START:
            yield Trait.SWITCHOVER_START
        elif isinstance(payload, Ping) and payload.value == LOADED_PING:
            yield Trait.LOADED_PING
        elif isinstance(payload, PostcopyAdvise):
            self._postcopy = True
            yield from self._both()
        elif command == Command.POSTCOPY_RUN and Trait.LOADED_PING not in self._seen:
            if self._lost:
                # It may have been there.
                return
            yield Trait.NO_LOADED_PING

    def _both(self) -> Iterator[Trait]:
        if self._multifd and self._postcopy:
            yield Trait.MULTIFD_POSTCOPY


def _of_packet(frame: Frame) -> Iterator[Trait]:
    packet = frame.value
    if not isinstance(packet, MultiFDPacketCounts):
        return
    if packet.zero_pages:
        yield Trait.ZERO_PAGES
    if packet.flags & MultiFDFlag.SYNC and packet.normal_pages:
        yield Trait.SYNC_WITH_PAGES
    if packet.flags & (MultiFDFlag.QPL | MultiFDFlag.UADK):
        yield Trait.QPL_OR_UADK
    if packet.flags & MultiFDFlag.QATZIP:
        yield Trait.QATZIP


def _of_device_state(frame: Frame) -> Iterator[Trait]:
    yield Trait.DEVICE_STATE


def _of_section(frame: Frame) -> Iterator[Trait]:
    if frame.section is not None and frame.section.idstr == "block":
        yield Trait.BLOCK_SECTION


def _of_record(frame: Frame) -> Iterator[Trait]:
    record = frame.value
    if not isinstance(record, RamRecord):
        return
    if record.flags & RamFlag.MULTIFD_FLUSH:
        yield Trait.MULTIFD_FLUSH
    elif record.flags & RamFlag.COMPRESS_PAGE:
        yield Trait.COMPRESSED_PAGE


_MARKER_TRAITS: Final[Mapping[int, Trait]] = {
    VFIOMarker.DEV_INIT_DATA_SENT.value: Trait.INIT_DATA_SENT,
    VFIOMarker.DEV_CONFIG_LOAD_READY.value: Trait.LOAD_READY,
}


def _of_marker(frame: Frame) -> Iterator[Trait]:
    record = frame.value
    if isinstance(record, MarkerRecord) and record.marker in _MARKER_TRAITS:
        yield _MARKER_TRAITS[record.marker]
