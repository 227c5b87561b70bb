# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames as trees: every field of the wire with its place, value, symbol and meaning.

The rows come from the wire package's schemas, so they can neither lack a field nor name it
differently from the code that decodes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from mfdtool.report.hexdump import data_start
from mfdtool.report.pci_tree import ENTRIES_SHOWN, config_rows
from mfdtool.report.row import Row, format_rows
from mfdtool.report.state_rows import ROWS, state_rows
from mfdtool.report.text import TextLines
from mfdtool.stream.field_values import decimal_time
from mfdtool.stream.frames import Frame, Kind
from mfdtool.stream.iterable import RecordsBody
from mfdtool.stream.pci_fields import pci_state
from mfdtool.stream.span import Span
from mfdtool.stream.values import CommandRecord, MarkerRecord, RamRecord, ReturnPathRecord
from mfdtool.stream.vmstate import DeviceState
from mfdtool.wire.codec import Message, describe
from mfdtool.wire.constants import (
    COMMANDS,
    MULTIFD_FLAGS,
    RAM_FLAGS,
    RETURN_PATH_TYPES,
    SECTION_TYPES,
    VFIO_MARKERS,
    VFIO_STATE_FLAGS,
    Meaning,
    SectionType,
    VFIOMarker,
    flag_names,
)
from mfdtool.wire.iterable import DirtyBitmapFlag, DirtyBitmapRecord
from mfdtool.wire.main_stream import CommandHeader, ConfigurationUuid
from mfdtool.wire.multifd import (
    MultiFDInit,
    MultiFDPacket,
    MultiFDPacketCounts,
    MultiFDPacketDeviceState,
    MultiFDPacketFixed,
)
from mfdtool.wire.return_path import ReturnPathMessage
from mfdtool.wire.text import until_nul
from mfdtool.wire.vfio import (
    DEVICE_STATE_HEADER_LAYOUT,
    MARKER_LAYOUT,
    DeviceData,
    DeviceStateHeader,
    Marker,
)

_OFFSETS_PER_LINE: Final = 8


class Tree:
    """Writes each frame as its line of text and a row for each of its fields."""

    header: Final = ""

    def __init__(self, *, colour: bool = False) -> None:
        self._lines = TextLines(colour=colour)

    def begin(self, first: Frame) -> None:
        """Take the first frame of the input, from which times count."""
        self._lines.begin(first)

    def write(self, frame: Frame) -> str:
        """Give a frame's lines, with their ends."""
        return self._lines.write(frame) + format_rows(rows(frame))


def rows(frame: Frame) -> Iterator[Row]:
    """Give the rows of a frame: where it was seen, its headers, its payload."""
    yield Row(None, "kind", frame.kind.value, "", "")
    yield Row(None, "stream", f"{frame.offset} to {frame.end}", "", f"{frame.length} bytes")
    times = decimal_time(frame.time_first), decimal_time(frame.time_last)
    if None not in times:
        yield Row(None, "time", f"{times[0]} to {times[1]}", "", f"record {frame.record}")
    if frame.section is not None:
        section = frame.section
        yield Row(None, "section", str(section.section_id), section.idstr, "")
    if frame.missing:
        yield Row(None, "missing", str(frame.missing), "", frame.reason)
    for offset, message in _messages(frame):
        yield from _message_rows(message, offset, depth=0)
    if isinstance(frame.value, RamRecord):
        yield from _record_rows(frame.value)
    if frame.kind is Kind.MAIN_EOF:
        yield Row(0, "type", "0x0", *_meaning(SECTION_TYPES[SectionType.EOF]))
    if isinstance(frame.value, DeviceState):
        yield from state_rows(frame.value)
    elif isinstance(frame.value, RecordsBody):
        shown = _body_rows(frame.value)
        yield from islice(shown, ROWS)
        if next(shown, None) is not None:
            yield Row(None, "...", f"more than {ROWS} rows", "", "-T jsonl shows all")
    elif frame.payload is not None:
        start = data_start(frame)
        yield Row(start - frame.offset, "data", f"{frame.payload.stop - start} bytes", "", "")
        if frame.config and (state := pci_state(frame.config)) is not None:
            yield from config_rows(state, _config_at(frame), limit=ENTRIES_SHOWN)


def _config_at(frame: Frame) -> int:
    """Give the place of a config behind its marker, from the start of the frame."""
    if isinstance(frame.value, DeviceStateHeader):
        return DEVICE_STATE_HEADER_LAYOUT.size + MARKER_LAYOUT.size
    return MARKER_LAYOUT.size


def _messages(frame: Frame) -> Iterator[tuple[int, Message]]:
    """Give the wire messages that a frame's header consists of, with their places."""
    value = frame.value
    if isinstance(value, MultiFDPacketFixed) and frame.payload is not None:
        header = frame.data(Span(frame.offset, frame.payload.start))
        if len(header) == frame.payload.start - frame.offset:
            yield 0, MultiFDPacket.parse(header)
            return
    if isinstance(value, MarkerRecord):
        if value.marker == VFIOMarker.DEV_DATA_STATE:
            yield 0, DeviceData(size=value.data_length)
        else:
            yield 0, Marker(value.marker)
    elif isinstance(value, CommandRecord | ReturnPathRecord):
        yield 0, value.header
        if value.payload is not None:
            yield len(value.header.build()), value.payload
    elif isinstance(value, Message):
        yield 0, value


def _message_rows(message: Message, start: int | None, *, depth: int) -> Iterator[Row]:
    for info in describe(type(message)):
        offset = None if start is None or info.offset is None else start + info.offset
        value = getattr(message, info.name, None)
        if value is None:
            continue
        if isinstance(value, Message):
            yield Row(offset, info.name, "", "", info.meaning, depth)
            yield from _message_rows(value, offset, depth=depth + 1)
        elif isinstance(value, tuple):
            yield from _tuple_rows(message, info.name, value, info.meaning, offset, depth)
        else:
            text, symbol = _show(type(message), info.name, value)
            yield Row(offset, info.name, text, symbol, info.meaning, depth)


def _tuple_rows(
    message: Message,
    name: str,
    items: tuple[Any, ...],
    meaning: str,
    offset: int | None,
    depth: int,
) -> Iterator[Row]:
    """Give the rows of an array: one for each message, or a few for many numbers."""
    yield Row(offset, name, f"{len(items)} entries", "", meaning, depth)
    if isinstance(message, MultiFDPacket):
        yield from _offset_rows(message, offset, depth + 1)
        return
    for item in items:
        if isinstance(item, Message):
            yield Row(None, "-", "", "", "", depth + 1)
            yield from _message_rows(item, None, depth=depth + 2)
        else:
            yield Row(None, "-", str(item), "", "", depth + 1)


def _offset_rows(packet: MultiFDPacket, offset: int | None, depth: int) -> Iterator[Row]:
    """Give the page offsets that a RAM packet uses."""
    parts = (("normal", packet.normal_offsets), ("zero", packet.zero_offsets))
    index = 0
    for name, offsets in parts:
        for at in range(0, len(offsets), _OFFSETS_PER_LINE):
            line = offsets[at : at + _OFFSETS_PER_LINE]
            where = None if offset is None else offset + 8 * index
            yield Row(where, name, " ".join(f"{page:#x}" for page in line), "", "", depth)
            index += len(line)


def _body_rows(body: RecordsBody) -> Iterator[Row]:
    """Give the rows of a handler's records; offsets count from the body's start."""
    for start, step in body.records():
        yield Row(start, "-", type(step.message).__name__, "", "")
        yield from _message_rows(step.message, start, depth=1)
        if step.data:
            yield Row(start + step.header, "data", f"{step.data} bytes", "", "", 1)


def _record_rows(record: RamRecord) -> Iterator[Row]:
    yield Row(0, "flags", f"{record.flags:#x}", flag_names(record.flags, RAM_FLAGS), "")
    yield Row(0, "addr", f"{record.addr:#x}", "", "offset in the RAM block, or total bytes")
    if record.ramblock:
        yield Row(None, "ramblock", record.ramblock, "", "RAM block")
    if record.fill is not None:
        yield Row(None, "fill", f"{record.fill:#x}", "", "what the page is filled with")
    for entry in record.entries:
        yield Row(None, "block", entry.idstr, "", "")
        yield from _message_rows(entry, None, depth=1)


# Values and symbols.


def _meaning(meaning: Meaning) -> tuple[str, str]:
    return meaning.symbol, meaning.text


def _flags(table: Mapping[Any, Meaning]) -> Callable[[int], str]:
    return lambda value: flag_names(value, table) if value else ""


def _symbol(table: Mapping[Any, Meaning]) -> Callable[[int], str]:
    by_number = {
        int(member): f"{meaning.symbol}: {meaning.text}" for member, meaning in table.items()
    }
    return lambda value: by_number.get(value, "unknown")


_SYMBOLS: Final[Mapping[tuple[type[Message], str], Callable[[int], str]]] = {
    (MultiFDPacketCounts, "flags"): _flags(MULTIFD_FLAGS),
    (MultiFDPacketFixed, "flags"): _flags(MULTIFD_FLAGS),
    (MultiFDPacket, "flags"): _flags(MULTIFD_FLAGS),
    (MultiFDPacketDeviceState, "flags"): _flags(MULTIFD_FLAGS),
    (DeviceStateHeader, "packet_flags"): _flags(MULTIFD_FLAGS),
    (DeviceStateHeader, "flags"): _flags(VFIO_STATE_FLAGS),
    (CommandHeader, "cmd"): _symbol(COMMANDS),
    (ReturnPathMessage, "type"): _symbol(RETURN_PATH_TYPES),
    (DirtyBitmapRecord, "flags"): lambda value: DirtyBitmapFlag(value).name or "",
    (Marker, "value"): _symbol(VFIO_MARKERS),
    (DeviceData, "marker"): _symbol(VFIO_MARKERS),
}
_SECTION_SYMBOL: Final = _symbol(SECTION_TYPES)
_HEX: Final = frozenset({"magic", "marker", "addr", "address", "ending"})
_NAMES: Final = frozenset({"idstr", "ramblock"})


def _show(message: type[Message], name: str, value: Any) -> tuple[str, str]:
    """Give a field's value as text, and what it is called."""
    if isinstance(value, bytes):
        if name in _NAMES:
            return until_nul(value), ""
        if name == "uuid" and message in {MultiFDInit, ConfigurationUuid}:
            return MultiFDInit(id=0, uuid=value).uuid_text, ""
        return value.hex(), ""
    if isinstance(value, SectionType):
        return f"{int(value):#x}", _SECTION_SYMBOL(value)
    if not isinstance(value, int):
        return str(value), ""
    symbol = _SYMBOLS.get((message, name))
    if symbol is not None:
        return f"{value:#x}", symbol(value)
    return (f"{value:#x}" if name in _HEX else str(value)), ""
