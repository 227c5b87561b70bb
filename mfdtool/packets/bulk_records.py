# SPDX-License-Identifier: GPL-2.0-or-later
"""Records as arrays, a window of the capture at a time.

The outcome is that of `pcap.read` and `pcapng.Reader`: a test holds this module to them. Arrays
take stretches of plain packets; other blocks, packets with options and everything that looks
damaged go to those readers, one by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mfdtool.errors import CaptureError
from mfdtool.packets import pcap, pcapng
from mfdtool.packets.bulk_hop import PACKET_OVERHEAD, PcapHops, PcapngHops, overlapping
from mfdtool.packets.info import MAX_TIME_NS, NANOSECONDS, Interface
from mfdtool.packets.values import Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from mfdtool.packets.info import CaptureInfo

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]

WINDOW: Final = 24 << 20
"""How much of a file is looked at in one go: large enough for arrays to pay, small enough for
what they need to stay in the processor's cache."""

_FRAME_AT: Final = 28
"""Where in the block the frame begins."""
_MIN_STRIDE: Final = 64
_MAX_STRIDE: Final = 1 << 20
_MAX_BURST: Final = 4096

_PACKET_FIELDS: Final = ("kind", "length", "interface", "high", "low", "captured", "original")
_RECORD_FIELDS: Final = ("seconds", "fraction", "captured", "original")
_COLUMNS: Final = ("time_ns", "linktype", "offset", "captured", "original")


@dataclass(frozen=True, slots=True, eq=False)
class RecordColumns:
    """The records ``first``, ``first + 1``, ... of a file, one column per field of `Record`.

    They take the bytes ``start`` to ``stop`` of the file; other blocks may be among them.
    """

    first: int
    start: int
    stop: int
    time_ns: Ints
    linktype: Ints
    offset: Ints
    captured: Ints
    original: Ints

    def __len__(self) -> int:
        return len(self.offset)

    def record(self, index: int) -> Record:
        """Give one of the records (its interface is not known here)."""
        return Record(
            number=self.first + index,
            time_ns=int(self.time_ns[index]),
            linktype=int(self.linktype[index]),
            offset=int(self.offset[index]),
            captured=int(self.captured[index]),
            original=int(self.original[index]),
        )


def read(
    buffer: memoryview, *, window: int = WINDOW, path: str = "", info: CaptureInfo | None = None
) -> Iterator[RecordColumns]:
    """Give the records of a pcap or pcapng file in columns; no frame is copied.

    Every ``window`` bytes there is at least one value, which may hold no record.

    Raises:
        CaptureError: at once when the file is neither; after the last readable record when
            it is cut short or damaged.
    """
    if pcapng.is_pcapng(bytes(buffer[:4])):
        reader = pcapng.Reader(buffer, path=path, info=info)
        return _PcapngWindows(buffer, reader, window).read()
    # Reading the header is all that this does before its first record is asked for.
    pcap.read(buffer, path=path, info=info)
    return _pcap_windows(buffer, window=window, path=path)


def gather(buffer: memoryview, offsets: Ints, width: int) -> NDArray[np.void]:
    """Copy ``width`` bytes at each of the ascending offsets; behind the buffer's end are zeros."""
    whole = int(np.searchsorted(offsets, len(buffer) - width, side="right"))
    if whole == len(offsets) and whole:
        return overlapping(buffer, width)[offsets]
    found = np.zeros(len(offsets), dtype=f"V{width}")
    if whole:
        found[:whole] = overlapping(buffer, width)[offsets[:whole]]
    for index in range(whole, len(offsets)):
        at = int(offsets[index])
        found[index] = np.void(bytes(buffer[at : at + width]).ljust(width, b"\0"))
    return found


def _integers(table: NDArray[Any], field: str) -> Ints:
    column: Ints = table[field].astype(np.int64)
    return column


# pcap


def _pcap_windows(buffer: memoryview, *, window: int, path: str) -> Iterator[RecordColumns]:
    header = pcap.read_file_header(buffer, path=path)
    word = f"{header.byte_order}u4"
    layout = np.dtype([(name, word) for name in _RECORD_FIELDS])
    hops = PcapHops(buffer, header.byte_order)
    offset, number = pcap.FILE_HEADER_SIZE, 1
    while offset < len(buffer):
        start = offset
        offsets, offset = hops.walk(offset, start + window)
        heads = gather(buffer, offsets, pcap.RECORD_HEADER_SIZE).view(layout)
        fraction = _integers(heads, "fraction") * header.nanoseconds_per_tick
        captured = _integers(heads, "captured")
        yield RecordColumns(
            first=number,
            start=start,
            stop=offset,
            time_ns=_integers(heads, "seconds") * NANOSECONDS + fraction,
            linktype=np.full(len(offsets), header.linktype, dtype=np.int64),
            offset=offsets + pcap.RECORD_HEADER_SIZE,
            captured=captured,
            original=np.maximum(_integers(heads, "original"), captured),
        )
        number += len(offsets)
        if offset < len(buffer) and offset < start + window:
            yield from _pcap_end(buffer, header, offset, number=number, path=path)


def _pcap_end(
    buffer: memoryview, header: pcap.FileHeader, offset: int, *, number: int, path: str
) -> Iterator[RecordColumns]:
    """Give the record at ``offset``, which is not whole, as far as it goes; always raises."""
    size = len(buffer)
    if offset + pcap.RECORD_HEADER_SIZE > size:
        reason = "the file ends inside this record's header"
        raise CaptureError(reason, path=path, offset=size, record=number)
    words = Struct(f"{header.byte_order}4I").unpack_from(buffer, offset)
    seconds, fraction, captured, original = words
    if captured > pcap.MAX_CAPTURED:
        reason = f"the file is damaged: a record cannot hold {captured} bytes"
        raise CaptureError(reason, path=path, offset=offset, record=number)
    start = offset + pcap.RECORD_HEADER_SIZE
    record = Record(
        number=number,
        time_ns=seconds * NANOSECONDS + fraction * header.nanoseconds_per_tick,
        linktype=header.linktype,
        offset=start,
        captured=size - start,
        original=max(original, captured),
    )
    yield _columns([record], first=number, start=offset, stop=size)
    missing = captured - record.captured
    reason = f"the file ends inside this record, {missing} bytes are missing"
    raise CaptureError(reason, path=path, offset=size, record=number)


# pcapng


class _PcapngWindows:
    """Steps over plain packet blocks by array, and lets the reader do the others."""

    def __init__(self, buffer: memoryview, reader: pcapng.Reader, window: int) -> None:
        self._buffer = buffer
        self._reader = reader
        self._window = window
        # How many packets are tried by array, and how many blocks are read when that failed.
        # Both follow the success, or a comment on every other packet would cost dearly.
        self._stride = _MAX_STRIDE
        self._burst = 1

    def read(self) -> Iterator[RecordColumns]:
        """Give the windows."""
        reader = self._reader
        problem: CaptureError | None = None
        while problem is None and reader.offset < len(self._buffer):
            first, start = reader.records + 1, reader.offset
            stop = min(start + self._window, len(self._buffer))
            parts: list[RecordColumns] = []
            while problem is None and reader.offset < stop:
                columns, all_plain = self._plain_packets(stop)
                parts.append(columns)
                if all_plain:
                    self._stride = min(4 * self._stride, _MAX_STRIDE)
                    self._burst = 1
                    continue
                self._stride = max(self._stride // 4, _MIN_STRIDE)
                self._burst = min(2 * self._burst, _MAX_BURST)
                columns, problem = self._read_blocks(stop)
                parts.append(columns)
            yield _join(parts, first=first, start=start, stop=reader.offset)
        if problem is not None:
            raise problem

    def _plain_packets(self, stop: int) -> tuple[RecordColumns, bool]:
        """Read plain packets; tell also whether nothing else was met."""
        reader = self._reader
        start, first = reader.offset, reader.records + 1
        offsets, reader.offset = self._hop(start, stop)
        word = f"{reader.byte_order}u4"
        layout = np.dtype([(name, word) for name in _PACKET_FIELDS])
        heads = gather(self._buffer, offsets, _FRAME_AT).view(layout)
        length, captured = _integers(heads, "length"), _integers(heads, "captured")
        ends = gather(self._buffer, offsets + length - 4, 4).view(word)
        time_ns, linktype, plain = _times(heads, reader.interfaces)
        plain &= (length == PACKET_OVERHEAD + captured + -captured % 4) & (length == ends)
        count = len(offsets) if plain.all() else int(plain.argmin())
        all_plain = count == len(offsets) > 0
        if count < len(offsets):
            reader.offset = int(offsets[count])
        reader.records += count
        columns = RecordColumns(
            first=first,
            start=start,
            stop=reader.offset,
            time_ns=time_ns[:count],
            linktype=linktype[:count],
            offset=offsets[:count] + _FRAME_AT,
            captured=captured[:count],
            original=np.maximum(_integers(heads, "original"), captured)[:count],
        )
        return columns, all_plain

    def _hop(self, start: int, stop: int) -> tuple[Ints, int]:
        """List what looks like packet blocks."""
        hops = PcapngHops(self._buffer, self._reader.byte_order)
        if self._stride == _MAX_STRIDE:
            return hops.walk(start, stop)
        offsets, after = hops.list_from(start, stop, count=self._stride)
        return np.array(offsets, dtype=np.int64), after

    def _read_blocks(self, stop: int) -> tuple[RecordColumns, CaptureError | None]:
        """Read a few blocks one by one; give also the error that they end in, if they do."""
        reader = self._reader
        start, first = reader.offset, reader.records + 1
        records: list[Record] = []
        problem: CaptureError | None = None
        for _ in range(self._burst):
            if reader.offset >= stop:
                break
            try:
                record = reader.read_block()
            except CaptureError as error:
                problem = error
                break
            if record is not None:
                records.append(record)
        return _columns(records, first=first, start=start, stop=reader.offset), problem


def _times(heads: NDArray[Any], interfaces: list[Interface]) -> tuple[Ints, Ints, Bools]:
    """Give times, link types, and whether both are right, of packets of these interfaces.

    What arrays can do is a whole number of nanoseconds per tick, and times in range.
    """
    table = np.array([_scale(interface) for interface in interfaces], dtype=np.int64)
    table = np.vstack([table.reshape(-1, 4), [(0, 0, -1, 0)]])
    rows = np.minimum(_integers(heads, "interface"), len(interfaces))
    scale, offset, latest, linktype = table[rows].T
    high = _integers(heads, "high")
    ticks = (high << 32) | _integers(heads, "low")
    good = (high < 1 << 31) & (ticks <= latest)
    return np.where(good, ticks, 0) * scale + offset, linktype, good


def _scale(interface: Interface) -> tuple[int, int, int, int]:
    """Give nanoseconds per tick, time of tick 0, the last tick that can be told, and link type."""
    scale, rest = divmod(NANOSECONDS, interface.ticks_per_second)
    offset = interface.offset_seconds * NANOSECONDS
    if rest or not 0 <= offset <= MAX_TIME_NS:
        return 0, 0, -1, interface.linktype
    return scale, offset, (MAX_TIME_NS - offset) // scale, interface.linktype


def _join(parts: list[RecordColumns], *, first: int, start: int, stop: int) -> RecordColumns:
    """Put adjacent columns together."""
    if len(parts) == 1:
        return parts[0]

    def column(field: str) -> Ints:
        return np.concatenate([getattr(part, field) for part in parts])

    columns = {field: column(field) for field in _COLUMNS}
    return RecordColumns(first=first, start=start, stop=stop, **columns)


def _columns(records: list[Record], *, first: int, start: int, stop: int) -> RecordColumns:
    def column(field: str) -> Ints:
        return np.array([getattr(record, field) for record in records], dtype=np.int64)

    columns = {field: column(field) for field in _COLUMNS}
    return RecordColumns(first=first, start=start, stop=stop, **columns)
