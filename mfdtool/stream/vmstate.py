# SPDX-License-Identifier: GPL-2.0-or-later
"""A device's body as the value of a frame, and its fields by name.

The shape is that of QEMU's ``scripts/analyze-migration.py -d state``: a struct is an object, an
array or a name that comes more than once is a list, a number is a hexadecimal string as wide as
the field, and everything else is its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from mfdtool.wire.text import escape
from mfdtool.wire.vmdesc import DeviceDescription
from mfdtool.wire.vmstate import (
    NULL_POINTER,
    Encoding,
    Range,
    StateBody,
    StateField,
    StateNode,
    Undecoded,
    decode_body,
    is_missing,
)

_SIGNED_THERE: Final = frozenset({"uint8 equal", "uint16 equal"})
"""Types that QEMU's script takes as signed, so that large numbers get a negative one behind."""
_NUMBERS: Final = frozenset({Encoding.SIGNED, Encoding.UNSIGNED})
_BYTES_THERE: Final = frozenset({"timer", "fd"})
"""Numbers that the script writes as bytes."""


@dataclass(frozen=True, slots=True)
class DeviceState:
    """The body of a FULL section and the description that it goes by.

    Attributes:
        device: the vmdescription's entry.
        version_id: the version in the section's header.
        data: the body; zeroes where bytes are missing.
        holes: the ranges of ``data`` that are missing, in order.
    """

    device: DeviceDescription = field(repr=False)
    version_id: int
    data: bytes = field(repr=False)
    holes: tuple[Range, ...] = ()

    def decode(self) -> StateBody:
        """Take the body apart; nothing is remembered."""
        return decode_body(self.device, self.data, version_id=self.version_id, holes=self.holes)

    def rest(self) -> Undecoded | None:
        """Give what no field claims, for the description does not fit; None if all is decoded."""
        return self.decode().undecoded

    def count_captured(self, where: Range) -> int:
        """Count the bytes of a range that are not missing."""
        start, stop = where
        holes = (max(0, min(stop, high) - max(start, low)) for low, high in self.holes)
        return stop - start - sum(holes)

    def raw(self, where: Range) -> bytes | None:
        """Give the bytes of a range; None if some of them are missing."""
        if is_missing(self.holes, where):
            return None
        return self.data[slice(*where)]


def named_fields(state: DeviceState, body: StateBody) -> dict[str, Any]:
    """Give the fields by name, as QEMU's script does; None stands for missing bytes."""
    return _mapping(state, body.items)


def element_value(field: StateField, raw: bytes | None) -> str | bool | None:
    """Write an element of a field as QEMU's script does."""
    if raw is None or (field.encoding is Encoding.BOOLEAN and not raw):
        return None
    if field.encoding is Encoding.BOOLEAN:
        return raw[0] != 0
    if field.encoding is Encoding.NULL and raw == NULL_POINTER:
        return "nullptr"
    if field.encoding is Encoding.TEXT:
        return escape(raw[1:])
    if field.encoding in _NUMBERS and field.type not in _BYTES_THERE and raw:
        return _number(field, raw)
    return raw.hex(" ")


def _number(field: StateField, raw: bytes) -> str:
    signed = field.encoding is Encoding.SIGNED or field.type in _SIGNED_THERE
    text = f"0x{raw.hex()}"
    if signed and raw[0] & 0x80:
        return f"{text} ({int.from_bytes(raw, signed=True)})"
    return text


def _mapping(state: DeviceState, items: Iterable[StateNode]) -> dict[str, Any]:
    collected: dict[str, list[Any]] = {}
    for item in items:
        if not isinstance(item, StateField):
            collected.setdefault(item.name, []).append(_mapping(state, item.items))
            continue
        values = [element_value(item, state.raw(where)) for where in item.elements()]
        collected.setdefault(item.name, []).extend(values)
    return {name: values[0] if len(values) == 1 else values for name, values in collected.items()}
