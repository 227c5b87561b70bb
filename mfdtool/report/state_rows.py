# SPDX-License-Identifier: GPL-2.0-or-later
"""A device's state as rows of a tree: each field with its place, value and type.

Rows are bounded: of long arrays and buffers the first elements are shown, and how many more there
are. ``extract --vmstate`` shows all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from operator import attrgetter
from typing import Final

from mfdtool.report.row import Row
from mfdtool.stream.vmstate import DeviceState, element_value
from mfdtool.wire.vmstate import (
    Encoding,
    Range,
    StateField,
    StateNode,
    StateSubsection,
    number_of,
)

ROWS: Final = 2000
"""Most rows of one body."""

ELEMENTS: Final = 16
"""Elements that are shown of an array."""

BYTES: Final = 24
"""Bytes that are shown of a field without a known meaning."""

_NAME: Final = attrgetter("name")
_MISSING: Final = "(missing)"
_NUMBERS: Final = frozenset({Encoding.SIGNED, Encoding.UNSIGNED})


def state_rows(state: DeviceState) -> Iterator[Row]:
    """Give the rows of a FULL section's body; offsets count from its start."""
    body = state.decode()
    device = state.device
    yield Row(None, "device", device.name, "", device.vmsd_name or "an old-style entry")
    rows = _rows(state, body.items, depth=0)
    yield from islice(rows, ROWS)
    if next(rows, None) is not None:
        yield Row(None, "...", f"more than {ROWS} rows", "", "extract --vmstate shows all")
    if (rest := body.undecoded) is not None:
        yield Row(rest.start, "undecoded", _bytes(rest.stop - rest.start), "", rest.reason)


def _rows(state: DeviceState, items: Iterable[StateNode], *, depth: int) -> Iterator[Row]:
    for _, group in groupby(items, key=_NAME):
        nodes = list(group)
        for node in nodes[:ELEMENTS]:
            yield from _node_rows(state, node, depth)
        if len(nodes) > ELEMENTS:
            first = nodes[ELEMENTS]
            yield Row(first.start, "...", f"{len(nodes) - ELEMENTS} more elements", "", "", depth)


def _node_rows(state: DeviceState, node: StateNode, depth: int) -> Iterator[Row]:
    if isinstance(node, StateField):
        yield _field_row(state, node, depth)
        return
    size = _bytes(node.stop - node.start)
    if isinstance(node, StateSubsection):
        yield Row(node.start, node.name, size, "", f"subsection, version {node.version}", depth)
    else:
        yield Row(node.start, _named(node.name, node.index), size, "", "struct", depth)
    yield from _rows(state, node.items, depth=depth + 1)


def _field_row(state: DeviceState, field: StateField, depth: int) -> Row:
    name = _named(field.name, field.index)
    if field.count is None:
        where = field.start, field.stop
        text, symbol = _value(state, field, where)
        return Row(field.start, name, text, symbol, _type(field), depth)
    shown = [_value(state, field, where)[0] for where in islice(field.elements(), ELEMENTS)]
    if field.count > ELEMENTS:
        shown.append("...")
    return Row(field.start, name, " ".join(shown), "", f"{field.type}[{field.count}]", depth)


def _value(state: DeviceState, field: StateField, where: Range) -> tuple[str, str]:
    """Give an element's value; a number in decimal too."""
    start, stop = where
    short = stop - start <= BYTES
    raw = state.raw(where if short else (start, start + BYTES))
    if raw is None:
        return _MISSING, ""
    if field.encoding in _NUMBERS and raw:
        return f"0x{raw.hex()}", str(number_of(field, raw))
    if not short:
        return f"{raw.hex()}...", ""
    if field.encoding is Encoding.BYTES:
        return raw.hex(), ""
    value = element_value(field, raw)
    return (str(value).lower() if isinstance(value, bool) else str(value)), ""


def _type(field: StateField) -> str:
    if field.encoding is Encoding.BYTES:
        return f"{field.type}, {_bytes(field.size)}"
    return field.type


def _named(name: str, index: int | None) -> str:
    return name if index is None else f"{name}[{index}]"


def _bytes(count: int) -> str:
    return "1 byte" if count == 1 else f"{count} bytes"
