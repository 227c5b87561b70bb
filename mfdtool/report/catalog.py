# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogue of fields, for people and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from mfdtool.report.wireshark_tables import COMMON_SHOWN, PREFIX, is_shown, wireshark_name
from mfdtool.stream.field import FieldType
from mfdtool.stream.fields import CATALOG, FORMAT, Definition, definitions_of
from mfdtool.stream.frames import Kind

_TYPE_WIDTH: Final = max(len(each.value) for each in FieldType)


class Entry(NamedTuple):
    """A field and the kinds of frames that have it in this form; none named: all do."""

    name: str
    definition: Definition


def entries_for(names: Iterable[str]) -> list[Entry]:
    """Give the entries of fields, or of all fields of kinds of frames; without names, all.

    A name can be both, like ``undecoded``.

    Raises:
        UnknownFieldError: a name is neither a field nor a kind.
    """
    wanted = list(names)
    if not wanted:
        return [Entry(name, each) for name, listed in CATALOG.items() for each in listed]
    kinds = {kind.value: kind for kind in Kind}
    entries: list[Entry] = []
    for name in wanted:
        if name in kinds:
            entries += _of_kind(kinds[name])
        if name not in kinds or name in CATALOG:
            entries += [Entry(name, each) for each in definitions_of(name)]
    return list(dict.fromkeys(entries))


def catalog_text(entries: Sequence[Entry], *, details: bool) -> str:
    """Write entries as aligned lines; with ``details`` also where they occur, their source, and
    what Wireshark calls them.
    """
    width = max((len(entry.name) for entry in entries), default=0)
    indent = " " * (width + _TYPE_WIDTH + 4)
    lines = []
    for name, definition in entries:
        field = definition.field
        lines.append(f"{name:{width}}  {field.type.value:{_TYPE_WIDTH}}  {field.meaning}\n")
        if details:
            names = ", ".join(_wireshark_names(name, definition))
            notes = (", ".join(definition.kinds) or "all frames", field.source, names)
            lines += [f"{indent}{note}\n" for note in notes if note]
    return "".join(lines)


def catalog_json(entries: Sequence[Entry]) -> str:
    """Write entries as one JSON object."""
    fields = [
        {
            "name": name,
            "type": definition.field.type.value,
            "meaning": definition.field.meaning,
            "source": definition.field.source or None,
            "wireshark": _wireshark_names(name, definition) or None,
            "kinds": [kind.value for kind in definition.kinds] or None,
        }
        for name, definition in entries
    ]
    return json.dumps({"format": FORMAT, "fields": fields}, indent=2) + "\n"


def _wireshark_names(name: str, definition: Definition) -> list[str]:
    """Say what the field is called in Wireshark; nothing if the dissector has none."""
    if definition.kinds:
        shown = (kind for kind in definition.kinds if is_shown(kind, name))
        return list(dict.fromkeys(wireshark_name(kind, name) for kind in shown))
    return [f"{PREFIX}.{name}"] if name in COMMON_SHOWN else []


def _of_kind(kind: Kind) -> list[Entry]:
    """Give the fields that only frames of some kinds have, and this one has."""
    return [
        Entry(name, definition)
        for name, definitions in CATALOG.items()
        for definition in definitions
        if kind in definition.kinds
    ]
