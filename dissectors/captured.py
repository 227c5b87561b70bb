# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets of recorded migrations: our reassembly, scapy's layers.

Scapy's own reassembly fills lost bytes with zeroes and gives up when sequence numbers wrap.
Here a lost byte is a :class:`Missing` layer, and a packet that has one cannot be built.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from os import PathLike, fspath
from typing import Any, Final

from scapy.packet import Packet, Raw
from scapy.utils import EDecimal

from dissectors.fields import DissectionError, Make, NoteField, take_padding
from dissectors.main_stream import (
    Command,
    Configuration,
    EndOfStream,
    FileHeader,
    SectionEnd,
    SectionFooter,
    SectionFull,
    SectionPart,
    SectionStart,
    VmDescription,
)
from dissectors.multifd import MultiFDInit, MultiFDPacket, MultiFDPacketDeviceState, MultiFDSync
from dissectors.ram import OPTIONAL_PARTS, RamMemSize, RamPage, record_class
from dissectors.return_path import ReturnPathMessage
from dissectors.vfio import VFIOMarkerRecord
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.values import RamRecord
from mfdtool.wire.constants import MULTIFD_PACKET_SIZE, MULTIFD_RAM_FIXED_SIZE
from mfdtool.workflows.reading import Input, Reading

_OFFSET_SIZE: Final = 8
_MAX_PIECES: Final = 64
"""Layers of one packet that holes in it may cause; scapy handles layers recursively."""


class ChannelFrame(Packet):
    """Where a packet was seen; it has no bytes.

    Attributes:
        migration: number of the migration in the capture, from 0.
        channel: ``main``, ``return-path``, ``multifd-2``, ...
        number: index among the channel's packets; None for a gap.
        offset: where the packet begins in the channel's stream.
        record: the capture record that completed it, from 1.
        section: for parts of the main stream, the section's idstr; empty otherwise.
    """

    fields_desc = [
        NoteField("migration", 0),
        NoteField("channel", ""),
        NoteField("number"),
        NoteField("offset", 0),
        NoteField("record", 0),
        NoteField("section", ""),
    ]

    def mysummary(self) -> str:
        """Name the packet as other commands do: ``multifd-2#14``."""
        return self.channel if self.number is None else f"{self.channel}#{self.number}"


class Missing(Packet):
    """Bytes that are not here, ``length`` of them, and the ``reason``; building raises ValueError.

    Replace it by a payload of your own, or remove it, before the packet is sent.
    """

    fields_desc = [NoteField("length", 0), NoteField("reason", "")]

    def self_build(self) -> bytes:
        """Refuse to make up bytes."""
        raise ValueError(f"{self.length} bytes are missing: {self.reason}")

    def mysummary(self) -> Any:
        """Say how many, behind the place in the channel."""
        return f"Missing {self.length} bytes ({self.reason})", [ChannelFrame]


class Undecoded(Packet):
    """The payload is no packet of its channel, for this ``reason``."""

    fields_desc = [NoteField("reason", "")]


def read(
    capture: str | PathLike[str], *, limit: int, page_size: int | None = None
) -> Iterator[Packet]:
    """Give a capture's packets in the order of arrival; see :func:`dissectors.read`."""
    source = Input(capture=fspath(capture), page_size=page_size)
    with Reading(source, keep_extents=True) as reading:
        for frame in reading.frames():
            yield packet_of(frame, limit=limit)
        if reading.problems:
            raise reading.problems[0]


def packet_of(frame: Frame, *, limit: int) -> ChannelFrame:
    """Dissect one frame of a decoder that keeps extents, with ``limit`` bytes of payload at most.

    The result has a :class:`ChannelFrame` as its first layer.
    """
    packet = ChannelFrame(
        migration=frame.channel.migration,
        channel=frame.channel.name,
        number=frame.number,
        offset=frame.offset,
        record=frame.record,
        section=frame.section.idstr if frame.section else "",
    )
    packet.time = EDecimal(Decimal(max(frame.time_last, 0)).scaleb(-9))
    make: Make = _maker(frame)
    for piece in _pieces(frame, limit):
        packet.add_payload(piece if isinstance(piece, Missing) else _dissect(make, piece))
        make = Raw
    return packet


def _dissect(make: Make, data: bytes) -> Packet:
    """Dissect bytes; what the layer leaves over is ``Raw``, for more may be put behind it."""
    try:
        packet = make(data)
    except DissectionError:
        return Raw(data)
    rest = take_padding(packet)
    if rest:
        packet.add_payload(Raw(rest))
    return packet


def _pieces(frame: Frame, limit: int) -> Iterator[bytes | Missing]:
    """Cut a frame into bytes that are there and bytes that are not."""
    stop = frame.end if frame.payload is None else min(frame.end, frame.payload.start + limit)
    at = frame.offset
    parts: list[memoryview] = []
    pieces = 0
    for extent in frame.extents:
        if extent.start >= stop or pieces >= _MAX_PIECES:
            break
        if extent.start > at:
            if parts:
                yield b"".join(parts)
            yield Missing(length=extent.start - at, reason=frame.reason)
            parts.clear()
            pieces += 2
        parts.append(extent.view[: stop - extent.start])
        at = extent.start + len(parts[-1])
    if parts:
        yield b"".join(parts)
    if pieces >= _MAX_PIECES:
        yield Missing(length=frame.end - at, reason="too many holes")
        return
    if at < stop:
        yield Missing(length=stop - at, reason=frame.reason)
    if stop < frame.end:
        yield Missing(length=frame.end - stop, reason=f"beyond the limit of {limit} bytes")


def _maker(frame: Frame) -> Make:
    """Choose the layer of a frame."""
    if frame.kind in (Kind.MULTIFD_RAM, Kind.MULTIFD_SYNC):
        kind = MultiFDPacket if frame.kind is Kind.MULTIFD_RAM else MultiFDSync
        return partial(kind, page_size=_multifd_page_size(frame))
    if frame.kind is Kind.RAM_RECORD:
        return _ram_maker(frame)
    if frame.kind is Kind.UNDECODED:
        return partial(_undecoded, reason=frame.reason)
    return _LAYERS.get(frame.kind, Raw)


_LAYERS: Final[dict[Kind, type[Packet]]] = {
    Kind.MULTIFD_INIT: MultiFDInit,
    Kind.MULTIFD_DEVICE_STATE: MultiFDPacketDeviceState,
    Kind.MAIN_HEADER: FileHeader,
    Kind.MAIN_CONFIGURATION: Configuration,
    Kind.MAIN_SECTION_START: SectionStart,
    Kind.MAIN_SECTION_PART: SectionPart,
    Kind.MAIN_SECTION_END: SectionEnd,
    Kind.MAIN_SECTION_FULL: SectionFull,
    Kind.MAIN_SECTION_FOOTER: SectionFooter,
    Kind.MAIN_COMMAND: Command,
    Kind.MAIN_EOF: EndOfStream,
    Kind.MAIN_VMDESCRIPTION: VmDescription,
    Kind.VFIO_MARKER: VFIOMarkerRecord,
    Kind.RETURN_PATH_MESSAGE: ReturnPathMessage,
}


def _multifd_page_size(frame: Frame) -> int:
    """Tell the page size by the length of the packet without its payload."""
    assert frame.payload is not None
    offsets = frame.payload.start - frame.offset - MULTIFD_RAM_FIXED_SIZE
    return MULTIFD_PACKET_SIZE * _OFFSET_SIZE // offsets


def _ram_maker(frame: Frame) -> Make:
    """Choose the layer of a RAM record, and tell it what its bytes do not."""
    record = frame.value
    assert isinstance(record, RamRecord)
    kind = record_class(record.flags.to_bytes(_OFFSET_SIZE))
    if kind is RamMemSize:
        parts = [
            tuple(name for name in OPTIONAL_PARTS if getattr(entry, name) is not None)
            for entry in record.entries
        ]
        if any("mapped_ram" in names for names in parts[:-1]):
            # Between the entries are the blocks' pages.
            return Raw
        return partial(RamMemSize, parts=parts)
    if kind is RamPage and frame.payload is not None:
        return partial(RamPage, page_size=frame.payload.size)
    return kind


def _undecoded(data: bytes, *, reason: str) -> Packet:
    return Undecoded(reason=reason) / Raw(data)
