# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers for people: sizes, times, rates."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

NANOSECONDS: Final = 1_000_000_000
UNKNOWN: Final = "-"
"""What stands where nothing is known."""

_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size_text(count: float) -> str:
    """Write bytes with three digits: ``96 B``, ``1.46 MiB``."""
    if count < 1024:
        return f"{count:.0f} B"
    power = 0
    while count >= 999.5 and power < len(_UNITS):
        count /= 1024
        power += 1
    digits = 0 if count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f} {_UNITS[power - 1]}"


def rate_text(bytes_per_second: float | None) -> str:
    """Write a throughput."""
    if bytes_per_second is None:
        return UNKNOWN
    return f"{size_text(bytes_per_second)}/s"


def seconds_text(duration_ns: int) -> str:
    """Write a time span in seconds, to the microsecond."""
    return f"{duration_ns / NANOSECONDS:.6f} s"


def offset_text(time_ns: int, start_ns: int) -> str:
    """Write a time as seconds since another; ``-`` if one of them is unknown."""
    if time_ns < 0 or start_ns < 0:
        return UNKNOWN
    return f"{(time_ns - start_ns) / NANOSECONDS:.6f}"


def date_text(time_ns: int) -> str:
    """Write a time as date and time of day in UTC; ``-`` if it is unknown."""
    if time_ns < 0:
        return UNKNOWN
    seconds, fraction = divmod(time_ns, NANOSECONDS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{fraction // 1000:06d} UTC"


def stamp_text(time_ns: int) -> str | None:
    """Write a time for JSON: decimal seconds since the epoch; None if it is unknown."""
    if time_ns < 0:
        return None
    return f"{time_ns // NANOSECONDS}.{time_ns % NANOSECONDS:09d}"


def count_text(count: int, noun: str) -> str:
    """Write a number with its noun: ``1 packet``, ``2 packets``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def device_text(idstr: str) -> str:
    """Name a device, also one whose START section, which has its name, was not captured."""
    return idstr or "device without a name (its START section was not captured)"


def table(rows: Sequence[tuple[str, ...]], *, right: frozenset[int] = frozenset()) -> list[str]:
    """Align columns, those in ``right`` at the right; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
