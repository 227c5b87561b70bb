# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of sections that are neither RAM nor a VFIO device."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mfdtool.errors import WireError
from mfdtool.wire.iterable import (
    DirtyBitmapRecord,
    HtabChunk,
    HtabHeader,
    StorageAttributes,
    records,
)

CheckMessage = Callable[..., None]

# Written by QEMU 10.0.2 for a bitmap b0 of a node n0, and what it sends where all is dirty.
BITMAP_START = bytes.fromhex("1c 026e30 026230 00010000 01 01")
BITMAP_BITS = bytes.fromhex("40 0000000000000000 00004000 0000000000000004") + b"bits" + b"\x20\x01"
HTAB = bytes(4) + bytes.fromhex("00000007 0002 0001") + bytes(32) + bytes(8)
ATTRIBUTES = bytes.fromhex("0000000000005002 0000000000000003") + b"abc" + bytes(7) + b"\1"


def test_dirty_bitmap(check_message: CheckMessage) -> None:
    record = DirtyBitmapRecord(
        flags=0x1C, node="n0", bitmap="b0", granularity=65536, bitmap_flags=1
    )
    check_message(record, BITMAP_START[:-1])
    zeroes = DirtyBitmapRecord(flags=0x42, start_sector=1, sectors=2)
    check_message(zeroes, bytes.fromhex("42 0000000000000001 00000002"))


def test_others(check_message: CheckMessage) -> None:
    check_message(HtabHeader(24), b"\0\0\0\x18")
    check_message(HtabChunk(index=7, n_valid=2, n_invalid=1), HTAB[4:12])
    check_message(StorageAttributes(word=0x5002, count=3), ATTRIBUTES[:16])
    check_message(StorageAttributes(word=1), ATTRIBUTES[-8:])


@pytest.mark.parametrize(
    ("idstr", "body", "expected"),
    [
        ("dirty-bitmap", BITMAP_START, [(0, 0, False), (12, 0, True)]),
        ("dirty-bitmap", BITMAP_BITS, [(0, 4, False), (25, 0, False), (26, 0, True)]),
        ("spapr/htab", b"\0\0\0\x18", [(0, 0, True)]),
        ("spapr/htab", b"\xff\xff\xff\xff", [(0, 0, True)]),
        ("spapr/htab", HTAB, [(0, 0, False), (4, 32, False), (44, 0, True)]),
        ("s390-storage_attributes", ATTRIBUTES, [(0, 3, False), (19, 0, True)]),
    ],
)
def test_bodies(idstr: str, body: bytes, expected: list[tuple[int, int, bool]]) -> None:
    found = [(start, step.data, step.is_last) for start, step in records(idstr, body)]
    assert found == expected


def test_flags_that_no_source_sends() -> None:
    with pytest.raises(WireError, match="flags that no source sends"):
        list(records("dirty-bitmap", b"\x80\1"))
