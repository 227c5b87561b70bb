# SPDX-License-Identifier: GPL-2.0-or-later
"""The catalogue of fields."""

from __future__ import annotations

import json

import pytest

from mfdtool.report.catalog import catalog_json, catalog_text, entries_for
from mfdtool.stream.fields import CATALOG, UnknownFieldError


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


def test_details() -> None:
    assert catalog_text(entries_for(["channel", "cmd"]), details=True) == (
        "channel  string      main, return-path, multifd-0, ...\n"
        "                     all frames\n"
        "cmd      integer     which command\n"
        "                     main.command\n"
        "                     savevm.c:qemu_savevm_command_send\n"
    )


def test_json() -> None:
    assert json.loads(catalog_json(entries_for(["number", "cmd"]))) == {
        "format": 1,
        "fields": [
            {
                "name": "number",
                "type": "integer",
                "meaning": "index in the channel; a gap has none",
                "source": None,
                "kinds": None,
            },
            {
                "name": "cmd",
                "type": "integer",
                "meaning": "which command",
                "source": "savevm.c:qemu_savevm_command_send",
                "kinds": ["main.command"],
            },
        ],
    }


def test_unknown() -> None:
    with pytest.raises(UnknownFieldError):
        entries_for(["nope"])
