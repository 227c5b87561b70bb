# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of a tree: fields with their places, values, symbols and meanings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

_INDENT: Final = "    "
_INDENT_STEP: Final = 2
_NAME_WIDTH: Final = 18
_NAME_WIDTH_LIMIT: Final = 40


class Row(NamedTuple):
    """A line of the tree: ``offset`` counts from the start of the frame, None if not known."""

    offset: int | None
    name: str
    value: str
    symbol: str
    meaning: str
    depth: int = 0


def format_rows(rows: Iterable[Row]) -> str:
    """Write the rows of a tree as lines, with their ends; values stand below each other."""
    listed = list(rows)
    longest = max((_INDENT_STEP * row.depth + len(row.name) for row in listed), default=0)
    width = min(max(longest, _NAME_WIDTH), _NAME_WIDTH_LIMIT)
    return "".join(format_row(row, width) for row in listed)


def format_row(row: Row, width: int) -> str:
    """Write a row as a line, with its end; its name takes ``width`` columns or more."""
    place = "" if row.offset is None else f"+{row.offset}"
    name = " " * _INDENT_STEP * row.depth + row.name
    meaning = "" if row.meaning == row.value else row.meaning
    notes = "; ".join(filter(None, (row.symbol, meaning)))
    return f"{_INDENT}{place:>6}  {name:{width}} {row.value:20} {notes}".rstrip() + "\n"
