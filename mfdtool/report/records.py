# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of a device's state, as lines for people and as JSON Lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mfdtool.report.jsonl import encode

if TYPE_CHECKING:
    from mfdtool.wire.vendors.cursor import Located

FORMAT: Final = 1

_EXACT: Final = 1 << 53
_LARGE: Final = 0xFFFF
"""Numbers above it are shown in hexadecimal: hardly any of them is a count."""


def header_text() -> str:
    """Give the line above the records."""
    return f"{'offset':>12} {'length':>12}  record\n"


def record_text(located: Located) -> str:
    """Give a record's line: place, length, name, what its header says, and where it was sent."""
    record = located.record
    parts = [f"{name}={_value(value)}" for name, value in record.fields.items()]
    if record.missing:
        parts.append(f"[{record.missing} bytes missing]")
    if record.problem:
        parts.append(f"[{record.problem}]")
    where = _where(located)
    line = f"{record.offset:>12} {record.length:>12}  {record.name}"
    return "  ".join(filter(None, (line, " ".join(parts), where))) + "\n"


def record_json(located: Located, *, vendor: str) -> str:
    """Give a record's line of JSON."""
    record = located.record
    values: dict[str, Any] = {
        "format": FORMAT,
        "vendor": vendor,
        "offset": record.offset,
        "length": record.length,
        "header": record.header,
        "name": record.name,
        "fields": {name: _exact(value) for name, value in record.fields.items()},
        "missing": record.missing,
        "problem": record.problem or None,
        "first": located.first or None,
        "last": located.last or None,
    }
    return encode(values) + "\n"


def _exact(value: int | str) -> int | str:
    """Give a number that JSON readers would round as a string."""
    return f"{value:#x}" if isinstance(value, int) and value > _EXACT else value


def _where(located: Located) -> str:
    if not located.first:
        return ""
    if located.first == located.last:
        return f"in {located.first}"
    return f"in {located.first} to {located.last}"


def _value(value: int | str) -> str:
    if isinstance(value, int) and value > _LARGE:
        return f"{value:#x}"
    if isinstance(value, str) and value and not value.strip("0"):
        return "0"
    return f'"{value}"' if isinstance(value, str) and " " in value else str(value)
