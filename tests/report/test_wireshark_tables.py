# SPDX-License-Identifier: GPL-2.0-or-later
"""What the dissector is made of agrees with what it is made from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mfdtool.report.wireshark_tables import (
    CHECKED_RULES,
    COMMON_SHOWN,
    GROUPS,
    SCHEMAS,
    Step,
    flag_bits,
    is_shown,
    lua_fields,
    schema_steps,
    wireshark_name,
)
from mfdtool.rules import RULES
from mfdtool.stream.field import FieldType
from mfdtool.stream.field_tables import BY_KIND
from mfdtool.stream.fields import WITH_CONFIG, fields_of
from mfdtool.stream.frames import Kind
from mfdtool.stream.pci_fields import PCI_CONFIG
from mfdtool.wire.codec import Message
from mfdtool.wire.multifd import INIT_LAYOUT, RAM_LAYOUT, MultiFDInit, MultiFDPacketFixed
from mfdtool.wire.vfio import DEVICE_STATE_HEADER_LAYOUT, DeviceStateHeader

GOLDEN = Path(__file__).parents[1] / "golden" / "wireshark" / "fields.tsv"
BY_KEY = {field.key: field for field in lua_fields()}
MESSAGES = [(group, message) for group, listed in SCHEMAS.items() for message in listed]


def test_every_field_of_decode_is_there() -> None:
    for kind, fields in BY_KIND.items():
        for field in fields:
            if not is_shown(kind, field.name):
                continue
            shown = BY_KEY[wireshark_name(kind, field.name).removeprefix("qemu_mig.")]
            if field.type is FieldType.INTEGER:
                assert shown.type.startswith("uint")
            elif field.type is FieldType.STRING:
                assert shown.type == "string"
    assert set(COMMON_SHOWN) <= set(BY_KEY)


def test_fields_that_only_decode_has() -> None:
    missing = {
        kind: [field.name for field in fields_of((kind, shape)) if not is_shown(kind, field.name)]
        for kind in Kind
        for shape in (object, *([bytes] if kind in WITH_CONFIG else []))
    }
    pci = [field.name for field in PCI_CONFIG]
    assert {kind: names for kind, names in missing.items() if names} == {
        Kind.MULTIFD_DEVICE_STATE: pci,
        Kind.VFIO_MARKER: pci,
        Kind.MAIN_OPAQUE: ["version_id", "field_count", "fields", "undecoded"],
    }
    assert is_shown(Kind.MAIN_SECTION_FULL, "version_id")
    assert not [key for key in BY_KEY if "pci_" in key or "msix_" in key or "undecoded" in key]


def test_names() -> None:
    assert wireshark_name(Kind.MULTIFD_DEVICE_STATE, "idx") == "qemu_mig.device_state.idx"
    assert wireshark_name(Kind.MULTIFD_SYNC, "packet_num") == "qemu_mig.multifd.packet_num"
    assert wireshark_name(Kind.MAIN_SECTION_FULL, "idstr") == "qemu_mig.main.idstr"
    assert set(GROUPS) == set(Kind)
    # Wireshark allows no other characters.
    assert all(re.fullmatch(r"[a-z0-9_.]+", key) for key in BY_KEY)
    assert len(BY_KEY) == len(lua_fields())


@pytest.mark.parametrize(
    ("group", "message", "size"),
    [
        ("multifd", MultiFDInit, INIT_LAYOUT.size),
        ("multifd", MultiFDPacketFixed, RAM_LAYOUT.size),
        ("device_state", DeviceStateHeader, DEVICE_STATE_HEADER_LAYOUT.size),
    ],
)
def test_steps_cover_the_message(group: str, message: type[Message], size: int) -> None:
    assert sum(step.width for step in schema_steps(group, message)) == size


def test_steps_are_named_as_decode_names_them() -> None:
    steps = {step.name: step for step in schema_steps("device_state", DeviceStateHeader)}
    assert steps["idstr"] == Step("idstr", "name", "device_state.idstr", 256)
    assert steps["idx"] == Step("idx", "be32", "device_state.idx", 4)


@pytest.mark.parametrize(("group", "message"), MESSAGES)
def test_every_step_has_a_field(group: str, message: type[Message]) -> None:
    for step in schema_steps(group, message):
        field = BY_KEY[step.key]
        if step.reader in {"u8", "be16", "be32", "be64"}:
            assert int(field.type.removeprefix("uint")) >= 8 * step.width
        else:
            assert field.type == ("bytes" if step.reader == "bytes" else "string")


def test_bits() -> None:
    bits = flag_bits()
    assert bits["device_state.flags"] == [("device_state.flags.config_state", 1)]
    assert ("ram.flags.multifd_flush", 0x200) in bits["ram.flags"]
    for key, listed in bits.items():
        for name, mask in listed:
            assert (BY_KEY[name].type, BY_KEY[name].mask) == ("bool", mask)
            assert key in BY_KEY


def test_rules() -> None:
    assert set(CHECKED_RULES) <= set(RULES)
    assert len(set(CHECKED_RULES)) == len(CHECKED_RULES)


def test_golden_list_of_fields(request: pytest.FixtureRequest) -> None:
    listed = "".join(
        f"{field.key}\t{field.type}\t{field.mask or ''}\t{field.meaning}\n"
        for field in sorted(lua_fields(), key=lambda field: field.key)
    )
    if request.config.getoption("--update-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(listed, encoding="utf-8")
    else:
        assert listed == GOLDEN.read_text(encoding="utf-8")
