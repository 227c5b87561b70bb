# SPDX-License-Identifier: GPL-2.0-or-later
"""A PCI config as rows and as JSON."""

from __future__ import annotations

import json

from mfdtool.fixtures.pci import pci_config
from mfdtool.report.pci_tree import ENTRIES_SHOWN, config_json, config_rows
from mfdtool.report.row import Row, format_rows
from mfdtool.report.tree import rows
from mfdtool.wire.pci_state import PciState, parse_pci_state
from mfdtool.wire.vfio import wrap_config
from tests.support.captures import decoded
from tests.support.made_frames import Maker
from tests.support.pci import config, space

STATE = parse_pci_state(config(space()))


def shown(state: PciState, start: int = 0, limit: int | None = None) -> dict[str, Row]:
    return {row.name: row for row in config_rows(state, start, limit=limit)}


def test_rows_are_where_the_bytes_are() -> None:
    frame = next(frame for frame in decoded("mtty-4ch-clean")[1] if frame.config)
    named = {row.name: row for row in rows(frame)}
    data = frame.data()
    for name, value in (("vendor_id", 0x4348), ("command", 0x0103), ("subsystem_id", 0x3253)):
        row = named[name]
        assert row.offset is not None
        assert int.from_bytes(data[row.offset : row.offset + 2], "little") == value
        assert row.value == f"{value:#x}"
    at = named["irq_state[3]"].offset
    assert at == len(data) - 8 - 4


def test_rows() -> None:
    named = shown(STATE, 1000)
    assert named["command"].symbol == "MEMORY|MASTER|INTX_DISABLE"
    assert named["status"].symbol == "CAP_LIST"
    assert (named["bar[0]"].value, named["bar[0]"].symbol) == (
        "0x1fe000000",
        "memory64, prefetchable",
    )
    assert (named["table"].value, named["pending bits"].value) == (
        "BAR 0 at 0x2000",
        "BAR 4 at 0x3000",
    )
    assert named["vectors"].symbol == "enabled"
    assert named["msix_pending"].value == "0 2"
    assert named["msix_table"].offset == 1000 + 4 + 4096 + 16
    assert named["[1]"] == Row(1000 + 4116 + 16, "[1]", "0xfee01000 0x4021", "", "", 2)
    assert named["extended capability"].value == "ACS"
    assert "problem" not in named
    first = next(config_rows(STATE, 1000))
    assert format_rows([first]).split() == [
        "+1000",
        "config",
        "4165",
        "bytes",
        "PCI;",
        "vmstate",
        "of",
        "VFIOPCIDevice",
    ]


def test_long_tables_are_cut() -> None:
    state = parse_pci_state(pci_config(vectors=2048))
    named = shown(state, limit=ENTRIES_SHOWN)
    assert named["..."].value == "2032 more"
    assert f"[{ENTRIES_SHOWN}]" not in named
    assert "[2047]" in shown(state)


def test_problems_and_subsections() -> None:
    state = parse_pci_state(config(space()) + b"\x04rest")
    named = shown(state)
    assert named["subsection"].value == "5 bytes"
    assert named["problem"].value.startswith("4170 bytes, 4165 would be")


def test_a_config_cut_in_its_pins() -> None:
    named = shown(parse_pci_state(pci_config(size=256)[:270]))
    assert named["config"].value == "270 bytes"
    assert "irq_state[1]" in named
    assert "irq_state[2]" not in named
    assert named["problem"].value.startswith("270 bytes, 276 would be")


def test_a_config_packet_made_by_hand_has_none() -> None:
    # Its frame keeps nothing besides extents.
    packet = Maker().packet(1, wrap_config(config(space())), config=True)
    assert not any(row.name == "vendor_id" for row in rows(packet))


def test_json() -> None:
    found = json.loads(json.dumps(config_json(STATE)))
    assert found["format"] == 1
    assert (found["config_size"], found["class"], found["version"]) == (4096, "0x20000", 2)
    assert found["header"]["vendor_id"] == 0x15B3
    assert found["header"]["reserved"] == "00" * 7
    assert [each["name"] for each in found["capabilities"]] == [
        "EXP",
        "MSIX",
        "PM",
        "MSI",
        "VNDR",
        "ARI",
        "ACS",
    ]
    assert found["capabilities"][2]["fields"]["ctrl"] == 8
    assert found["capabilities"][5]["fields"] is None
    assert found["msix_table"][2] == {"address": "0xfee01000", "data": "0x4022", "masked": False}
    assert (found["msix_vectors"], found["msix_pending"]) == (3, [0, 2])
    assert (found["irq_state"], found["subsection_bytes"], found["problems"]) == ([0] * 4, 0, [])
