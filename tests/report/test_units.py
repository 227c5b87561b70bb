# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers for people."""

from __future__ import annotations

import pytest

from mfdtool.report.units import (
    count_text,
    date_text,
    offset_text,
    rate_text,
    seconds_text,
    size_text,
    stamp_text,
    table,
)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (96, "96 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (10 * 1024, "10.0 KiB"),
        (100 * 1024, "100 KiB"),
        (1023 * 1024, "1.00 MiB"),
        (64 << 30, "64.0 GiB"),
        (1 << 80, "1048576 EiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size_text(count) == text


def test_times() -> None:
    assert seconds_text(1_234_567_890) == "1.234568 s"
    assert offset_text(1_500_000_000, 1_000_000_000) == "0.500000"
    assert offset_text(-1, 5) == offset_text(5, -1) == "-"
    assert date_text(1_795_425_059_982_123_000) == "2026-11-23 09:10:59.982123 UTC"
    assert date_text(-1) == "-"
    assert stamp_text(1_795_425_059_982_123_000) == "1795425059.982123000"
    assert stamp_text(-1) is None


def test_counts_and_rates() -> None:
    assert (count_text(1, "packet"), count_text(2000, "packet")) == ("1 packet", "2,000 packets")
    assert (rate_text(None), rate_text(2048.0)) == ("-", "2.00 KiB/s")


def test_table() -> None:
    rows = [("name", "n", ""), ("a", "10", "x"), ("bcdef", "1", "")]
    assert table(rows, right=frozenset({1})) == ["name    n", "a      10  x", "bcdef   1"]
