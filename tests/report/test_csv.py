# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of cells: what the standard library's reader makes of them again."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import pytest

from mfdtool.report.csv import DEFAULT_COLUMNS, CsvLines, TabLines, quote
from mfdtool.report.jsonl import encode
from mfdtool.stream.fields import CATALOG, UnknownFieldError, values
from mfdtool.stream.frames import Frame
from tests.support.captures import NAMES, decoded


def cells(frame: Frame, names: Sequence[str]) -> list[str]:
    found = values(frame)
    texts = []
    for name in names:
        value = found.get(name)
        if value is None:
            value = ""
        texts.append(value if isinstance(value, str) else encode(value))
    return texts


@pytest.mark.parametrize("name", NAMES)
def test_rows_read_back(name: str) -> None:
    columns = tuple(CATALOG)
    lines = CsvLines(columns)
    frames = decoded(name)[1]
    text = lines.header + "".join(map(lines.write, frames))
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert tuple(header) == columns
    assert rows == [cells(frame, columns) for frame in frames]


def test_default_columns() -> None:
    lines = CsvLines()
    assert lines.header == ",".join(DEFAULT_COLUMNS) + "\r\n"
    frame = decoded("mtty-4ch-clean")[1][0]
    assert lines.write(frame) == (
        "0,multifd-2,0,multifd.init,0,64,1795425060.015965000,1795425060.015965000,16,true,"
        ",,,,,,,,,,,,,,\r\n"
    )


def test_tabs() -> None:
    lines = TabLines(["channel", "number", "blocks", "complete"])
    assert lines.header == ""
    frame = decoded("mtty-4ch-clean")[1][0]
    assert lines.write(frame) == "multifd-2\t0\t\ttrue\n"


@pytest.mark.parametrize(
    ("text", "written"),
    [("plain", "plain"), ("", ""), ("a,b", '"a,b"'), ('say "x"', '"say ""x"""'), ("a\n", '"a\n"')],
)
def test_quoting(text: str, written: str) -> None:
    assert quote(text) == written


def test_unknown_field() -> None:
    with pytest.raises(UnknownFieldError):
        CsvLines(["indx"])
