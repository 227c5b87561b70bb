# SPDX-License-Identifier: GPL-2.0-or-later
"""One device's packets together: their idx, the config, and how long they wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from mfdtool.stream.indexes import IdxSet
from mfdtool.wire.constants import VFIO_INVALID_IDX, VFIOStateFlag

if TYPE_CHECKING:
    from mfdtool.loader.events import DevicePacket
    from mfdtool.loader.recording import Entry

_SPARSE_IDX: Final = 1 << 16
"""An idx that is so far above the number of packets costs memory for nothing."""

_RANGES_LISTED: Final = 8
_KNOWN_FLAGS: Final = int(VFIOStateFlag.CONFIG_STATE)


class Remark(NamedTuple):
    """A rule broken by a packet, or by all of them if ``entry`` is None."""

    rule: str
    message: str
    entry: Entry | None = None


class DeviceLint:
    """Collects one device's packets in order of arrival.

    Attributes:
        has_packets: whether there was any with an idx.
    """

    def __init__(self) -> None:
        self._seen = IdxSet()
        self._data = IdxSet()
        self._config: tuple[int, Entry] | None = None
        self._next = 0
        self._waiting: dict[int, int] = {}
        self._bytes = 0
        self._peak: tuple[int, int, Entry] | None = None

    @property
    def has_packets(self) -> bool:
        """Whether there was a packet that the destination could store."""
        return bool(self._seen.count)

    def add(self, entry: Entry, packet: DevicePacket) -> Iterator[Remark]:
        """Take a packet; give what is wrong with it."""
        idx = packet.idx
        if idx is None or packet.version or idx == VFIO_INVALID_IDX or packet.is_cut:
            return
        unknown = (packet.flags or 0) & ~_KNOWN_FLAGS
        if unknown:
            yield Remark("payload-flag-unknown", f"flags {unknown:#x}", entry)
        if packet.is_config:
            yield from self._add_config(entry, idx)
        elif not packet.data.length:
            yield Remark("data-packet-empty", f"idx {idx} has no data", entry)
        if not self._seen.add(idx):
            yield Remark("idx-duplicate", f"idx {idx} was sent before", entry)
            return
        if not packet.is_config:
            self._data.add(idx)
        if idx - self._seen.count > _SPARSE_IDX:
            message = f"idx {idx} after {self._seen.count - 1} other packets"
            yield Remark("idx-allocation", message, entry)
        self._wait(entry, idx, packet.data.length)

    def conclude(self) -> Iterator[Remark]:
        """Give what is wrong with all packets together."""
        if self._config is None:
            yield Remark("config-missing", f"{self._data.count} data packets and no config")
            stop = self._data.highest + 1
        else:
            stop = self._config[0]
            yield from self._config_place(*self._config)
        missing = self._seen.count_missing(stop)
        if missing:
            ranges = list(islice(self._seen.missing(stop), _RANGES_LISTED + 1))
            listed = ", ".join(map(str, ranges[:_RANGES_LISTED]))
            more = ", ..." if len(ranges) > _RANGES_LISTED else ""
            yield Remark("idx-gap", f"{missing} missing below {stop}: {listed}{more}")
        if self._peak is not None:
            size, waited_for, entry = self._peak
            message = f"up to {size} bytes waited for their turn, then for idx {waited_for}"
            yield Remark("queue-depth", message, entry)

    def _add_config(self, entry: Entry, idx: int) -> Iterator[Remark]:
        if self._config is not None:
            message = f"a config packet with idx {idx}, one with {self._config[0]} came before"
            yield Remark("config-twice", message, entry)
        self._config = idx, entry

    def _config_place(self, idx: int, entry: Entry) -> Iterator[Remark]:
        """Compare the config's idx with those of the data packets."""
        behind = self._data.count - (idx - self._data.count_missing(idx))
        if not behind:
            return
        message = f"the config has idx {idx}, {behind} data packets lie above"
        yield Remark("config-early", message, entry)
        yield Remark("data-behind-config", f"{behind} data packets above idx {idx} are lost")

    def _wait(self, entry: Entry, idx: int, length: int) -> None:
        """Keep count of what cannot be loaded before others have come."""
        self._waiting[idx] = length
        self._bytes += length
        while self._next in self._waiting:
            self._bytes -= self._waiting.pop(self._next)
            self._next += 1
        if self._bytes and (self._peak is None or self._bytes > self._peak[0]):
            self._peak = self._bytes, self._next, entry
