# SPDX-License-Identifier: GPL-2.0-or-later
"""What was sent of each device's state: on the main stream, over multifd, or both.

QEMU sends precopy data in PART sections of the main stream in any case. What follows when the
guest stands, and the config, go over multifd if the property ``x-migration-multifd-transfer`` is
on, otherwise into the END and the FULL section (vfio/migration.c:vfio_save_complete_precopy,
vfio/migration-multifd.c:vfio_multifd_save_complete_precopy_thread).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final, NamedTuple

from mfdtool.stream.frames import Frame, Kind, Section
from mfdtool.stream.indexes import RANGES_LISTED, IdxRange, IdxSet
from mfdtool.stream.pci_fields import pci_state
from mfdtool.stream.values import MarkerRecord
from mfdtool.wire.constants import VFIO_PACKET_HEADER_SIZE, VFIOMarker
from mfdtool.wire.multifd import MultiFDPacketDeviceState
from mfdtool.wire.vendors.vendor import HEAD_SIZE, Evidence
from mfdtool.wire.vfio import DeviceStateHeader

_CHANNELS_LISTED: Final = 256
_KEYS_KEPT: Final = 4096
_PACKETS: Final = (DeviceStateHeader, MultiFDPacketDeviceState)


class Via(StrEnum):
    """Which way device state was sent."""

    MAIN = "main"
    MULTIFD = "multifd"


class DeviceKey(NamedTuple):
    """A device of a migration, as sections and packets name it."""

    migration: int
    idstr: str
    instance_id: int


@dataclass(frozen=True, slots=True)
class Amount:
    """Pieces of data: how many, their bytes, and how many of these are not in the capture."""

    pieces: int = 0
    bytes: int = 0
    missing: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigSummary:
    """The config: the way it came, its bytes (markers included), its idx if it came by multifd."""

    via: Via
    bytes: int
    missing: int = 0
    idx: int | None = None
    channel: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSummary:
    """What a capture has of one device's state.

    Attributes:
        key: which device.
        precopy: data in START and PART sections.
        main: data in END and FULL sections of the main stream.
        multifd: data in multifd packets, without the config.
        config: the last config that was sent; None if there was none.
        configs: how many there were, one in a good migration.
        channels: the multifd channels that carried its data packets, in order of appearance.
        first_ns: when its first multifd packet, or data in an END section, arrived; -1 if unknown.
        last_ns: when the last one did.
        expected: how many idx there should be, by the config's idx; None without config packet.
        missing_idx: the first holes below ``expected``, or below the highest idx.
        missing_idx_count: how many idx all holes have.
        duplicates: packets whose idx had been there already.
        behind_config: packets whose idx is greater than the config's.
        headless: packets whose VFIO header is missing or too short.
        evidence: what its driver can be told by, as far as the capture has it.
    """

    key: DeviceKey
    precopy: Amount
    main: Amount
    multifd: Amount
    config: ConfigSummary | None
    configs: int
    channels: tuple[str, ...]
    first_ns: int
    last_ns: int
    expected: int | None
    missing_idx: tuple[IdxRange, ...]
    missing_idx_count: int
    duplicates: int
    behind_config: int
    headless: int
    evidence: Evidence

    @property
    def is_whole(self) -> bool:
        """Whether the capture has every byte, as far as its numbering can tell."""
        amounts = (self.precopy, self.main, self.multifd)
        return not (
            any(amount.missing for amount in amounts)
            or self.missing_idx_count
            or self.headless
            or self.config is None
            or self.config.missing
            or (self.expected is None and self.multifd.pieces)
        )


class _AmountTally:
    __slots__ = ("_bytes", "_missing", "_pieces")

    def __init__(self) -> None:
        self._pieces = self._bytes = self._missing = 0

    def add(self, size: int, missing: int) -> None:
        self._pieces += 1
        self._bytes += size
        self._missing += missing

    def amount(self) -> Amount:
        return Amount(self._pieces, self._bytes, self._missing)


class DeviceTracker:
    """Counts what one device sends."""

    __slots__ = (
        "_channels",
        "_config",
        "_configs",
        "_duplicates",
        "_first",
        "_head",
        "_head_ended",
        "_headless",
        "_idx",
        "_key",
        "_last",
        "_main",
        "_multifd",
        "_pci",
        "_precopy",
    )

    def __init__(self, key: DeviceKey) -> None:
        self._key = key
        self._precopy, self._main, self._multifd = (_AmountTally() for _ in range(3))
        self._config: ConfigSummary | None = None
        self._configs = self._duplicates = self._headless = 0
        self._idx = IdxSet()
        self._channels: dict[str, None] = {}
        self._first = self._last = -1
        self._head, self._head_ended = b"", False
        self._pci: tuple[int, int] | None = None

    def add_packet(self, frame: Frame) -> None:
        """Count a multifd packet."""
        self._stamp(frame)
        header = frame.value
        is_config = isinstance(header, DeviceStateHeader) and header.is_config
        if not is_config and len(self._channels) < _CHANNELS_LISTED:
            self._channels.setdefault(frame.channel.name)
        if not isinstance(header, DeviceStateHeader):
            self._headless += 1
            return
        size = header.next_packet_size - VFIO_PACKET_HEADER_SIZE
        if not self._idx.add(header.idx):
            self._duplicates += 1
        self._look_at_data(frame, size)
        if header.is_config:
            self._look_at_config(frame)
            self._configs += 1
            self._config = ConfigSummary(
                via=Via.MULTIFD,
                bytes=size,
                missing=frame.missing,
                idx=header.idx,
                channel=frame.channel.name,
            )
        else:
            self._multifd.add(size, frame.missing)

    def add_marker(self, frame: Frame, record: MarkerRecord, *, section: Kind | None) -> None:
        """Count a record of the main stream; ``section`` is the kind of its section's header."""
        size = record.data_length
        if record.marker == VFIOMarker.DEV_DATA_STATE:
            self._look_at_data(frame, size)
            if section in _PRECOPY_SECTIONS:
                self._precopy.add(size, frame.missing)
            else:
                self._stamp(frame)
                self._main.add(size, frame.missing)
        elif record.marker == VFIOMarker.DEV_CONFIG_STATE:
            self._look_at_config(frame)
            self._configs += 1
            markers = 2 * (frame.length - size)
            self._config = ConfigSummary(
                via=Via.MAIN, bytes=size + markers, missing=frame.missing, channel="main"
            )

    def summary(self) -> DeviceSummary:
        """Give the counts."""
        idx = self._idx
        config = self._config
        last = config.idx if config is not None else None
        expected = None if last is None else last + 1
        stop = idx.highest + 1 if expected is None else expected
        missing_count = idx.count_missing(stop)
        return DeviceSummary(
            key=self._key,
            precopy=self._precopy.amount(),
            main=self._main.amount(),
            multifd=self._multifd.amount(),
            config=config,
            configs=self._configs,
            channels=tuple(self._channels),
            first_ns=self._first,
            last_ns=self._last,
            expected=expected,
            missing_idx=tuple(islice(idx.missing(stop), RANGES_LISTED)),
            missing_idx_count=missing_count,
            duplicates=self._duplicates,
            behind_config=idx.count - (stop - missing_count),
            headless=self._headless,
            evidence=Evidence(self._head[:HEAD_SIZE], self._pci),
        )

    def _look_at_data(self, frame: Frame, size: int) -> None:
        """Collect the first bytes of the state, as far as nothing is missing between them."""
        if len(self._head) < HEAD_SIZE and not self._head_ended and frame.head:
            self._head += frame.head
            self._head_ended = len(frame.head) < min(size, HEAD_SIZE)

    def _look_at_config(self, frame: Frame) -> None:
        """Take the device's ids from its config."""
        state = pci_state(frame.config)
        if state is not None:
            self._pci = state.header.vendor_id, state.header.device_id

    def _stamp(self, frame: Frame) -> None:
        if self._first < 0:
            self._first = frame.time_first
        self._last = max(self._last, frame.time_last)


_PRECOPY_SECTIONS: Final = frozenset({Kind.MAIN_SECTION_START, Kind.MAIN_SECTION_PART})
_SECTION_HEADERS: Final = frozenset(
    {
        Kind.MAIN_SECTION_START,
        Kind.MAIN_SECTION_PART,
        Kind.MAIN_SECTION_END,
        Kind.MAIN_SECTION_FULL,
    }
)


class SectionTracker:
    """Remembers what kind of section each migration's main stream is in."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        self._open: dict[int, Kind] = {}

    def add(self, frame: Frame) -> None:
        """Take a frame of any kind."""
        if frame.kind in _SECTION_HEADERS:
            self._open[frame.channel.migration] = frame.kind

    def kind(self, migration: int) -> Kind | None:
        """Give the kind of the section that the last marker belongs to."""
        return self._open.get(migration)

    def is_precopy(self, migration: int) -> bool:
        """Tell whether device data met now is precopy data."""
        return self._open.get(migration) in _PRECOPY_SECTIONS


class PacketKeys:
    """Tells which device a multifd packet is about; remembers names that it has read before."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[tuple[int, bytes, int], DeviceKey] = {}

    def find(self, frame: Frame) -> DeviceKey | None:
        """Give the device; None if the frame is no device packet."""
        value = frame.value
        if not isinstance(value, _PACKETS):
            return None
        raw = (frame.channel.migration, value.idstr, value.instance_id)
        key = self._known.get(raw)
        if key is None:
            if len(self._known) == _KEYS_KEPT:
                self._known.clear()
            key = DeviceKey(raw[0], value.idstr_text, raw[2])
            self._known[raw] = key
        return key


def section_key(migration: int, section: Section) -> DeviceKey:
    """Give the device that a section is about."""
    return DeviceKey(migration, section.idstr, section.instance_id)
