# SPDX-License-Identifier: GPL-2.0-or-later
"""Number tables: complete, and equal to what is known of the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import Any

import pytest

from mfdtool.wire import constants
from mfdtool.wire.constants import (
    COMMAND_LENGTHS,
    COMMANDS,
    MULTIFD_COMPRESSION_MASK,
    MULTIFD_COMPRESSION_MASK_9_0,
    MULTIFD_COMPRESSION_MASK_9_1,
    MULTIFD_FLAGS,
    RAM_FLAGS,
    RETURN_PATH_LENGTHS,
    RETURN_PATH_TYPES,
    SECTION_TYPES,
    VFIO_MARKERS,
    VFIO_STATE_FLAGS,
    Command,
    Meaning,
    MultiFDFlag,
    RamFlag,
    ReturnPathType,
    SectionType,
    VFIOMarker,
    VFIOStateFlag,
    flag_names,
)

TABLES: list[tuple[type[IntEnum] | type[IntFlag], Mapping[Any, Meaning]]] = [
    (SectionType, SECTION_TYPES),
    (Command, COMMANDS),
    (RamFlag, RAM_FLAGS),
    (MultiFDFlag, MULTIFD_FLAGS),
    (VFIOStateFlag, VFIO_STATE_FLAGS),
    (VFIOMarker, VFIO_MARKERS),
    (ReturnPathType, RETURN_PATH_TYPES),
]


@pytest.mark.parametrize(("members", "table"), TABLES)
def test_every_member_has_a_row(
    members: type[IntEnum] | type[IntFlag], table: Mapping[Any, Meaning]
) -> None:
    assert list(table) == list(members)
    for member, meaning in table.items():
        assert meaning.symbol.endswith(f"_{member.name}")
        assert meaning.text
        assert re.fullmatch(r"(\d+\.\d)?", meaning.since)


def test_every_enumeration_has_a_table() -> None:
    enumerations = {
        value
        for value in vars(constants).values()
        if isinstance(value, type)
        and issubclass(value, IntEnum | IntFlag)
        and value.__module__ == constants.__name__
    }
    assert enumerations == {members for members, _ in TABLES}


def test_length_tables_are_complete() -> None:
    assert list(COMMAND_LENGTHS) == list(Command)
    assert list(RETURN_PATH_LENGTHS) == list(ReturnPathType)


def test_compression_masks_grew_by_one_method_a_release() -> None:
    methods_9_0 = MultiFDFlag.ZLIB | MultiFDFlag.ZSTD | MultiFDFlag.QPL
    assert methods_9_0 == MULTIFD_COMPRESSION_MASK_9_0
    assert methods_9_0 | MultiFDFlag.UADK == MULTIFD_COMPRESSION_MASK_9_1
    assert MULTIFD_COMPRESSION_MASK_9_1 | MultiFDFlag.QATZIP == MULTIFD_COMPRESSION_MASK


@pytest.mark.parametrize(
    ("value", "names"),
    [
        (0, "0"),
        (0x41, "SYNC|DEVICE_STATE"),
        (0x80, "0x80"),
        (0x80000002, "ZLIB|0x80000000"),
    ],
)
def test_flag_names(value: int, names: str) -> None:
    assert flag_names(value, MULTIFD_FLAGS) == names


def test_hostile_flags_are_not_remembered() -> None:
    assert flag_names(0x400, RAM_FLAGS) == "0x400"
    before = len(RamFlag._value2member_map_)
    for value in range(0x400, 0x800):
        flag_names(value, RAM_FLAGS)
    assert len(RamFlag._value2member_map_) == before
