# SPDX-License-Identifier: GPL-2.0-or-later
"""The pcapng file format: a sequence of blocks, each with its length at both ends.

A section header block opens a section, which has its own byte order and its own interfaces;
interface description blocks number the interfaces from 0; packet blocks refer to them. Blocks
end with options, where names, comments and drop counts are. Blocks of other types are stepped
over, which is what the format asks of a reader.

A block whose two lengths disagree is damage; reading stops there. A writer that was killed
leaves a file that reads up to its last whole block.

Format: draft-ietf-opsawg-pcapng. The other direction is in `mfdtool.packets.pcapng_build`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from struct import Struct
from typing import TYPE_CHECKING, Final

from mfdtool.errors import CaptureError
from mfdtool.packets.info import (
    MAX_INTERFACES,
    ByteOrder,
    CaptureInfo,
    Comment,
    Format,
    Interface,
    Statistics,
)
from mfdtool.packets.values import NO_TIME, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


class BlockType(IntEnum):
    """Block types that are read."""

    INTERFACE_DESCRIPTION = 1
    PACKET = 2
    """The obsolete packet block."""
    SIMPLE_PACKET = 3
    NAME_RESOLUTION = 4
    INTERFACE_STATISTICS = 5
    ENHANCED_PACKET = 6
    DECRYPTION_SECRETS = 10
    SECTION_HEADER = 0x0A0D0D0A


class Option(IntEnum):
    """Options that every block can have."""

    END = 0
    COMMENT = 1


class SectionOption(IntEnum):
    """Options of a section header block."""

    HARDWARE = 2
    OS = 3
    APPLICATION = 4


class InterfaceOption(IntEnum):
    """Options of an interface description block."""

    NAME = 2
    DESCRIPTION = 3
    RESOLUTION = 9
    FILTER = 11
    OS = 12
    OFFSET = 14
    HARDWARE = 15


class StatisticsOption(IntEnum):
    """Options of an interface statistics block, all of them 64-bit counts."""

    RECEIVED = 4
    DROPPED_BY_INTERFACE = 5
    ACCEPTED_BY_FILTER = 6
    DROPPED_BY_OS = 7
    DELIVERED = 8


class PacketOption(IntEnum):
    """Options of an enhanced (and of the obsolete) packet block."""

    FLAGS = 2
    DROP_COUNT = 4


BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
BLOCK_OVERHEAD: Final = 12
"""Type and length before a block's body, length again behind it."""
BODY: Final = 8
"""Where in a block its body begins."""

DEFAULT_RESOLUTION: Final = 6
"""Microseconds, unless the interface says otherwise."""
BINARY_RESOLUTION: Final = 0x80
"""In a resolution: the exponent is of 2, not of 10."""

MAX_TEXT: Final = 1024
"""How many characters of a name are kept."""

_UNKNOWN_DROPS: Final = 0xFFFF
_LAST_OPTION: Final = max(InterfaceOption)
"""No option beyond this one is kept."""

_SECTION_HEADER: Final = BlockType.SECTION_HEADER.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class _Layouts:
    """The fixed parts of blocks in one byte order."""

    block: Struct
    length: Struct
    version: Struct
    interface: Struct
    enhanced: Struct
    obsolete: Struct
    statistics: Struct
    secrets: Struct
    option: Struct
    count: Struct
    seconds: Struct


def _layouts(order: ByteOrder) -> _Layouts:
    return _Layouts(
        block=Struct(f"{order}II"),
        length=Struct(f"{order}I"),
        version=Struct(f"{order}HH"),
        interface=Struct(f"{order}H2xI"),
        enhanced=Struct(f"{order}5I"),
        obsolete=Struct(f"{order}HH4I"),
        statistics=Struct(f"{order}3I"),
        secrets=Struct(f"{order}4xI"),
        option=Struct(f"{order}HH"),
        count=Struct(f"{order}Q"),
        seconds=Struct(f"{order}q"),
    )


_LAYOUTS: Final = {order: _layouts(order) for order in ByteOrder}
_BYTE_ORDERS: Final = {_LAYOUTS[order].length.pack(BYTE_ORDER_MAGIC): order for order in ByteOrder}

Options = dict[int, bytes]
"""The last value of each option of a block, comments excepted."""


def is_pcapng(start: bytes) -> bool:
    """Say whether a file that begins with these (at least 4) bytes is a pcapng file."""
    return start[:4] == _SECTION_HEADER


def read(
    buffer: memoryview, *, path: str = "", info: CaptureInfo | None = None
) -> Iterator[Record]:
    """Give every record of a pcapng file, in file order; no frame is copied.

    Raises:
        CaptureError: at once when the file is not pcapng; after the last readable record
            when the file is cut short or damaged.
    """
    return iter(Reader(buffer, path=path, info=info))


class Reader:
    """A position in a pcapng file, and what has been said up to there.

    A bulk reader may step over packet blocks by itself: it then sets ``offset`` to the next
    block and ``records`` to the number of records so far.

    Attributes:
        offset: where the next block begins.
        records: how many records came before it.
        byte_order: that of the current section.
        interfaces: those of the current section, in the order of their numbers.
        info: what the file says about itself.
    """

    def __init__(
        self, buffer: memoryview, *, path: str = "", info: CaptureInfo | None = None
    ) -> None:
        """Read the first block, the section header.

        Raises:
            CaptureError: the file is not pcapng, or its first block is damaged.
        """
        self.offset = 0
        self.records = 0
        self.byte_order = ByteOrder.LITTLE
        self.interfaces: list[Interface] = []
        self.info = CaptureInfo() if info is None else info
        self._buffer = buffer
        self._path = path
        self._layouts = _LAYOUTS[self.byte_order]
        if not is_pcapng(bytes(buffer[:4])):
            raise self._error("this is not a pcapng file")
        self.info.format = Format.PCAPNG
        self.read_block()

    def __iter__(self) -> Iterator[Record]:
        """Give the records from here on."""
        end = len(self._buffer)
        while self.offset < end:
            record = self.read_block()
            if record is not None:
                yield record

    def read_block(self) -> Record | None:
        """Read the block at ``offset``: give its record if it is a packet block.

        Raises:
            CaptureError: the file ends inside the block, or the block is damaged.
        """
        start = self.offset
        block_type, length = self._read_frame(start)
        minimum, handler = _HANDLERS.get(block_type, (0, _skip))
        body, stop = start + BODY, start + length - 4
        if stop - body < minimum:
            raise self._error(f"the file is damaged: block type {block_type} is too short")
        record = handler(self, body, stop)
        self.offset = start + length
        if record is not None:
            self.records += 1
        return record

    def _read_frame(self, start: int) -> tuple[int, int]:
        """Check a block's lengths at both ends; give its type and length."""
        buffer = self._buffer
        left = len(buffer) - start
        if left < BLOCK_OVERHEAD:
            raise self._error("the file ends inside a block")
        if buffer[start : start + 4] == _SECTION_HEADER:
            self._set_byte_order(bytes(buffer[start + BODY : start + BODY + 4]))
        layouts = self._layouts
        block_type, length = layouts.block.unpack_from(buffer, start)
        if length < BLOCK_OVERHEAD or length % 4:
            raise self._error(f"the file is damaged: a block cannot be {length} bytes long")
        if length > left:
            raise self._error(f"the file ends inside a block, {length - left} bytes are missing")
        (again,) = layouts.length.unpack_from(buffer, start + length - 4)
        if again != length:
            reason = f"the file is damaged: a block of {length} bytes ends as one of {again}"
            raise self._error(reason)
        return block_type, length

    def _set_byte_order(self, magic: bytes) -> None:
        order = _BYTE_ORDERS.get(magic)
        if order is None:
            raise self._error(f"the file is damaged: byte order magic {magic.hex()}")
        self.byte_order = order
        self._layouts = _LAYOUTS[order]

    def _read_section(self, body: int, stop: int) -> None:
        major, minor = self._layouts.version.unpack_from(self._buffer, body + 4)
        if major != 1:
            raise self._error(f"pcapng version {major}.{minor} is not supported")
        self.interfaces = []
        info = self.info
        info.sections += 1
        if info.byte_order is None:
            info.byte_order = self.byte_order
        options = self._read_options(body + 16, stop)
        info.hardware = _text(options, SectionOption.HARDWARE) or info.hardware
        info.os = _text(options, SectionOption.OS) or info.os
        info.application = _text(options, SectionOption.APPLICATION) or info.application

    def _read_interface(self, body: int, stop: int) -> None:
        index = len(self.info.interfaces)
        if index >= MAX_INTERFACES:
            raise self._error(f"the file is damaged: more than {MAX_INTERFACES} interfaces")
        linktype, snaplen = self._layouts.interface.unpack_from(self._buffer, body)
        options = self._read_options(body + 8, stop)
        resolution = options.get(InterfaceOption.RESOLUTION, b"")[:1]
        offset = options.get(InterfaceOption.OFFSET, b"")
        interface = Interface(
            index=index,
            linktype=linktype,
            snaplen=snaplen,
            ticks_per_second=_ticks(resolution[0] if resolution else DEFAULT_RESOLUTION),
            offset_seconds=self._layouts.seconds.unpack(offset)[0] if len(offset) == 8 else 0,
            name=_text(options, InterfaceOption.NAME),
            description=_text(options, InterfaceOption.DESCRIPTION),
            hardware=_text(options, InterfaceOption.HARDWARE),
            os=_text(options, InterfaceOption.OS),
            # The first byte says what kind of filter it is; 0 is libpcap's text.
            filter=_text(options, InterfaceOption.FILTER).lstrip("\0"),
        )
        self.interfaces.append(interface)
        self.info.interfaces.append(interface)

    def _read_enhanced(self, body: int, stop: int) -> Record:
        number, high, low, captured, original = self._layouts.enhanced.unpack_from(
            self._buffer, body
        )
        ticks = high << 32 | low
        return self._record(number, ticks, body + 20, stop, captured=captured, original=original)

    def _read_obsolete(self, body: int, stop: int) -> Record:
        number, drops, high, low, captured, original = self._layouts.obsolete.unpack_from(
            self._buffer, body
        )
        ticks = high << 32 | low
        if drops != _UNKNOWN_DROPS:
            self.info.dropped_before_records += drops
        return self._record(number, ticks, body + 20, stop, captured=captured, original=original)

    def _record(
        self, number: int, ticks: int, start: int, stop: int, *, captured: int, original: int
    ) -> Record:
        """Make the record of a packet block whose frame is at ``start``, options behind it."""
        if captured > stop - start:
            reason = f"the file is damaged: this block cannot hold {captured} bytes"
            raise self._error(reason)
        interface = self._interface(number)
        padded = start + captured + -captured % 4
        if padded < stop:
            self._read_packet_options(padded, stop)
        return Record(
            number=self.records + 1,
            time_ns=interface.time_ns(ticks),
            linktype=interface.linktype,
            offset=start,
            captured=captured,
            original=max(original, captured),
            interface=interface.index,
        )

    def _read_packet_options(self, start: int, stop: int) -> None:
        options = self._read_options(start, stop, record=self.records + 1)
        drops = options.get(PacketOption.DROP_COUNT, b"")
        if len(drops) == 8:
            self.info.dropped_before_records += self._layouts.count.unpack(drops)[0]

    def _read_simple(self, body: int, stop: int) -> Record:
        """A simple packet block tells neither time nor captured length: that is the snap length."""
        (original,) = self._layouts.length.unpack_from(self._buffer, body)
        interface = self._interface(0)
        captured = min(original, interface.snaplen) if interface.snaplen else original
        if captured > stop - body - 4:
            reason = f"the file is damaged: this block cannot hold {captured} bytes"
            raise self._error(reason)
        return Record(
            number=self.records + 1,
            time_ns=NO_TIME,
            linktype=interface.linktype,
            offset=body + 4,
            captured=captured,
            original=original,
            interface=interface.index,
        )

    def _interface(self, number: int) -> Interface:
        if number >= len(self.interfaces):
            raise self._error(f"the file is damaged: interface {number} is not described")
        return self.interfaces[number]

    def _read_statistics(self, body: int, stop: int) -> None:
        number, _, _ = self._layouts.statistics.unpack_from(self._buffer, body)
        index = self._interface(number).index
        options = self._read_options(body + 12, stop)
        self.info.statistics[index] = Statistics(
            interface=index,
            received=self._count(options, StatisticsOption.RECEIVED),
            dropped_by_interface=self._count(options, StatisticsOption.DROPPED_BY_INTERFACE),
            accepted_by_filter=self._count(options, StatisticsOption.ACCEPTED_BY_FILTER),
            dropped_by_os=self._count(options, StatisticsOption.DROPPED_BY_OS),
            delivered=self._count(options, StatisticsOption.DELIVERED),
        )

    def _count(self, options: Mapping[int, bytes], code: int) -> int | None:
        value = options.get(code, b"")
        count: int | None = self._layouts.count.unpack(value)[0] if len(value) == 8 else None
        return count

    def _read_names(self, body: int, stop: int) -> None:
        """Step over the names: they are laid out like options, and end like them."""
        option = self._layouts.option
        offset = body
        while offset + option.size <= stop:
            code, length = option.unpack_from(self._buffer, offset)
            offset += option.size + length + -length % 4
            if code == 0:
                break
        self._read_options(min(offset, stop), stop)

    def _read_secrets(self, body: int, stop: int) -> None:
        """Step over the secrets; mfdtool has no use for them."""
        (length,) = self._layouts.secrets.unpack_from(self._buffer, body)
        self._read_options(min(body + 8 + length + -length % 4, stop), stop)

    def _read_options(self, start: int, stop: int, *, record: int = 0) -> Options:
        """Collect options; comments go to ``info`` at once.

        Bodies and options are padded to 4 bytes, so an option's header is never cut.
        """
        option = self._layouts.option
        found: Options = {}
        while start < stop:
            code, length = option.unpack_from(self._buffer, start)
            if code == Option.END:
                break
            value_at = start + option.size
            if value_at + length > stop:
                self.info.damaged_options += 1
                break
            value = bytes(self._buffer[value_at : value_at + length])
            if code == Option.COMMENT:
                self.info.add_comment(Comment(_decode(value), offset=start, record=record))
            elif code <= _LAST_OPTION:
                found[code] = value
            start = value_at + length + -length % 4
        return found

    def _error(self, reason: str) -> CaptureError:
        return CaptureError(reason, path=self._path, offset=self.offset, record=self.records + 1)


def _skip(reader: Reader, body: int, stop: int) -> None:
    """Step over a block of another type."""
    del reader, body, stop


def _ticks(resolution: int) -> int:
    """Decode if_tsresol: how many ticks a second has."""
    if resolution & BINARY_RESOLUTION:
        return 1 << (resolution & ~BINARY_RESOLUTION)
    ticks: int = 10**resolution
    return ticks


def _decode(value: bytes) -> str:
    return value.decode("utf-8", errors="replace").rstrip("\0")


def _text(options: Mapping[int, bytes], code: int) -> str:
    return _decode(options.get(code, b""))[:MAX_TEXT]


_HANDLERS: Final[dict[int, tuple[int, Callable[[Reader, int, int], Record | None]]]] = {
    BlockType.SECTION_HEADER: (16, Reader._read_section),
    BlockType.INTERFACE_DESCRIPTION: (8, Reader._read_interface),
    BlockType.PACKET: (20, Reader._read_obsolete),
    BlockType.SIMPLE_PACKET: (4, Reader._read_simple),
    BlockType.NAME_RESOLUTION: (0, Reader._read_names),
    BlockType.INTERFACE_STATISTICS: (12, Reader._read_statistics),
    BlockType.ENHANCED_PACKET: (20, Reader._read_enhanced),
    BlockType.DECRYPTION_SECRETS: (8, Reader._read_secrets),
}
"""What reads a block's body, and how long the body is at least."""
