# SPDX-License-Identifier: GPL-2.0-or-later
"""Gives a header's field another value: the header is decoded, changed, and encoded again."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Final

from mfdtool.errors import ScheduleError, WireError
from mfdtool.stream import values
from mfdtool.stream.frames import Frame
from mfdtool.wire.codec import Message
from mfdtool.wire.constants import VFIOMarker
from mfdtool.wire.main_stream import CommandHeader, Configuration
from mfdtool.wire.multifd import MultiFDPacketCounts, MultiFDPacketFixed
from mfdtool.wire.ram import RamRecordHeader
from mfdtool.wire.text import unescape
from mfdtool.wire.vfio import DeviceData, Marker

_ALIASES: Final = {
    CommandHeader: {"command": "cmd", "payload_length": "len"},
    DeviceData: {"data_length": "size"},
    Marker: {"marker": "value"},
}
"""Names that ``decode`` shows for fields that QEMU calls differently."""

_UUID: Final = 16
_UUID_TEXT: Final = re.compile("-".join(f"[0-9a-fA-F]{{{digits}}}" for digits in (8, 4, 4, 4, 12)))
"""As ``decode`` shows one."""


def with_field(frame: Frame, data: bytes, name: str, text: str) -> bytes:
    """Give a frame's bytes with another value in a field; ``data`` are its bytes.

    A longer or shorter string makes a longer or shorter header; nothing else is adapted to it.

    Raises:
        ScheduleError: the frame has no such field, or the field cannot have this value.
    """
    at = 0
    known: list[str] = []
    for header in _headers(frame, data):
        size = len(header.build())
        field = _ALIASES.get(type(header), {}).get(name, name)
        if any(known_field.name == field for known_field in fields(header)):
            return data[:at] + _changed(header, field, text) + data[at + size :]
        known += [known_field.name for known_field in fields(header)]
        at += size
    where = f"{frame.channel.name}#{frame.number}"
    what = ", ".join(known) if known else "none that can be set"
    raise ScheduleError(f"{where} has no field {name!r}; it has {what}")


def _headers(frame: Frame, data: bytes) -> list[Message]:
    """Give a frame's headers, one behind the other, as schemas describe them."""
    value = frame.value
    if isinstance(value, MultiFDPacketCounts):
        return [_parsed(MultiFDPacketFixed, data)]
    if isinstance(value, Configuration):
        # Behind its end, one could not tell that it has ended.
        return [_parsed_whole(Configuration, data)]
    if isinstance(value, Message):
        return [_parsed(type(value), data)]
    if isinstance(value, values.CommandRecord | values.ReturnPathRecord):
        header = _parsed(type(value.header), data)
        if value.payload is None:
            return [header]
        return [header, _parsed_whole(type(value.payload), data[len(header.build()) :])]
    if isinstance(value, values.MarkerRecord):
        kind = DeviceData if value.marker == VFIOMarker.DEV_DATA_STATE else Marker
        return [_parsed(kind, data)]
    if isinstance(value, values.RamRecord):
        return [_parsed(RamRecordHeader, data)]
    return []


def _parsed(kind: type[Message], data: bytes) -> Message:
    try:
        return kind.parse_prefix(data)[0]
    except WireError as error:
        raise ScheduleError(f"the header is not whole: {error}") from error


def _parsed_whole(kind: type[Message], data: bytes) -> Message:
    try:
        return kind.parse(data)
    except WireError as error:
        raise ScheduleError(f"it cannot be decoded any more: {error}") from error


def _changed(header: Message, field: str, text: str) -> bytes:
    """Encode a header with another value in a field."""
    before = getattr(header, field)
    try:
        after = _converted(before, text)
        return replace(header, **{field: after}).build()
    except WireError:
        raise ScheduleError(f"{text!r} is no value of {field}: it does not fit") from None
    except (ValueError, OverflowError) as error:
        raise ScheduleError(f"{text!r} is no value of {field}: {error}") from None


def _converted(before: object, text: str) -> object:
    """Read a value of the same type as the one that is there."""
    if isinstance(before, int):
        named = VFIOMarker.__members__.get(text)
        return int(text, 0) if named is None else named.value
    if isinstance(before, bytes):
        digits = text.removeprefix("0x")
        if len(before) == _UUID and _UUID_TEXT.fullmatch(digits):
            digits = digits.replace("-", "")
        if len(digits) == 2 * len(before):
            return bytes.fromhex(digits)
        raw = unescape(text)
        if len(raw) > len(before):
            raise ValueError(f"{len(raw)} bytes do not fit in {len(before)}")
        return raw.ljust(len(before), b"\0")
    if isinstance(before, str):
        return text
    raise ValueError("it is not a number or a string")
