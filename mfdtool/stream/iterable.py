# SPDX-License-Identifier: GPL-2.0-or-later
"""The body of a handler that sends its state in several sections, as the value of a frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mfdtool.wire.iterable import PlacedRecord, records


@dataclass(frozen=True, slots=True)
class RecordsBody:
    """Records of one of `mfdtool.wire.iterable.HANDLERS`, all of them whole.

    Attributes:
        idstr: the section's.
        data: the body.
    """

    idstr: str
    data: bytes = field(repr=False)

    def records(self) -> Iterator[PlacedRecord]:
        """Take the body apart; nothing is remembered."""
        return records(self.idstr, self.data)

    def to_mapping(self) -> dict[str, Any]:
        """Give the records' values by name, without those that do not apply."""
        return {"records": [_present(record) for record in self.records()]}

    def count(self) -> int:
        """Count the values; a record's data is one."""
        return sum(len(_present(record)) + (record.step.data > 0) for record in self.records())


def _present(record: PlacedRecord) -> dict[str, Any]:
    values = record.step.message.to_mapping()
    return {name: value for name, value in values.items() if value is not None}
