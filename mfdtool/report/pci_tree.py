# SPDX-License-Identifier: GPL-2.0-or-later
"""A PCI device's config as rows of a tree, and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from mfdtool.report.row import Row
from mfdtool.stream.pci_fields import bar_json, capability_json
from mfdtool.wire.codec import Message, describe
from mfdtool.wire.constants import flag_names
from mfdtool.wire.pci_config import Msix, PciHeader, bar_and_offset
from mfdtool.wire.pci_state import MSIX_ENTRY_SIZE, VERSION_SIZE, PciState
from mfdtool.wire.pci_tables import DEVSEL_MASK, PCI_COMMANDS, PCI_STATUSES
from mfdtool.wire.vendors.vendor import pci_text

if TYPE_CHECKING:
    from mfdtool.wire.pci_config import Bar, Capability

FORMAT: Final = 1

ENTRIES_SHOWN: Final = 16
"""Entries of an MSI-X table that the tree of a frame shows."""

_PIN_SIZE: Final = 4
_SYMBOLS: Final[Mapping[str, Callable[[int], str]]] = {
    "command": lambda value: flag_names(value, PCI_COMMANDS),
    "status": lambda value: flag_names(value & ~DEVSEL_MASK, PCI_STATUSES),
}
_SHOWN_ELSEWHERE: Final = frozenset({"bars", "id", "next"})


def config_rows(state: PciState, start: int = 0, *, limit: int | None = None) -> Iterator[Row]:
    """Give a config's rows; ``start`` is its place, ``limit`` how many MSI-X entries to show.

    All are below one row, so that no name is taken for one of the frame's own.
    """
    yield Row(start, "config", f"{len(state.build())} bytes", "PCI", "vmstate of VFIOPCIDevice")
    for row in _rows(state, start, limit):
        yield row._replace(depth=row.depth + 1)


def _rows(state: PciState, start: int, limit: int | None) -> Iterator[Row]:
    sizes = state.geometry
    yield Row(start, "version", str(state.version), "", "version_id of PCIDevice")
    space = start + VERSION_SIZE
    yield Row(space, "config_space", f"{len(state.space)} bytes", "", "as the guest sees it")
    yield from _message_rows(state.header, space, depth=1)
    for capability in state.capabilities:
        yield from _capability_rows(capability, space)
    for pin, value in enumerate(state.pins):
        place = start + sizes.pins_at + _PIN_SIZE * pin
        yield Row(place, f"irq_state[{pin}]", str(value), "", f"INT{'ABCD'[pin]}")
    if state.vectors:
        yield from _msix_rows(state, start, limit)
    if state.rest:
        place = start + sizes.size
        yield Row(place, "subsection", f"{len(state.rest)} bytes", "", "not decoded")
    for problem in state.problems:
        yield Row(None, "problem", problem, "", "")


def config_json(state: PciState) -> dict[str, Any]:
    """Give a config as one JSON object."""
    header = state.header
    return {
        "format": FORMAT,
        "version": state.version,
        "config_size": len(state.space),
        "pci": pci_text((header.vendor_id, header.device_id)),
        "class": f"{header.device_class:#x}",
        "header": _plain(header),
        "bars": [bar_json(bar) for bar in header.used_bars()],
        "capabilities": [
            {**capability_json(each), "fields": _plain(each.body) if each.body else None}
            for each in state.capabilities
        ],
        "irq_state": list(state.pins),
        "msix_vectors": state.vectors,
        "msix_table": [
            {
                "address": f"{entry.address:#x}",
                "data": f"{entry.data:#x}",
                "masked": entry.masked,
            }
            for entry in state.entries()
        ],
        "msix_pending": list(state.pending_vectors()),
        "subsection_bytes": len(state.rest),
        "problems": list(state.problems),
    }


def _plain(message: Message) -> dict[str, Any]:
    """Give a message's fields as JSON has them, without those that are not there."""
    return {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in message.to_mapping().items()
        if value is not None
    }


def _message_rows(message: Message, start: int, *, depth: int) -> Iterator[Row]:
    for info in describe(type(message)):
        offset = None if info.offset is None else start + info.offset
        value = getattr(message, info.name)
        if isinstance(message, PciHeader) and info.name == "bars":
            yield from (_bar_row(bar, start) for bar in message.used_bars())
        if value is None or info.name in _SHOWN_ELSEWHERE:
            continue
        text = value.hex() if isinstance(value, bytes) else f"{value:#x}"
        symbol = _SYMBOLS[info.name](value) if info.name in _SYMBOLS else ""
        symbol = "" if symbol == "0" else symbol
        yield Row(offset, info.name, text, symbol, info.meaning, depth)


def _bar_row(bar: Bar, space: int) -> Row:
    place = space + _BARS_AT + 4 * bar.number
    kind = f"{bar.kind.value}, prefetchable" if bar.prefetchable else bar.kind.value
    return Row(place, f"bar[{bar.number}]", f"{bar.address:#x}", kind, "", 1)


def _capability_rows(capability: Capability, space: int) -> Iterator[Row]:
    place = space + capability.offset
    prefix = "extended " if capability.extended else ""
    at = f"at {capability.offset:#x}"
    yield Row(place, f"{prefix}capability", capability.name, capability.text, at, 1)
    if capability.body is not None:
        yield from _message_rows(capability.body, place, depth=2)
    if isinstance(capability.body, Msix):
        yield from _msix_places(capability.body)


def _msix_places(msix: Msix) -> Iterator[Row]:
    """Say where the table and the pending bits are, and whether the guest uses them."""
    state = "enabled" if msix.enabled else "disabled"
    masked = ", all masked" if msix.masked else ""
    yield Row(None, "vectors", str(msix.vectors), f"{state}{masked}", "", 2)
    for name, register in (("table", msix.table), ("pending bits", msix.pba)):
        bar, offset = bar_and_offset(register)
        yield Row(None, name, f"BAR {bar} at {offset:#x}", "", "", 2)


def _msix_rows(state: PciState, start: int, limit: int | None) -> Iterator[Row]:
    sizes = state.geometry
    place = start + sizes.table_at
    yield Row(place, "msix_table", f"{state.vectors} entries", "", "address, data")
    shown = 0
    for number, entry in enumerate(islice(state.entries(), limit)):
        shown += 1
        yield Row(
            place + MSIX_ENTRY_SIZE * number,
            f"[{number}]",
            f"{entry.address:#x} {entry.data:#x}",
            "masked" if entry.masked else "",
            "",
            1,
        )
    there = len(state.table) // MSIX_ENTRY_SIZE
    if shown < there:
        yield Row(None, "...", f"{there - shown} more", "", "", 1)
    pending = " ".join(map(str, state.pending_vectors())) or "none"
    yield Row(start + sizes.pending_at, "msix_pending", pending, "", "vectors whose bit is set")


_BARS_AT: Final = next(info.offset or 0 for info in describe(PciHeader) if info.name == "bars")
