# SPDX-License-Identifier: GPL-2.0-or-later
"""A device's state as rows: places, values, types, and an end to long lists."""

from __future__ import annotations

from typing import Any

import pytest

from mfdtool.report import state_rows as module
from mfdtool.report.row import Row
from mfdtool.report.state_rows import state_rows
from mfdtool.stream.vmstate import DeviceState
from mfdtool.wire.main_stream import SubsectionHeader
from mfdtool.wire.vmdesc import DeviceDescription, FieldDescription, StateDescription


def described(*fields: FieldDescription, **more: Any) -> DeviceDescription:
    return DeviceDescription(
        name="dev", instance_id=0, vmsd_name="vmsd", version=1, fields=tuple(fields), **more
    )


def shown(device: DeviceDescription, data: bytes, *holes: tuple[int, int]) -> list[Row]:
    """Give the rows of a body, without the first one."""
    first, *others = state_rows(DeviceState(device, 1, data, holes))
    assert first == Row(None, "device", "dev", "", device.vmsd_name or "an old-style entry")
    return others


@pytest.mark.parametrize(
    ("type_name", "data", "row"),
    [
        ("uint32", b"\0\0\0\5", Row(0, "f", "0x00000005", "5", "uint32")),
        ("int8", b"\xfe", Row(0, "f", "0xfe", "-2", "int8")),
        ("timer", b"\0\0\0\0\0\0\0\7", Row(0, "f", "0x0000000000000007", "7", "timer")),
        ("bool", b"\1", Row(0, "f", "true", "", "bool")),
        ("nullptr", b"0", Row(0, "f", "nullptr", "", "nullptr")),
        ("buffer", b"\1\2", Row(0, "f", "0102", "", "buffer, 2 bytes")),
        ("buffer", bytes(25), Row(0, "f", "00" * 24 + "...", "", "buffer, 25 bytes")),
        ("pci config", b"\1", Row(0, "f", "01", "", "pci config, 1 byte")),
    ],
)
def test_values(type_name: str, data: bytes, row: Row) -> None:
    field = FieldDescription(name="f", type=type_name, size=len(data))
    assert shown(described(field), data) == [row]


def test_missing() -> None:
    field = FieldDescription(name="f", type="uint16", size=2, index=3)
    assert shown(described(field), b"\0\0", (1, 2)) == [Row(0, "f[3]", "(missing)", "", "uint16")]


def test_arrays() -> None:
    numbers = FieldDescription(name="n", type="uint8", size=1, array_len=3)
    assert shown(described(numbers), b"\1\2\3") == [Row(0, "n", "0x01 0x02 0x03", "", "uint8[3]")]
    many = FieldDescription(name="n", type="uint8", size=1, array_len=17)
    (row,) = shown(described(many), bytes(17))
    assert row.value == "0x00 " * 16 + "..."


def test_structs_and_subsections() -> None:
    one = FieldDescription(name="a", type="uint8", size=1)
    inner = StateDescription(vmsd_name="in", version=1, fields=(one,))
    struct = FieldDescription(name="s", type="struct", size=1, struct=inner, array_len=18)
    subsection = StateDescription(vmsd_name="vmsd/x", version=4, fields=(one,))
    data = bytes(18) + SubsectionHeader(name="vmsd/x", version_id=4).build() + b"\7"
    rows = shown(described(struct, subsections=(subsection,)), data)
    assert rows[:2] == [
        Row(0, "s[0]", "1 byte", "", "struct"),
        Row(0, "a", "0x00", "0", "uint8", 1),
    ]
    assert rows[30:] == [
        Row(15, "s[15]", "1 byte", "", "struct"),
        Row(15, "a", "0x00", "0", "uint8", 1),
        Row(16, "...", "2 more elements", "", ""),
        Row(18, "vmsd/x", "13 bytes", "", "subsection, version 4"),
        Row(30, "a", "0x07", "7", "uint8", 1),
    ]


def test_undecoded() -> None:
    one = FieldDescription(name="a", type="uint8", size=1)
    reason = "1 more than the vmdescription has fields for"
    assert shown(described(one), b"\1\2") == [Row(0, "undecoded", "2 bytes", "", reason)]


def test_old_style() -> None:
    device = DeviceDescription(name="dev", instance_id=0, size=3)
    assert shown(device, b"abcd") == [Row(0, "data", "61626364", "", "buffer, 4 bytes")]


def test_rows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", 2)
    fields = [FieldDescription(name=name, type="uint8", size=1) for name in "abc"]
    rows = shown(described(*fields), b"\1\2\3")
    assert [row.name for row in rows] == ["a", "b", "..."]
    assert rows[-1].value == "more than 2 rows"
