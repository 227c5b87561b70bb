# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames made by hand, as a decoder that keeps extents would give them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mfdtool.stream.frames import ChannelId, Frame, Kind, Section
from mfdtool.stream.reader import Extent
from mfdtool.stream.span import Span
from mfdtool.stream.values import CommandRecord, MarkerRecord, RamRecord, Value
from mfdtool.wire.constants import Command, VFIOMarker
from mfdtool.wire.main_stream import CommandHeader
from mfdtool.wire.multifd import MultiFDPacketDeviceState, MultiFDPacketFixed
from mfdtool.wire.vfio import DeviceData, DeviceStateHeader, Marker

DEVICE = "0000:00:05.0/vfio"
SECTION = Section(38, DEVICE, 0, 1)
RAM = Section(2, "ram", 0, 4)
MILLISECOND = 1_000_000


@dataclass
class Maker:
    """Makes frames one after the other, each a record and a millisecond later than the last."""

    migration: int = 0
    record: int = 0
    positions: dict[str, int] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def frame(
        self,
        kind: Kind,
        data: bytes = b"",
        *,
        channel: str = "main",
        value: Value | None = None,
        header: int | None = None,
        section: Section | None = None,
        hole: Span | None = None,
        reason: str = "",
    ) -> Frame:
        """Make a frame of ``data`` whose payload begins at ``header``; ``hole`` is cut out."""
        self.record += 1
        start = self.positions.get(channel, 0)
        number = self.numbers.get(channel, 0)
        self.positions[channel] = start + len(data)
        self.numbers[channel] = number + 1
        parts = [Span(0, len(data))]
        if hole is not None:
            parts = [Span(0, hole.start), Span(hole.stop, len(data))]
        return Frame(
            kind,
            ChannelId(self.migration, channel),
            number,
            start,
            len(data),
            self.record * MILLISECOND,
            self.record * MILLISECOND,
            self.record,
            hole.size if hole is not None else 0,
            value,
            None if header is None else Span(start + header, start + len(data)),
            section,
            reason,
            tuple(
                Extent(start + part.start, memoryview(data)[part.start : part.stop])
                for part in parts
                if part.size
            ),
        )

    def packet(
        self,
        idx: int,
        data: bytes = b"",
        *,
        channel: str = "multifd-0",
        config: bool = False,
        idstr: str = DEVICE,
        instance_id: int = 0,
        hole: Span | None = None,
    ) -> Frame:
        """Make a device packet; ``hole`` counts from its data."""
        value = DeviceStateHeader(
            idstr=idstr.encode().ljust(256, b"\0"),
            instance_id=instance_id,
            next_packet_size=12 + len(data),
            idx=idx,
            flags=int(config),
        )
        return self.frame(
            Kind.MULTIFD_DEVICE_STATE,
            value.build() + data,
            channel=channel,
            value=value,
            header=276,
            hole=None if hole is None else Span(288 + hole.start, 288 + hole.stop),
        )

    def headless(self, *, channel: str = "multifd-0") -> Frame:
        """Make a device packet whose payload is too short for a VFIO header."""
        value = MultiFDPacketDeviceState(
            idstr=DEVICE.encode().ljust(256, b"\0"), next_packet_size=8
        )
        data = value.build() + bytes(8)
        return self.frame(Kind.MULTIFD_DEVICE_STATE, data, channel=channel, value=value, header=276)

    def section(self, kind: Kind, section: Section = SECTION) -> Frame:
        """Make a section's header."""
        return self.frame(kind, bytes(5), section=section)

    def data(self, data: bytes, *, hole: Span | None = None, section: Section = SECTION) -> Frame:
        """Make a DEV_DATA_STATE record."""
        return self.frame(
            Kind.VFIO_MARKER,
            DeviceData(size=len(data)).build() + data,
            value=MarkerRecord(VFIOMarker.DEV_DATA_STATE, len(data)),
            header=16,
            section=section,
            hole=hole,
        )

    def config(self, data: bytes) -> Frame:
        """Make a DEV_CONFIG_STATE record."""
        return self.frame(
            Kind.VFIO_MARKER,
            Marker(VFIOMarker.DEV_CONFIG_STATE).build() + data,
            value=MarkerRecord(VFIOMarker.DEV_CONFIG_STATE, len(data)),
            header=8,
            section=SECTION,
        )

    def switchover(self) -> Frame:
        """Make SWITCHOVER_START."""
        header = CommandHeader(cmd=Command.SWITCHOVER_START)
        return self.frame(Kind.MAIN_COMMAND, header.build(), value=CommandRecord(header, None))

    def pages(
        self,
        normal: Iterable[int] = (),
        zero: Iterable[int] = (),
        *,
        content: bytes = b"",
        channel: str = "multifd-0",
        flags: int = 0,
        block: str = "pc.ram",
        hole: Span | None = None,
    ) -> Frame:
        """Make a RAM packet of a guest with 4 KiB pages."""
        normal_pages, zero_pages = tuple(normal), tuple(zero)
        offsets = normal_pages + zero_pages
        fixed = MultiFDPacketFixed(
            flags=flags,
            pages_alloc=128,
            normal_pages=len(normal_pages),
            zero_pages=len(zero_pages),
            next_packet_size=len(content),
            ramblock=block.encode().ljust(256, b"\0"),
        )
        table = b"".join(offset.to_bytes(8) for offset in offsets).ljust(8 * 128, b"\0")
        return self.frame(
            Kind.MULTIFD_RAM,
            fixed.build() + table + content,
            channel=channel,
            value=fixed,
            header=1344,
            hole=hole,
        )

    def record_of(
        self, flags: int, addr: int, data: bytes = b"", *, fill: int | None = None
    ) -> Frame:
        """Make a RAM record of the main stream."""
        return self.frame(
            Kind.RAM_RECORD,
            bytes(8) + data,
            value=RamRecord(flags, addr, "pc.ram", (), fill),
            header=8 if data else None,
            section=RAM,
        )

    def gap(self, length: int, *, channel: str = "main") -> Frame:
        """Make a gap where no frame is."""
        start = self.positions.get(channel, 0)
        self.positions[channel] = start + length
        return Frame(
            Kind.GAP,
            ChannelId(self.migration, channel),
            None,
            start,
            length,
            -1,
            -1,
            self.record,
            missing=length,
            reason="not captured",
        )
