# SPDX-License-Identifier: GPL-2.0-or-later
"""State of which nothing is known: shown as it was sent, one record for each packet or chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mfdtool.wire.vendors.vendor import Record, Vendor

if TYPE_CHECKING:
    from mfdtool.wire.vendors.cursor import Cursor
    from mfdtool.wire.vendors.vendor import Evidence, Guess, Records


def decode(cursor: Cursor) -> Records:
    """Give a record for each run of bytes of one origin."""
    while (yield from cursor.more()):
        start, origin = cursor.position, cursor.upcoming
        missing = 0
        while (yield from cursor.more()) and cursor.upcoming == origin:
            _, lost = cursor.drop()
            missing += lost
        yield Record(offset=start, length=cursor.position - start, name="data", missing=missing)


def _never(evidence: Evidence) -> Guess | None:
    return None


VENDOR: Final = Vendor(name="none", text="not decoded", source="", recognise=_never, decode=decode)
"""In place of a driver, where none is known."""
