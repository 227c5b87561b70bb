# SPDX-License-Identifier: GPL-2.0-or-later
"""How much, how fast, how large, and how far out of order: packets in groups.

Memory is bounded: sizes are counted, not kept, and the order of a device's packets is judged by
the first `ORDER_LIMIT` of them.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from mfdtool.stream.devices import (
    DeviceKey,
    PacketKeys,
    SectionTracker,
    Via,
    section_key,
)
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.phases import Phase, PhaseTracker
from mfdtool.stream.values import MarkerRecord
from mfdtool.wire.constants import (
    MULTIFD_DEVICE_STATE_SIZE,
    VFIO_PACKET_HEADER_SIZE,
    VFIOMarker,
)
from mfdtool.wire.vfio import DeviceStateHeader

if TYPE_CHECKING:
    from collections.abc import Callable

NANOSECONDS: Final = 1_000_000_000

SIZES_KEPT: Final = 1 << 14
"""Different sizes that are counted one by one; beyond that, sizes of 8 significant bits."""

ORDER_LIMIT: Final = 1 << 20
"""Packets of a device whose order is judged: 8 bytes are kept for each."""

GROUPS_LIMIT: Final = 4096
"""Groups that are told apart."""

_SIGNIFICANT_BITS: Final = 8


class By(StrEnum):
    """What makes a group."""

    CHANNEL = "channel"
    DEVICE = "device"
    PHASE = "phase"


class DevicePart(StrEnum):
    """Which part of a device's state packets carry."""

    PRECOPY = "precopy"
    STOP_COPY = "stop-copy"
    CONFIG = "config"


class ChannelGroup(NamedTuple):
    """All frames of a channel."""

    migration: int
    channel: str


class PhaseGroup(NamedTuple):
    """All frames that arrived in a phase."""

    migration: int
    phase: Phase


class DeviceGroup(NamedTuple):
    """Packets, or main-stream records, with a part of a device's state."""

    device: DeviceKey
    part: DevicePart
    via: Via


Group: TypeAlias = ChannelGroup | PhaseGroup | DeviceGroup


class Bucket(NamedTuple):
    """One bar of a histogram: packets of ``low`` to ``high`` bytes, both included."""

    low: int
    high: int
    packets: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of packets in bytes; the median is rounded down by at most 1/128 if not ``exact``."""

    minimum: int
    median: int
    maximum: int
    exact: bool
    histogram: tuple[Bucket, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How the order of arrival differs from that of idx.

    Only the first packet with each idx counts, config included. Its rank by idx is how many of
    them have a smaller idx, so holes do not shift anything.

    Attributes:
        packets: how many were judged.
        truncated: whether there were more, beyond `ORDER_LIMIT`.
        inversions: pairs of packets of which the one with the greater idx arrived first.
        displaced: packets whose rank by arrival is not their rank by idx.
        displacement_max: the greatest difference between these two ranks.
        displacement_mean: the mean of it over all packets.
        waiting_packets_max: the most packets that were there before their turn, at one time.
        waiting_bytes_max: the most bytes of data that such packets had, at one time.
    """

    packets: int
    truncated: bool
    inversions: int
    displaced: int
    displacement_max: int
    displacement_mean: float
    waiting_packets_max: int
    waiting_bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatistics:
    """One group.

    Attributes:
        group: which one.
        packets: how many packets or frames it has.
        bytes: their bytes, as far as they were captured; for devices those of the data only.
        missing: bytes that were not captured.
        first_ns: when the first byte arrived; -1 if times are unknown.
        last_ns: when the last byte arrived.
        sizes: the packets' sizes, headers included except for devices.
        order: for a device's multifd packets.
    """

    group: Group
    packets: int
    bytes: int
    missing: int
    first_ns: int
    last_ns: int
    sizes: Sizes
    order: Order | None = None

    @property
    def duration_ns(self) -> int:
        """Time between first and last byte."""
        return self.last_ns - self.first_ns

    @property
    def throughput(self) -> float | None:
        """Bytes per second from the first byte to the last; None if no time passed."""
        duration = self.duration_ns
        return self.bytes * NANOSECONDS / duration if duration > 0 else None


@dataclass(frozen=True, slots=True)
class Measured:
    """All groups, in the order of their first packets; ``omitted`` frames are in none of them."""

    by: By
    groups: tuple[GroupStatistics, ...]
    omitted: int = 0


class StatisticsCollector:
    """Groups frames, which must come in the order of arrival."""

    def __init__(self, by: By = By.DEVICE) -> None:
        self._groups: dict[Group, _Tally] = {}
        self._orders: dict[DeviceKey, _Arrivals] = {}
        self._phases: dict[int, PhaseTracker] = {}
        self._sections = SectionTracker()
        self._keys = PacketKeys()
        finders: dict[By, Callable[[Frame], tuple[Group, int] | None]] = {
            By.CHANNEL: self._find_channel,
            By.DEVICE: self._find_device,
            By.PHASE: self._find_phase,
        }
        self._by = by
        self._find = finders[by]
        self._omitted = 0

    def add(self, frame: Frame, *, counted: bool = True) -> None:
        """Take the next frame; one that is not ``counted`` only tells phases and sections."""
        found = self._find(frame)
        if found is None or not counted:
            return
        group, size = found
        tally = self._groups.get(group)
        if tally is None:
            if len(self._groups) == GROUPS_LIMIT:
                self._omitted += 1
                return
            tally = self._groups[group] = _Tally()
        tally.add(frame, size=size)
        if isinstance(frame.value, DeviceStateHeader) and isinstance(group, DeviceGroup):
            arrivals = self._orders.get(group.device)
            if arrivals is None:
                arrivals = self._orders[group.device] = _Arrivals()
            arrivals.add(frame.value.idx, size)

    def measured(self) -> Measured:
        """Give what was counted so far."""
        groups = tuple(
            tally.statistics(group, order=self._order(group))
            for group, tally in self._groups.items()
        )
        return Measured(self._by, groups, self._omitted)

    def _find_channel(self, frame: Frame) -> tuple[Group, int] | None:
        if frame.kind is Kind.GAP:
            return None
        return ChannelGroup(frame.channel.migration, frame.channel.name), frame.length

    def _find_phase(self, frame: Frame) -> tuple[Group, int] | None:
        migration = frame.channel.migration
        tracker = self._phases.get(migration)
        if tracker is None:
            tracker = self._phases[migration] = PhaseTracker()
        phase = tracker.add(frame)
        if frame.kind is Kind.GAP:
            return None
        return PhaseGroup(migration, phase), frame.length

    def _find_device(self, frame: Frame) -> tuple[Group, int] | None:
        if frame.kind is Kind.MULTIFD_DEVICE_STATE:
            return self._of_packet(frame)
        if frame.kind is Kind.VFIO_MARKER:
            return self._of_marker(frame)
        self._sections.add(frame)
        return None

    def _of_packet(self, frame: Frame) -> tuple[Group, int] | None:
        key = self._keys.find(frame)
        if key is None:
            return None
        header = frame.value
        part = DevicePart.STOP_COPY
        if isinstance(header, DeviceStateHeader) and header.is_config:
            part = DevicePart.CONFIG
        size = max(frame.length - MULTIFD_DEVICE_STATE_SIZE - VFIO_PACKET_HEADER_SIZE, 0)
        return DeviceGroup(key, part, Via.MULTIFD), size

    def _of_marker(self, frame: Frame) -> tuple[Group, int] | None:
        record, section = frame.value, frame.section
        if not isinstance(record, MarkerRecord) or section is None:
            return None
        migration = frame.channel.migration
        if record.marker == VFIOMarker.DEV_CONFIG_STATE:
            part = DevicePart.CONFIG
        elif record.marker != VFIOMarker.DEV_DATA_STATE:
            return None
        elif self._sections.is_precopy(migration):
            part = DevicePart.PRECOPY
        else:
            part = DevicePart.STOP_COPY
        key = section_key(migration, section)
        return DeviceGroup(key, part, Via.MAIN), record.data_length

    def _order(self, group: Group) -> Order | None:
        if isinstance(group, DeviceGroup) and group.via is Via.MULTIFD:
            arrivals = self._orders.get(group.device)
            if arrivals is not None and group.part is not DevicePart.CONFIG:
                return arrivals.order()
        return None


class SizeCounter:
    """Counts sizes."""

    __slots__ = ("_coarse", "_counts", "_maximum", "_minimum")

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._coarse = False
        self._minimum = 1 << 63
        self._maximum = 0

    def add(self, size: int) -> None:
        """Count one size, in bytes."""
        if size < self._minimum:
            self._minimum = size
        if size > self._maximum:
            self._maximum = size
        counts = self._counts
        counts[_rounded(size) if self._coarse else size] += 1
        if len(counts) > SIZES_KEPT and not self._coarse:
            self._coarse = True
            self._counts = Counter()
            for known, count in counts.items():
                self._counts[_rounded(known)] += count

    def sizes(self) -> Sizes:
        """Give what was counted, which must be something."""
        counts = sorted(self._counts.items())
        bars: Counter[int] = Counter()
        total, median, middle = 0, -1, (self._counts.total() - 1) // 2
        for size, count in counts:
            bars[size.bit_length()] += count
            total += count
            if median < 0 and total > middle:
                median = size
        histogram = tuple(
            Bucket(1 << (bits - 1) if bits else 0, (1 << bits) - 1, count)
            for bits, count in bars.items()
        )
        median = max(median, self._minimum)
        return Sizes(self._minimum, median, self._maximum, not self._coarse, histogram)


class _Tally:
    """What is counted of a group."""

    __slots__ = ("_bytes", "_first", "_last", "_missing", "_sizes")

    def __init__(self) -> None:
        self._bytes = self._missing = 0
        self._first = self._last = -1
        self._sizes = SizeCounter()

    def add(self, frame: Frame, *, size: int) -> None:
        first = frame.time_first
        if 0 <= first < self._first or self._first < 0:
            self._first = first
        if frame.time_last > self._last:
            self._last = frame.time_last
        missing = min(frame.missing, size)
        self._bytes += size - missing
        self._missing += missing
        self._sizes.add(size)

    def statistics(self, group: Group, *, order: Order | None) -> GroupStatistics:
        sizes = self._sizes.sizes()
        packets = sum(bucket.packets for bucket in sizes.histogram)
        return GroupStatistics(
            group=group,
            packets=packets,
            bytes=self._bytes,
            missing=self._missing,
            first_ns=self._first,
            last_ns=self._last,
            sizes=sizes,
            order=order,
        )


class _Arrivals:
    """The idx and data sizes of a device's packets, in the order of arrival."""

    __slots__ = ("_idx", "_sizes", "_truncated")

    def __init__(self) -> None:
        self._idx = array("I")
        self._sizes = array("I")
        self._truncated = False

    def add(self, idx: int, size: int) -> None:
        if len(self._idx) < ORDER_LIMIT:
            self._idx.append(idx)
            self._sizes.append(size)
        else:
            self._truncated = True

    def order(self) -> Order:
        first = dict.fromkeys(self._idx)
        if len(first) == len(self._idx):
            sizes = list(self._sizes)
        else:
            known = dict(zip(reversed(self._idx), reversed(self._sizes), strict=True))
            sizes = [known[idx] for idx in first]
        return order_of(list(first), sizes, truncated=self._truncated)


def order_of(idx: list[int], sizes: list[int], *, truncated: bool = False) -> Order:
    """Judge the order of packets that are all different, given as they arrived."""
    by_idx = sorted(range(len(idx)), key=idx.__getitem__)
    ranks = [0] * len(idx)
    for rank, arrival in enumerate(by_idx):
        ranks[arrival] = rank
    distances = [abs(rank - arrival) for arrival, rank in enumerate(ranks)]
    packets, waiting = _waiting(idx, sizes)
    return Order(
        packets=len(idx),
        truncated=truncated,
        inversions=count_inversions(ranks),
        displaced=len(distances) - distances.count(0),
        displacement_max=max(distances, default=0),
        displacement_mean=sum(distances) / len(distances) if distances else 0.0,
        waiting_packets_max=packets,
        waiting_bytes_max=waiting,
    )


def count_inversions(permutation: list[int]) -> int:
    """Count pairs in the wrong order among the numbers 0 to n-1, in O(n log n).

    Numbers are parted by their bits, highest first: a pair is counted where its two first differ.
    """
    groups = [permutation]
    inversions = 0
    for bit in reversed(range(len(permutation).bit_length())):
        parted: list[list[int]] = []
        for group in groups:
            low: list[int] = []
            high: list[int] = []
            for number in group:
                if number >> bit & 1:
                    high.append(number)
                else:
                    low.append(number)
                    inversions += len(high)
            parted += [part for part in (low, high) if len(part) > 1]
        groups = parted
    return inversions


def _waiting(idx: list[int], sizes: list[int]) -> tuple[int, int]:
    """Give the most packets, and bytes, that were there at once before an earlier idx was.

    A packet whose turn has come is taken at once, as by a destination that writes without delay
    (vfio/migration-multifd.c:vfio_load_bufs_thread); behind a hole all wait for ever.
    """
    waiting: dict[int, int] = {}
    wanted = held = most_packets = most_bytes = 0
    for number, size in zip(idx, sizes, strict=True):
        if number != wanted:
            waiting[number] = size
            held += size
            most_packets = max(most_packets, len(waiting))
            most_bytes = max(most_bytes, held)
            continue
        wanted += 1
        while wanted in waiting:
            held -= waiting.pop(wanted)
            wanted += 1
    return most_packets, most_bytes


def _rounded(size: int) -> int:
    """Keep the significant bits only."""
    shift = max(size.bit_length() - _SIGNIFICANT_BITS, 0)
    return size >> shift << shift
