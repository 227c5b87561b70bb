# SPDX-License-Identifier: GPL-2.0-or-later
"""Fields by name: the shape of QEMU's scripts/analyze-migration.py."""

from __future__ import annotations

from typing import Any

import pytest

from mfdtool.stream.vmstate import DeviceState, element_value, named_fields
from mfdtool.wire.vmdesc import DeviceDescription, FieldDescription, StateDescription
from mfdtool.wire.vmstate import StateField


@pytest.mark.parametrize(
    ("type_name", "raw", "value"),
    [
        ("uint8", b"\xff", "0xff"),
        ("int8", b"\xff", "0xff (-1)"),
        ("int8", b"\x7f", "0x7f"),
        ("int32 le", b"\xff\xff\xff\xfe", "0xfffffffe (-2)"),
        # As the script has it: QEMU's number is 255.
        ("uint8 equal", b"\xff", "0xff (-1)"),
        ("uint16 equal", b"\x80\x00", "0x8000 (-32768)"),
        ("uint32 equal", b"\x80\0\0\0", "0x80000000"),
        ("uint64", b"\0\0\0\0\0\0\0\1", "0x0000000000000001"),
        ("uint64", b"", ""),
        ("timer", b"\0\0\0\0\0\0\0\1", "00 00 00 00 00 00 00 01"),
        ("fd", b"\0\0\0\1", "00 00 00 01"),
        ("bool", b"\0", False),
        ("bool", b"\2", True),
        ("bool", b"", None),
        ("nullptr", b"0", "nullptr"),
        ("nullptr", b"1", "31"),
        ("capability", b"\3a\nb", "a\\x0ab"),
        ("buffer", b"\1\2", "01 02"),
        ("never heard of", b"\1", "01"),
        ("uint8", None, None),
    ],
)
def test_element_value(type_name: str, raw: bytes | None, value: object) -> None:
    field = StateField(name="n", type=type_name, start=0, size=len(raw or b""))
    assert element_value(field, raw) == value


def state(
    *fields: FieldDescription, data: bytes, holes: tuple[tuple[int, int], ...] = ()
) -> object:
    device = DeviceDescription(
        name="dev", instance_id=0, vmsd_name="dev", version=1, fields=tuple(fields)
    )
    value = DeviceState(device, 1, data, holes)
    return named_fields(value, value.decode())


def one(name: str, type_name: str = "uint8", **more: Any) -> FieldDescription:
    return FieldDescription(name=name, type=type_name, size=1, **more)


def test_a_name_that_comes_again_is_a_list() -> None:
    # As arrays of pointers are written some of which are null.
    fields = (
        one("p", "nullptr", array_len=2),
        one("p", index=2),
        one("q"),
        one("p", "nullptr", index=3),
    )
    assert state(*fields, data=bytes([0x30, 0x30, 1, 2, 0x30])) == {
        "p": ["nullptr", "nullptr", "0x01", "nullptr"],
        "q": "0x02",
    }


def test_structs_are_objects() -> None:
    inner = StateDescription(vmsd_name="in", version=1, fields=(one("a"),))
    struct = FieldDescription(name="s", type="struct", size=1, struct=inner, array_len=2)
    single = FieldDescription(name="t", type="struct", size=1, struct=inner)
    assert state(struct, single, data=b"\1\2\3") == {
        "s": [{"a": "0x01"}, {"a": "0x02"}],
        "t": {"a": "0x03"},
    }


def test_missing_bytes_are_null() -> None:
    shown = state(one("a", array_len=3), one("b"), data=bytes(4), holes=((1, 2), (3, 4)))
    assert shown == {"a": ["0x00", None, "0x00"], "b": None}


def test_captured_bytes_of_a_range() -> None:
    device = DeviceDescription(name="x", instance_id=0, vmsd_name="x", version=1)
    state = DeviceState(device, 1, bytes(20), ((3, 5), (10, 14)))
    assert [state.count_captured(where) for where in ((0, 20), (4, 12), (5, 10))] == [14, 5, 5]
    rest = state.rest()
    assert rest is not None
    assert (rest.start, rest.stop) == (0, 20)
