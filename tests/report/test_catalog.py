# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogue of fields."""

from __future__ import annotations

import json

import pytest

from mfdtool.report.catalog import catalog_json, catalog_text, entries_for
from mfdtool.stream.fields import CATALOG, UnknownFieldError
from mfdtool.stream.frames import Kind


def test_everything() -> None:
    entries = entries_for([])
    assert {entry.name for entry in entries} == set(CATALOG)
    assert len(catalog_text(entries, details=False).splitlines()) == len(entries)


def test_by_name_and_by_kind() -> None:
    assert [entry.name for entry in entries_for(["idx", "kind", "idx"])] == ["idx", "kind"]
    names = [entry.name for entry in entries_for(["multifd.init"])]
    assert names == ["magic", "version", "uuid", "id"]
    assert entries_for(["main.eof"]) == []
    assert catalog_text([], details=True) == ""


def test_a_field_that_is_called_like_a_kind() -> None:
    assert "undecoded" in set(Kind)
    (entry,) = entries_for(["undecoded"])
    assert (entry.name, entry.definition.kinds) == ("undecoded", (Kind.MAIN_OPAQUE,))
    assert catalog_text([entry], details=True) == (
        "undecoded  list        what no field claims: offset in the data, length and reason\n"
        "                       main.opaque\n"
        "                       vmstate.c:vmstate_load_state\n"
    )


def test_details() -> None:
    assert catalog_text(entries_for(["channel", "cmd"]), details=True) == (
        "channel  string      main, return-path, multifd-0, ...\n"
        "                     all frames\n"
        "                     qemu_mig.channel\n"
        "cmd      integer     which command\n"
        "                     main.command\n"
        "                     savevm.c:qemu_savevm_command_send\n"
        "                     qemu_mig.main.cmd\n"
    )


def test_details_of_what_wireshark_lacks() -> None:
    text = catalog_text(entries_for(["pci_bars", "field_count", "version_id"]), details=True)
    assert [line.strip() for line in text.splitlines() if "qemu_mig" in line] == [
        "qemu_mig.main.version_id"
    ]
    listed = json.loads(catalog_json(entries_for(["pci_bars"])))["fields"]
    assert [field["wireshark"] for field in listed] == [None]


def test_json() -> None:
    assert json.loads(catalog_json(entries_for(["number", "cmd"]))) == {
        "format": 1,
        "fields": [
            {
                "name": "number",
                "type": "integer",
                "meaning": "index in the channel; a gap has none",
                "source": None,
                "wireshark": ["qemu_mig.number"],
                "kinds": None,
            },
            {
                "name": "cmd",
                "type": "integer",
                "meaning": "which command",
                "source": "savevm.c:qemu_savevm_command_send",
                "wireshark": ["qemu_mig.main.cmd"],
                "kinds": ["main.command"],
            },
        ],
    }


def test_unknown() -> None:
    with pytest.raises(UnknownFieldError):
        entries_for(["nope"])
