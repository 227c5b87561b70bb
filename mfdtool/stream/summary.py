# SPDX-License-Identifier: GPL-2.0-or-later
"""What a capture holds, in the numbers that fit on one screen.

A collector takes frames as they arrive and keeps counts only, so its memory follows the number
of channels and devices, not that of packets.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mfdtool.packets.values import Endpoint
from mfdtool.stream.channel import Channel, ChannelKind
from mfdtool.stream.devices import (
    DeviceKey,
    DeviceSummary,
    DeviceTracker,
    PacketKeys,
    SectionTracker,
    section_key,
)
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.iterable import RecordsBody
from mfdtool.stream.multifd import MultiFDFramer
from mfdtool.stream.phases import PhaseTimes, PhaseTracker
from mfdtool.stream.ram import RamFramer
from mfdtool.stream.ram_summary import RamSummary, RamTracker
from mfdtool.stream.recognition import Recognition, ReleaseTracker
from mfdtool.stream.span import EndReason
from mfdtool.stream.switchover import SwitchoverSummary, SwitchoverTracker
from mfdtool.stream.values import MarkerRecord
from mfdtool.stream.vmstate import DeviceState
from mfdtool.wire.main_stream import Configuration
from mfdtool.wire.multifd import MultiFDInit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mfdtool.stream.migration import Migration

_KINDS: Final = tuple(ChannelKind)

DEVICES_LIMIT: Final = 4096
"""Devices of a capture that are told apart; more than that are counted, not shown."""


@dataclass(frozen=True, slots=True)
class KindCount:
    """Frames of one kind: how many, the captured bytes of them, and those not captured."""

    kind: Kind
    frames: int
    bytes: int
    missing: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSummary:
    """One channel.

    Attributes:
        name: as ``decode`` shows it.
        kind: what it carries.
        client: the end that connected; None for a stream that came as a file.
        from_start: whether the capture has the channel's first byte.
        bytes: length of the stream, gaps included.
        gap_bytes: bytes of it that the capture lacks.
        undecoded_bytes: captured bytes that could not be decoded, those of a device's state that
            its description does not fit among them.
        frames: packets, sections, records and so on.
        incomplete: those of which bytes are missing.
        first_ns: when the connection was first seen; -1 if times are unknown.
        last_ns: when its last byte arrived.
        end: how it ended; None if nobody knows.
    """

    name: str
    kind: ChannelKind
    client: Endpoint | None
    from_start: bool
    bytes: int
    gap_bytes: int
    undecoded_bytes: int
    frames: int
    incomplete: int
    first_ns: int
    last_ns: int
    end: EndReason | None


@dataclass(frozen=True, slots=True)
class Undescribed:
    """Bodies whose fields nobody can tell: of how many sections, and their captured bytes."""

    sections: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationSummary:
    """One migration.

    Attributes:
        index: its number in the capture.
        server: where the destination listens; None for streams that came as files.
        uuid: the VM's UUID; None without multifd handshake.
        machine: machine type; empty if the configuration section is missing.
        page_size: target page size; 0 if the streams did not tell.
        channels: main first, multifd channels by number.
        devices: those that have a VFIO section or a multifd packet, in order of appearance.
        devices_omitted: frames of devices beyond `DEVICES_LIMIT`.
        phases: those that were seen.
        ram: counts of pages.
        kinds: frames by kind, most bytes first; gaps are not among them.
        undescribed: bodies of devices that no vmdescription tells of.
        switchover: whether the main stream had SWITCHOVER_START.
        ended: whether the main stream had its EOF.
        standstill: what is known of the switchover besides.
        recognition: which releases could have written it.
    """

    index: int
    server: Endpoint | None
    uuid: bytes | None
    machine: str
    page_size: int
    channels: tuple[ChannelSummary, ...]
    devices: tuple[DeviceSummary, ...]
    devices_omitted: int
    phases: tuple[PhaseTimes, ...]
    ram: RamSummary
    kinds: tuple[KindCount, ...]
    undescribed: Undescribed
    switchover: bool
    ended: bool
    standstill: SwitchoverSummary
    recognition: Recognition

    @property
    def first_ns(self) -> int:
        """When it began; -1 if times are unknown."""
        return min((channel.first_ns for channel in self.channels), default=-1)

    @property
    def last_ns(self) -> int:
        """When its last byte arrived; -1 if times are unknown."""
        return max((channel.last_ns for channel in self.channels), default=-1)

    @property
    def uuid_text(self) -> str | None:
        """The UUID as QEMU prints it."""
        return None if self.uuid is None else MultiFDInit(uuid=self.uuid, id=0).uuid_text

    @property
    def main(self) -> ChannelSummary | None:
        """The main channel."""
        return next((one for one in self.channels if one.kind is ChannelKind.MAIN), None)

    @property
    def gap_bytes(self) -> int:
        """Bytes that the capture lacks."""
        return sum(channel.gap_bytes for channel in self.channels)

    @property
    def undecoded_bytes(self) -> int:
        """Bytes that are there but could not be decoded."""
        return sum(channel.undecoded_bytes for channel in self.channels)


class SummaryCollector:
    """Counts frames of all migrations, which must come in the order of arrival."""

    def __init__(self) -> None:
        self._tallies: dict[int, _MigrationTally] = {}

    def add(self, frame: Frame) -> None:
        """Take the next frame."""
        migration = frame.channel.migration
        tally = self._tallies.get(migration)
        if tally is None:
            tally = self._tallies[migration] = _MigrationTally()
        tally.add(frame)

    def summaries(self, migrations: Iterable[Migration]) -> tuple[MigrationSummary, ...]:
        """Give the counts, with what the decoder knows of its ``migrations``."""
        return tuple(
            self._tallies.get(migration.index, _MigrationTally()).summary(migration)
            for migration in migrations
        )


class _KindTally:
    __slots__ = ("bytes", "frames", "missing")

    def __init__(self) -> None:
        self.frames = self.bytes = self.missing = 0


class _ChannelTally:
    __slots__ = ("frames", "incomplete", "undecoded")

    def __init__(self) -> None:
        self.frames = self.incomplete = self.undecoded = 0


class _MigrationTally:
    """What is counted of one migration."""

    def __init__(self) -> None:
        self._kinds: defaultdict[Kind, _KindTally] = defaultdict(_KindTally)
        self._channels: defaultdict[str, _ChannelTally] = defaultdict(_ChannelTally)
        self._devices: dict[DeviceKey, DeviceTracker] = {}
        self._devices_omitted = 0
        self._keys = PacketKeys()
        self._phases = PhaseTracker()
        self._sections = SectionTracker()
        self._machine = ""
        self._ram = RamTracker()
        self._switchover = SwitchoverTracker()
        self._releases = ReleaseTracker()
        self._undescribed_ids: set[int] = set()
        self._undescribed_bytes = 0
        self._handlers: Mapping[Kind, Callable[[Frame], None]] = {
            Kind.MULTIFD_DEVICE_STATE: self._device_packet,
            Kind.VFIO_MARKER: self._marker,
            Kind.MAIN_CONFIGURATION: self._configuration,
            Kind.MAIN_OPAQUE: self._body,
        }

    def add(self, frame: Frame) -> None:
        kind = frame.kind
        if kind is Kind.GAP:
            # Stream and frames count what is missing already.
            self._phases.add(frame)
            self._releases.add(frame)
            return
        self._switchover.add(frame, self._phases.add(frame))
        self._ram.add(frame)
        self._releases.add(frame)
        self._sections.add(frame)
        captured = frame.length - frame.missing
        kinds = self._kinds[kind]
        kinds.frames += 1
        kinds.bytes += captured
        kinds.missing += frame.missing
        channel = self._channels[frame.channel.name]
        channel.frames += 1
        channel.incomplete += frame.missing > 0
        if kind is Kind.UNDECODED:
            channel.undecoded += captured
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(frame)

    def summary(self, migration: Migration) -> MigrationSummary:
        ordered = sorted(migration.channels, key=_place)
        channels = tuple(self._channel(channel) for channel in ordered)
        first = min((channel.first_ns for channel in channels), default=-1)
        last = max((channel.last_ns for channel in channels), default=-1)
        kinds = (
            KindCount(kind, tally.frames, tally.bytes, tally.missing)
            for kind, tally in self._kinds.items()
        )
        return MigrationSummary(
            index=migration.index,
            server=migration.server,
            uuid=migration.uuid,
            machine=self._machine,
            page_size=_page_size(migration.channels),
            channels=channels,
            devices=tuple(tracker.summary() for tracker in self._devices.values()),
            devices_omitted=self._devices_omitted,
            phases=self._phases.times(first_ns=first, last_ns=last),
            ram=self._ram.summary(sections=self._phases.iterations),
            kinds=tuple(sorted(kinds, key=lambda count: (-count.bytes, count.kind))),
            undescribed=Undescribed(len(self._undescribed_ids), self._undescribed_bytes),
            switchover=self._phases.switchover,
            ended=self._phases.ended,
            standstill=self._switchover.summary(),
            recognition=self._releases.recognition(),
        )

    # Frames

    def _device_packet(self, frame: Frame) -> None:
        tracker = self._device(self._keys.find(frame))
        if tracker is not None:
            tracker.add_packet(frame)

    def _marker(self, frame: Frame) -> None:
        record, section = frame.value, frame.section
        if isinstance(record, MarkerRecord) and section is not None:
            if not section.idstr and not record.data_length:
                # Nobody can say whose section this is, and nothing is in it.
                return
            migration = frame.channel.migration
            tracker = self._device(section_key(migration, section))
            if tracker is not None:
                tracker.add_marker(frame, record, section=self._sections.kind(migration))

    def _configuration(self, frame: Frame) -> None:
        if isinstance(frame.value, Configuration):
            self._machine = frame.value.name

    def _body(self, frame: Frame) -> None:
        """Count what of a device's state is not decoded."""
        value, section = frame.value, frame.section
        if isinstance(value, DeviceState):
            if (rest := value.rest()) is not None:
                captured = value.count_captured((rest.start, rest.stop))
                self._channels[frame.channel.name].undecoded += captured
        elif section is not None and not isinstance(value, RecordsBody):
            self._undescribed_ids.add(section.section_id)
            self._undescribed_bytes += frame.length - frame.missing

    def _device(self, key: DeviceKey | None) -> DeviceTracker | None:
        if key is None:
            return None
        tracker = self._devices.get(key)
        if tracker is None:
            if len(self._devices) == DEVICES_LIMIT:
                self._devices_omitted += 1
                return None
            tracker = self._devices[key] = DeviceTracker(key)
        return tracker

    # Results

    def _channel(self, channel: Channel) -> ChannelSummary:
        stream = channel.stream
        tally = self._channels[channel.name]
        client = None
        if stream.key is not None:
            client = stream.key.source if stream.is_towards_server else stream.key.destination
        return ChannelSummary(
            name=channel.name,
            kind=channel.kind,
            client=client,
            from_start=channel.has_start,
            bytes=stream.length,
            gap_bytes=stream.gap_bytes,
            undecoded_bytes=tally.undecoded,
            frames=tally.frames,
            incomplete=tally.incomplete,
            first_ns=stream.time_ns,
            last_ns=max(stream.last_time_ns, stream.time_ns),
            end=stream.end.reason if stream.end is not None else None,
        )


def _place(channel: Channel) -> tuple[int, int, str]:
    """Sort by kind, then so that 2 comes before 10."""
    return _KINDS.index(channel.kind), len(channel.name), channel.name


def _page_size(channels: Iterable[Channel]) -> int:
    """Give the target page size that the streams told."""
    for channel in channels:
        framer = channel.framer
        if isinstance(framer, RamFramer | MultiFDFramer) and framer.page_size:
            return framer.page_size
    return 0
