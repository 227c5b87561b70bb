# SPDX-License-Identifier: GPL-2.0-or-later
"""Bodies of START, PART and END sections besides those of RAM and VFIO devices.

No vmdescription tells of them: each handler has records of its own, the last of which ends the
body::

    dirty-bitmap             DirtyBitmapRecord [bits], until one with EOS
    spapr/htab               HtabHeader; if that is 0, (HtabChunk entries)* until an empty chunk
    s390-storage_attributes  StorageAttributes [values], until one with EOS, or behind DONE
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntFlag
from typing import Final, NamedTuple

from construct import Int8ub, Int16ub, Int32ub, Int64ub, Struct, this

from mfdtool.errors import WireError
from mfdtool.wire.codec import Message, counted_string, field, optional

RECORD_LIMIT: Final = 1 << 10
"""More than any record has in front of its data: two names of 255 bytes, and numbers."""

_HASH_PTE_SIZE: Final = 16


class DirtyBitmapFlag(IntFlag):
    """What a dirty-bitmap record has (block-dirty-bitmap.c:DIRTY_BITMAP_MIG_FLAG_EOS)."""

    EOS = 0x01
    ZEROES = 0x02
    BITMAP_NAME = 0x04
    DEVICE_NAME = 0x08
    START = 0x10
    COMPLETE = 0x20
    BITS = 0x40
    EXTRA_FLAGS = 0x80


class StorageAttributesFlag(IntFlag):
    """What follows an address (hw/s390x/s390-stattr.c:STATTR_FLAG_EOS)."""

    EOS = 0x01
    MORE = 0x02
    ERROR = 0x04
    DONE = 0x08


def _has_data(fields: DirtyBitmapRecord) -> bool:
    return bool(fields.flags & DirtyBitmapFlag.BITS) and not fields.flags & DirtyBitmapFlag.ZEROES


@dataclass(frozen=True, slots=True, kw_only=True)
class DirtyBitmapRecord(Message):
    """One record of a dirty-bitmap section; the names are left out if they are as before."""

    SCHEMA = Struct(
        field("flags", Int8ub, "what the record has"),
        field(
            "node",
            optional(this.flags & DirtyBitmapFlag.DEVICE_NAME, counted_string()),
            "block node, by its alias",
        ),
        field(
            "bitmap",
            optional(this.flags & DirtyBitmapFlag.BITMAP_NAME, counted_string()),
            "bitmap, by its alias",
        ),
        field(
            "granularity",
            optional(this.flags & DirtyBitmapFlag.START, Int32ub),
            "bytes that one bit stands for",
        ),
        field(
            "bitmap_flags",
            optional(this.flags & DirtyBitmapFlag.START, Int8ub),
            "1 enabled, 2 persistent",
        ),
        field(
            "start_sector",
            optional(this.flags & DirtyBitmapFlag.BITS, Int64ub),
            "first sector of 512 bytes that the bits are about",
        ),
        field("sectors", optional(this.flags & DirtyBitmapFlag.BITS, Int32ub), "how many"),
        field("size", optional(_has_data, Int64ub), "bytes of bits that follow"),
    )
    SOURCE = "block-dirty-bitmap.c:dirty_bitmap_load_header"

    flags: int
    node: str | None = None
    bitmap: str | None = None
    granularity: int | None = None
    bitmap_flags: int | None = None
    start_sector: int | None = None
    sectors: int | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class HtabHeader(Message):
    """What a body of a hash table begins with."""

    SCHEMA = Struct(
        field("shift", Int32ub, "log2 of the table's size, 0xffffffff for none; 0: chunks follow")
    )
    SOURCE = "hw/ppc/spapr.c:htab_load"

    shift: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HtabChunk(Message):
    """A run of a hash table's entries; one of zeroes ends the body."""

    SCHEMA = Struct(
        field("index", Int32ub, "the first entry's"),
        field("n_valid", Int16ub, "entries of 16 bytes that follow"),
        field("n_invalid", Int16ub, "empty entries behind those"),
    )
    SOURCE = "hw/ppc/spapr.c:htab_load"

    index: int
    n_valid: int
    n_invalid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageAttributes(Message):
    """Attributes of pages that follow each other."""

    SCHEMA = Struct(
        field("word", Int64ub, "address of the first page, and flags in the low 12 bits"),
        field(
            "count",
            optional(this.word & StorageAttributesFlag.MORE, Int64ub),
            "pages, with a byte for each behind it",
        ),
    )
    SOURCE = "hw/s390x/s390-stattr.c:cmma_load"

    word: int
    count: int | None = None


class Step(NamedTuple):
    """A record at the start of some bytes.

    Attributes:
        message: what precedes its data.
        header: how long that is.
        data: bytes of data that follow.
        is_last: whether the body ends behind it.
        may_be_last: whether it may do so; the section's footer tells.
    """

    message: Message
    header: int
    data: int
    is_last: bool
    may_be_last: bool = False


def _dirty_bitmap(data: bytes, *, is_first: bool) -> Step:
    record, used = DirtyBitmapRecord.parse_prefix(data)
    if record.flags & DirtyBitmapFlag.EXTRA_FLAGS:
        raise WireError("flags that no source sends", path="flags")
    return Step(record, used, record.size or 0, bool(record.flags & DirtyBitmapFlag.EOS))


def _htab(data: bytes, *, is_first: bool) -> Step:
    if is_first:
        header, used = HtabHeader.parse_prefix(data)
        return Step(header, used, 0, header.shift != 0)
    chunk, used = HtabChunk.parse_prefix(data)
    is_last = not (chunk.index or chunk.n_valid or chunk.n_invalid)
    return Step(chunk, used, chunk.n_valid * _HASH_PTE_SIZE, is_last)


def _storage_attributes(data: bytes, *, is_first: bool) -> Step:
    record, used = StorageAttributes.parse_prefix(data)
    is_done = bool(record.word & StorageAttributesFlag.DONE)
    is_last = bool(record.word & StorageAttributesFlag.EOS)
    return Step(record, used, record.count or 0, is_last, is_done)


HANDLERS: Final[Mapping[str, Callable[..., Step]]] = {
    "dirty-bitmap": _dirty_bitmap,
    "spapr/htab": _htab,
    "s390-storage_attributes": _storage_attributes,
}
"""What reads the next record of a body, by the section's idstr.

They raise `TruncatedError` if the bytes end inside the record, and `WireError` if it is none.
"""


class PlacedRecord(NamedTuple):
    """A record, and where it begins in its body."""

    start: int
    step: Step


def records(idstr: str, body: bytes) -> Iterator[PlacedRecord]:
    """Take a whole body apart, of one of the `HANDLERS`.

    Raises:
        WireError: it does not consist of whole records.
    """
    at = 0
    while at < len(body):
        step = HANDLERS[idstr](body[at : at + RECORD_LIMIT], is_first=not at)
        yield PlacedRecord(at, step)
        at += step.header + step.data
