# SPDX-License-Identifier: GPL-2.0-or-later
"""Records behind a header of 16 bytes: size, flags, tag. mlx5 and virtio-vfio-pci have them.

The two differ in their tags only (``mlx5/cmd.h:mlx5_vf_migration_header``,
``virtio/common.h:virtiovf_migration_header``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from construct import Int32ul, Int64ul, Struct

from mfdtool.wire.codec import Message, field
from mfdtool.wire.vendors.vendor import (
    Confidence,
    Evidence,
    FieldValue,
    Guess,
    Record,
    by_ids,
    pci_text,
)

if TYPE_CHECKING:
    from mfdtool.wire.vendors.cursor import Cursor
    from mfdtool.wire.vendors.vendor import Records

HEADER_SIZE: Final = 16
LOAD_LIMIT: Final = (1 << 32) - 1
"""The largest record that either driver takes (``MAX_LOAD_SIZE``)."""

OPTIONAL: Final = 1
"""Flag: a driver that does not know the tag may pass over the record."""

_NUMBER: Final = 8
"""Size of the one payload that is read, a le64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordHeader(Message):
    """Header of a record."""

    SCHEMA = Struct(
        field("record_size", Int64ul, "bytes behind the header, 0xffffffff at most"),
        field("flags", Int32ul, "1: a driver that does not know the tag may pass over it"),
        field("tag", Int32ul, "what the record is"),
    )
    SOURCE = "drivers/vfio/pci/mlx5/cmd.h:mlx5_vf_migration_header"

    record_size: int
    flags: int = 0
    tag: int = 0


@dataclass(frozen=True, slots=True)
class Format:
    """One driver's records.

    Attributes:
        tags: its tags' names.
        numbers: tags whose payload is one le64, and that number's name.
        devices: vendor and device ids of its devices.
    """

    tags: Mapping[int, str]
    numbers: Mapping[int, str]
    devices: frozenset[tuple[int, int]]

    def recognise(self, evidence: Evidence) -> Guess | None:
        """Weigh the device's ids, and whether the first bytes could be a header."""
        first = self._first_header(evidence.head)
        if first is None:
            return by_ids(evidence, self.devices)
        fits = "its data begins with a record header"
        if evidence.pci is not None and evidence.pci in self.devices:
            return Guess(Confidence.CERTAIN, f"PCI ids {pci_text(evidence.pci)} and {fits}")
        if first.tag in self.numbers:
            why = f"its data begins with a record {self.tags[first.tag]} of {_NUMBER} bytes"
            return Guess(Confidence.LIKELY, why)
        return Guess(Confidence.POSSIBLE, f"{fits}, of a shape that several drivers have")

    def decode(self, cursor: Cursor) -> Records:
        """Cut a state into records; every header that is there is believed."""
        while (yield from cursor.more()):
            start = cursor.position
            header = RecordHeader.parse((yield from cursor.read(HEADER_SIZE)))
            size = header.record_size
            fields: dict[str, FieldValue] = dict(header.to_mapping())
            number = self.numbers.get(header.tag)
            if number is not None and size == _NUMBER:
                payload = yield from cursor.read(_NUMBER)
                fields[number] = int.from_bytes(payload, "little")
                missing = 0
            else:
                missing = yield from cursor.skip(size)
            yield Record(
                offset=start,
                length=HEADER_SIZE + size,
                header=HEADER_SIZE,
                name=self.tags.get(header.tag, f"tag {header.tag:#x}"),
                fields=fields,
                missing=missing,
                problem=self._problem(header),
            )

    def _problem(self, header: RecordHeader) -> str:
        """Say what the driver would refuse."""
        if header.record_size > LOAD_LIMIT:
            return f"record_size is more than {LOAD_LIMIT:#x}"
        if header.tag not in self.tags and not header.flags & OPTIONAL:
            return f"tag {header.tag:#x} is not known and not optional"
        return ""

    def _first_header(self, head: bytes) -> RecordHeader | None:
        """Give the header that a state begins with; None if it is not one that a driver writes."""
        if len(head) < HEADER_SIZE:
            return None
        header = RecordHeader.parse(head[:HEADER_SIZE])
        size = header.record_size
        fits = size == _NUMBER if header.tag in self.numbers else 0 < size <= LOAD_LIMIT
        known = header.tag in self.tags and not header.flags & ~OPTIONAL
        return header if fits and known else None
