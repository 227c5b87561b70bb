# SPDX-License-Identifier: GPL-2.0-or-later
"""The pcap file format: a header of 24 bytes, then records with 16 bytes of header each.

Numbers are in the byte order of the machine that wrote the file; the magic tells which, and
whether fractions of a second are micro- or nanoseconds. A record's header does not end in a
check value, so damage shows only as a length that cannot be; reading stops there, because a
guess at the next record would be just that.

Format: draft-ietf-opsawg-pcap; limits as in libpcap.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Final

from mfdtool.errors import CaptureError
from mfdtool.packets.info import NANOSECONDS, ByteOrder, CaptureInfo, Format, Interface
from mfdtool.packets.values import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC_MICROSECONDS: Final = 0xA1B2C3D4
MAGIC_NANOSECONDS: Final = 0xA1B23C4D
MAGIC_MODIFIED: Final = 0xA1B2CD34
"""Kuznetzov's variant of 1999 with eight more bytes per record; no current tool writes it."""

VERSION: Final = (2, 4)

FILE_HEADER_SIZE: Final = 24
RECORD_HEADER_SIZE: Final = 16

MAX_CAPTURED: Final = 262_144
"""The longest frame a record may hold; libpcap's MAXIMUM_SNAPLEN, it refuses more as well."""

_LINKTYPE_MASK: Final = 0x03FF_FFFF
"""The bits above tell the length of a frame check sequence; they are not part of the type."""

_TICKS: Final = {MAGIC_MICROSECONDS: 1_000_000, MAGIC_NANOSECONDS: NANOSECONDS}

_MAGICS: Final = {
    Struct(f"{order}I").pack(magic): (order, magic)
    for order in ByteOrder
    for magic in (*_TICKS, MAGIC_MODIFIED)
}


@dataclass(frozen=True, slots=True)
class FileHeader:
    """The file header: how to read the records after it."""

    byte_order: ByteOrder
    ticks_per_second: int
    snaplen: int
    linktype: int

    @property
    def nanoseconds_per_tick(self) -> int:
        """1000 or 1."""
        return NANOSECONDS // self.ticks_per_second


def is_pcap(start: bytes) -> bool:
    """Say whether a file that begins with these (at least 4) bytes is a pcap file."""
    return start[:4] in _MAGICS


def read_file_header(buffer: memoryview, *, path: str = "") -> FileHeader:
    """Read the first 24 bytes.

    Raises:
        CaptureError: not pcap, cut short, or a variant that no current tool writes.
    """
    found = _MAGICS.get(bytes(buffer[:4]))
    if found is None:
        raise CaptureError("this is not a pcap file", path=path, offset=0)
    order, magic = found
    if len(buffer) < FILE_HEADER_SIZE:
        raise CaptureError("the file ends inside its header", path=path, offset=len(buffer))
    major, minor, snaplen, network = Struct(f"{order}4xHH8xII").unpack_from(buffer)
    if magic == MAGIC_MODIFIED:
        reason = "the modified pcap format (a1b2cd34) is not supported; convert it with editcap"
        raise CaptureError(reason, path=path, offset=0)
    if major != VERSION[0]:
        reason = f"pcap version {major}.{minor} is not supported"
        raise CaptureError(reason, path=path, offset=4)
    return FileHeader(
        byte_order=order,
        ticks_per_second=_TICKS[magic],
        snaplen=snaplen,
        linktype=network & _LINKTYPE_MASK,
    )


def read(
    buffer: memoryview, *, path: str = "", info: CaptureInfo | None = None
) -> Iterator[Record]:
    """Give every record of a pcap file, in file order; no frame is copied.

    A last record whose header is whole, but whose frame is cut, is given with what is there.

    Raises:
        CaptureError: at once when the file is not pcap; after the last readable record
            when the file is cut short or damaged.
    """
    header = read_file_header(buffer, path=path)
    if info is not None:
        _describe(header, info)
    return _records(buffer, header, path)


def file_header(
    *,
    linktype: int,
    snaplen: int = MAX_CAPTURED,
    ticks_per_second: int = NANOSECONDS,
    byte_order: ByteOrder = ByteOrder.LITTLE,
) -> bytes:
    """Build the file header; ``ticks_per_second`` is a million or a billion."""
    magics = {ticks: magic for magic, ticks in _TICKS.items()}
    if ticks_per_second not in magics:
        raise ValueError(f"pcap cannot count {ticks_per_second} ticks per second")
    magic = magics[ticks_per_second]
    return Struct(f"{byte_order}IHHiIII").pack(magic, *VERSION, 0, 0, snaplen, linktype)


def record_header(
    *,
    time_ns: int,
    captured: int,
    original: int,
    ticks_per_second: int = NANOSECONDS,
    byte_order: ByteOrder = ByteOrder.LITTLE,
) -> bytes:
    """Build the 16 bytes before a frame of which ``captured`` bytes follow.

    Raises:
        ValueError: the frame is longer than a record may hold, or the time does not fit.
    """
    if not 0 <= captured <= MAX_CAPTURED:
        raise ValueError(f"a pcap record holds at most {MAX_CAPTURED} bytes, not {captured}")
    seconds, rest = divmod(max(time_ns, 0), NANOSECONDS)
    if seconds >> 32:
        raise ValueError(f"time {time_ns} ns does not fit a pcap record")
    fraction = rest // (NANOSECONDS // ticks_per_second)
    return Struct(f"{byte_order}4I").pack(seconds, fraction, captured, original)


def record(
    frame: bytes | memoryview,
    *,
    time_ns: int,
    original: int | None = None,
    ticks_per_second: int = NANOSECONDS,
    byte_order: ByteOrder = ByteOrder.LITTLE,
) -> bytes:
    """Build a whole record; ``original`` is the frame's length on the wire if it was cut."""
    header = record_header(
        time_ns=time_ns,
        captured=len(frame),
        original=len(frame) if original is None else original,
        ticks_per_second=ticks_per_second,
        byte_order=byte_order,
    )
    return header + bytes(frame)


def _describe(header: FileHeader, info: CaptureInfo) -> None:
    info.format = Format.PCAP
    info.byte_order = header.byte_order
    info.sections = 1
    info.interfaces.append(
        Interface(
            index=0,
            linktype=header.linktype,
            snaplen=header.snaplen,
            ticks_per_second=header.ticks_per_second,
        )
    )


def _records(buffer: memoryview, header: FileHeader, path: str) -> Iterator[Record]:
    unpack_from = Struct(f"{header.byte_order}4I").unpack_from
    tick = header.nanoseconds_per_tick
    linktype = header.linktype
    size = len(buffer)
    offset = FILE_HEADER_SIZE
    number = 1
    while offset + RECORD_HEADER_SIZE <= size:
        seconds, fraction, captured, original = unpack_from(buffer, offset)
        start = offset + RECORD_HEADER_SIZE
        if captured > MAX_CAPTURED:
            reason = f"the file is damaged: a record cannot hold {captured} bytes"
            raise CaptureError(reason, path=path, offset=offset, record=number)
        present = min(captured, size - start)
        time_ns = seconds * NANOSECONDS + fraction * tick
        yield Record(number, time_ns, linktype, start, present, max(original, captured))
        if present < captured:
            reason = f"the file ends inside this record, {captured - present} bytes are missing"
            raise CaptureError(reason, path=path, offset=size, record=number)
        offset = start + captured
        number += 1
    if offset < size:
        reason = "the file ends inside this record's header"
        raise CaptureError(reason, path=path, offset=size, record=number)
