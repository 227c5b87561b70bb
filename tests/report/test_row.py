# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows as lines: names as wide as the longest, within limits."""

from __future__ import annotations

from mfdtool.report.row import Row, format_row, format_rows


def test_no_rows_are_no_lines() -> None:
    assert format_rows([]) == ""


def test_a_line_has_place_name_value_and_notes() -> None:
    row = Row(4, "idx", "5", "symbol", "its meaning", depth=1)
    assert format_row(row, 8) == f"        +4    idx    {'5':20} symbol; its meaning\n"


def test_a_meaning_that_is_the_value_is_not_said_twice() -> None:
    assert format_row(Row(None, "name", "value", "", "value"), 6) == f"{'':12}name   value\n"


def _values_at(*names: str) -> list[int]:
    lines = format_rows(Row(0, name, "VALUE", "", "") for name in names).splitlines()
    return [line.index("VALUE") for line in lines]


def test_values_stand_below_each_other() -> None:
    narrow, same = _values_at("a", "bb")
    assert narrow == same == 12 + 18 + 1
    assert _values_at("a", "b" * 25) == [12 + 25 + 1] * 2


def test_one_long_name_does_not_move_all_values() -> None:
    short, long = _values_at("a", "b" * 90)
    assert (short, long) == (12 + 40 + 1, 12 + 90 + 1)
