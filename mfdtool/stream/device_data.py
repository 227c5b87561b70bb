# SPDX-License-Identifier: GPL-2.0-or-later
"""A device's state, put together as a destination writes it to the device's data fd.

It is all data of DEV_DATA_STATE records in the order of the main stream, then the data of the
multifd packets in the order of idx (vfio/migration.c:vfio_load_state,
vfio/migration-multifd.c:vfio_load_bufs_thread). A packet that arrives before its turn waits in
the spool; what is in memory is some hundred bytes for each packet that waits, and eight for each
that does not.
"""

from __future__ import annotations

import zlib
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from mfdtool.errors import WireError
from mfdtool.stream.devices import DeviceKey, PacketKeys, SectionTracker, section_key
from mfdtool.stream.extraction import Extractor, Hole, Pieces, Spool, pieces_of
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.indexes import IdxRange
from mfdtool.stream.phases import BEFORE_SWITCHOVER, PhaseTracker
from mfdtool.stream.selection import is_device
from mfdtool.stream.span import Span
from mfdtool.stream.values import MarkerRecord
from mfdtool.wire.constants import VFIO_PACKET_HEADER_SIZE, VFIOMarker
from mfdtool.wire.vfio import MARKER_LAYOUT, DeviceStateHeader, Marker, locate_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mfdtool.stream.extraction import Piece
    from mfdtool.stream.migration import Migration

_DEVICES_LISTED: Final = 32
_INCOMPLETE: Final = -1
"""In place of a checksum: bytes are missing, so nothing can be compared."""

Stored: TypeAlias = Span | Hole


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A packet that arrived before its turn."""

    parts: tuple[Stored, ...]
    checksum: int
    origin: str


class _OfDevice(Extractor):
    """What the two extractors below share: finding the device's frames."""

    def __init__(self, migration: int, device: str) -> None:
        super().__init__(migration)
        self._device = device
        self._key: DeviceKey | None = None
        self._keys = PacketKeys()
        self._others: dict[DeviceKey, None] = {}

    def wanted(self) -> str:
        """List the devices."""
        names = dict.fromkeys(key.idstr for key in self._others)
        return f"no state of a device {self._device}; there are {', '.join(names) or 'none'}"

    def _is_wanted(self, key: DeviceKey | None) -> bool:
        """Tell whether this is the device; the first one that has the name is."""
        if key is None:
            return False
        if key == self._key:
            return True
        if not is_device(key.idstr, (self._device,)):
            if len(self._others) < _DEVICES_LISTED:
                self._others.setdefault(key)
            return False
        if self._key is None:
            self._key = key
            self.found = True
            return True
        if key not in self._others:
            self._others.setdefault(key)
            self.remarks.note(
                f"{key.idstr} instance {key.instance_id} is left out, this is"
                f" {self._key.idstr} instance {self._key.instance_id}"
            )
        return False

    def _is_packet(self, frame: Frame) -> bool:
        return frame.kind is Kind.MULTIFD_DEVICE_STATE and self._is_wanted(self._keys.find(frame))

    def _is_of_section(self, frame: Frame) -> bool:
        section = frame.section
        if section is None:
            return False
        is_vfio = section.idstr == "vfio" or section.idstr.endswith("/vfio")
        return is_vfio and self._is_wanted(section_key(self.migration, section))


class DeviceExtractor(_OfDevice):
    """The complete byte stream of a device, without its config.

    Attributes:
        origin: where the piece came from that was given last: ``main #34``, or the packet.
        config: what is between the markers of the device's config, empty if none was seen.
    """

    def __init__(self, migration: int, device: str, spool: Spool) -> None:
        super().__init__(migration, device)
        self.origin = ""
        self.config = b""
        self._spool = spool
        self._sections = SectionTracker()
        self._phases = PhaseTracker()
        self._next = 0
        self._checksums = array("q")
        self._waiting: dict[int, _Waiting] = {}
        self._last: int | None = None
        self._packets = 0
        self._ended = False
        self._has_main_data = False
        self._main_end = 0

    def add(self, frame: Frame) -> Pieces:
        """Give main-stream data at once, and packets whose turn has come."""
        self._sections.add(frame)
        self._phases.add(frame)
        if frame.channel.name == "main":
            self._watch_main(frame)
        if self._is_packet(frame):
            yield from self._packet(frame)
        elif self._is_of_section(frame):
            self._ended |= frame.kind is Kind.MAIN_SECTION_END
            self.config = self.config or frame.config
            yield from self._marker(frame)
        if self._waiting and self._is_released:
            yield from self._drain()

    def finish(self, migration: Migration | None) -> Pieces:
        """Give what waits, with the holes between."""
        for idx in sorted(self._waiting):
            if self._last is not None and idx > self._last:
                self.remarks.problem(
                    f"left out: idx {idx} and all others behind the config's, {self._last};"
                    f" packets: {len(self._waiting)}"
                )
                break
            if idx > self._next:
                yield self._missing(idx)
            yield from self._take(idx)
        if self._last is not None and self._next < self._last:
            yield self._missing(self._last)
        self._judge(migration)

    @property
    def _is_released(self) -> bool:
        """Whether all precopy data has come, so that packets can be written."""
        return self._phases.phase not in BEFORE_SWITCHOVER

    def _judge(self, migration: Migration | None) -> None:
        """Say what nobody can know to be there."""
        if self._packets and self._last is None:
            last = f"idx {self._next - 1}" if self._next else "the packets that are there"
            self.remarks.problem(f"no config packet: data may have followed {last}")
        if not self._packets and not self._ended:
            self.remarks.problem("the END section is not captured: data may have followed")
        elif not self._packets and not self._has_main_data:
            self.remarks.note("no data after the switchover, neither on main nor over multifd")
        for channel in migration.channels if migration is not None else ():
            if channel.name == "main" and not channel.has_start:
                self.remarks.problem("main began before the capture: precopy data may be missing")

    def _watch_main(self, frame: Frame) -> None:
        """Say where device data may have been that was not decoded."""
        lost = frame.kind is Kind.GAP and frame.offset >= self._main_end
        if lost or frame.kind is Kind.UNDECODED:
            self.remarks.problem(
                f"main: bytes {frame.offset}-{frame.end - 1} are missing or undecoded,"
                " device data may have been there"
            )
        if frame.kind is not Kind.GAP:
            self._main_end = frame.end

    def _marker(self, frame: Frame) -> Pieces:
        record = frame.value
        if (
            not isinstance(record, MarkerRecord)
            or record.marker != VFIOMarker.DEV_DATA_STATE
            or frame.payload is None
        ):
            return
        is_precopy = self._sections.is_precopy(self.migration)
        self._has_main_data |= not is_precopy
        if self._packets and not is_precopy:
            self.remarks.problem(
                f"main #{frame.number}: {record.data_length} bytes of data besides multifd"
                " packets, written where they arrived"
            )
        self.origin = f"main #{frame.number}"
        yield from pieces_of(frame, frame.payload, self.origin)

    # Packets

    def _packet(self, frame: Frame) -> Pieces:
        header, payload = frame.value, frame.payload
        self._packets += 1
        where = f"{frame.channel.name} #{frame.number}"
        if not isinstance(header, DeviceStateHeader) or payload is None:
            self.remarks.problem(f"{where}: the VFIO header is missing, a packet is left out")
            return
        idx = header.idx
        if header.is_config:
            if self._last not in (None, idx):
                self.remarks.problem(f"{where}: a second config packet, idx {idx}")
            if idx < self._next or idx in self._waiting:
                self.remarks.problem(f"{where}: the config has idx {idx}, as data has")
            self._last = idx
            self.config = self.config or frame.config
            return
        span = Span(payload.start + VFIO_PACKET_HEADER_SIZE, payload.stop)
        what = f"idx {idx} ({where})"
        if idx < self._next or idx in self._waiting:
            self._compare(what, idx, _checksum(pieces_of(frame, span, what)))
        elif idx == self._last:
            self.remarks.problem(f"{where}: data has idx {idx}, as the config has")
        elif idx == self._next and self._is_released:
            self._checksums.append(_checksum(pieces_of(frame, span, what)))
            self._next += 1
            self.origin = what
            yield from pieces_of(frame, span, what)
        else:
            self._stash(idx, list(pieces_of(frame, span, what)), what)

    def _compare(self, what: str, idx: int, checksum: int) -> None:
        known = self._checksums[idx] if idx < self._next else self._waiting[idx].checksum
        if known == checksum != _INCOMPLETE:
            self.remarks.note(f"{what} came again: the same bytes")
            return
        verdict = "other bytes"
        if _INCOMPLETE in (known, checksum):
            verdict = "bytes are missing, so nobody can compare"
        self.remarks.problem(f"{what} came again: {verdict}; the first copy was taken")

    def _stash(self, idx: int, pieces: list[Piece], origin: str) -> None:
        """Keep a packet until its turn."""
        parts: list[Stored] = []
        run: list[memoryview | bytes] = []
        for piece in pieces:
            if isinstance(piece, Hole):
                parts += [self._spool.put(run), piece]
                run = []
            else:
                run.append(piece)
        parts.append(self._spool.put(run))
        self._waiting[idx] = _Waiting(tuple(parts), _checksum(iter(pieces)), origin)

    def _drain(self) -> Pieces:
        """Give the packets whose turn has come."""
        while self._next in self._waiting:
            yield from self._take(self._next)
        if not self._waiting:
            self._spool.clear()

    def _take(self, idx: int) -> Pieces:
        """Give a packet that waits."""
        waiting = self._waiting.pop(idx)
        self._checksums.append(waiting.checksum)
        self._next = idx + 1
        self.origin = waiting.origin
        for part in waiting.parts:
            if isinstance(part, Hole):
                yield part
            else:
                yield from self._spool.get(part)

    def _missing(self, stop: int) -> Hole:
        return Hole(f"idx {IdxRange(self._next, stop - 1)}", None)


class ConfigExtractor(_OfDevice):
    """The config of a device: what is between the markers, or with them."""

    def __init__(self, migration: int, device: str, *, with_markers: bool = False) -> None:
        super().__init__(migration, device)
        self._with_markers = with_markers
        self._configs = 0

    def add(self, frame: Frame) -> Pieces:
        """Give the first config."""
        where = f"{frame.channel.name} #{frame.number}"
        if self._is_packet(frame):
            header, payload = frame.value, frame.payload
            if isinstance(header, DeviceStateHeader) and header.is_config and payload is not None:
                span = Span(payload.start + VFIO_PACKET_HEADER_SIZE, payload.stop)
                if self._is_first(where):
                    yield from self._of_packet(frame, span, where)
        elif self._is_of_section(frame) and isinstance(frame.value, MarkerRecord):
            marker = frame.value.marker
            if marker == VFIOMarker.DEV_CONFIG_STATE and self._is_first(where):
                yield from self._of_section(frame, where)

    def finish(self, migration: Migration | None) -> Pieces:
        """Say if there was none."""
        if not self._configs:
            self.remarks.problem("no config was captured")
        return iter(())

    def _is_first(self, where: str) -> bool:
        self._configs += 1
        if self._configs > 1:
            self.remarks.problem(f"{where}: another config, the first one was taken")
        return self._configs == 1

    def _of_section(self, frame: Frame, where: str) -> Pieces:
        start = frame.offset + MARKER_LAYOUT.size
        inside = pieces_of(frame, frame.payload or Span(start, start), f"config ({where})")
        if not self._with_markers:
            yield from inside
            return
        yield Marker(VFIOMarker.DEV_CONFIG_STATE).build()
        yield from inside
        yield Marker(VFIOMarker.END_OF_STATE).build()

    def _of_packet(self, frame: Frame, span: Span, where: str) -> Pieces:
        if not self._with_markers:
            marker = MARKER_LAYOUT.size
            first = Span(span.start, min(span.start + marker, span.stop))
            last = Span(max(span.stop - marker, first.stop), span.stop)
            try:
                locate_config(frame.data(first) + frame.data(last))
            except WireError as error:
                self.remarks.problem(
                    f"{where}: the markers around the config are not as they should be"
                    f" ({error.reason}): nothing is written, see --with-markers"
                )
                return
            span = Span(first.stop, last.start)
        yield from pieces_of(frame, span, f"config ({where})")


def _checksum(pieces: Iterator[Piece]) -> int:
    checksum = 0
    for piece in pieces:
        if isinstance(piece, Hole):
            return _INCOMPLETE
        checksum = zlib.crc32(piece, checksum)
    return checksum
